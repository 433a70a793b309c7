"""One file per change of the tables, applied in the order of their numbers. A released one is never edited."""
