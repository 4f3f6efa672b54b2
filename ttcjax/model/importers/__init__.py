"""Models of other makers: found by name, read tensor by tensor, and written for others to read."""
