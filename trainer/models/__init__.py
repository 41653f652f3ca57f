"""One file a paper, one interface."""
