"""Rows of files with questions, and ways to read and compare their answers."""
