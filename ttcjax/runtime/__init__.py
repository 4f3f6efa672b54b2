"""What a program needs of the machine it runs on: paths, locks, stops, faults, and the records of its folders."""
