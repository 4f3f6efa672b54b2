"""Looks of a report: figures, tables on a terminal, and markup."""
