"""From a data set on disk to the one table of queries."""
