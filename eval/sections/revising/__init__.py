"""The subjects of a report on revisions."""
