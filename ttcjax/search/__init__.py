"""Search strategies: one file each, one contract (`base`)."""
