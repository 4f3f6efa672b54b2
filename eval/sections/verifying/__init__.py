"""Sections on verifiers: their quality, weaker ones, PRM against ORM, and what searches exploit."""
