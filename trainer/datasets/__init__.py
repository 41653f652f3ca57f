"""One file a data set: a layout on disk becomes the one queries table."""
