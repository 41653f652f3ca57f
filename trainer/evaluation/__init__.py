"""What a run is worth: scores, and files for the servers that score."""
