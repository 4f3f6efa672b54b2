"""Services of the machine that a program runs on: paths, locks, stops, faults, and the records of its folders."""
