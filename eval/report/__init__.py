"""The report stage: figures, tables, claims and the page."""
