"""What a report says, one subject a file: numbers computed from rows."""
