"""Settings of a training that several data sets recommend."""

LIGHT = {"width": 128, "heads": 4, "vep_depth": 1, "tep_depth": 1}
"""Recommended for up to some ten thousand queries: on generated CSS no wider or deeper LBF was
better, and it trains in minutes on a CPU."""
