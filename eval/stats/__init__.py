"""Estimates and intervals from arrays; nothing here reads a file or runs a model."""
