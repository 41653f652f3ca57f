"""Stage one: images to regions.  Knows pictures and detectors, never text."""
