"""Questions with reference solutions: the embedded domain and data sets read from files."""
