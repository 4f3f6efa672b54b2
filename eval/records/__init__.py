"""Results on disk: the columns of a row."""
