"""The subjects of a report, one file each."""
