"""From settings and regions to a run."""
