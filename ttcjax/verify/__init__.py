"""Verifiers: scores of steps and solutions, and how good the scores are."""
