"""Stage two: regions and words to a joint vector.  Knows no detector and no pixel."""
