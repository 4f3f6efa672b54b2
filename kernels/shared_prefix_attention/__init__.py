"""Attention of rows that share a prefix with the other rows of their question and own a suffix each."""
