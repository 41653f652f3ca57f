"""Settings of a training that several data sets recommend."""

LIGHT = {"width": 128, "heads": 4, "vep_depth": 1, "tep_depth": 1}
"""Recommended for up to some ten thousand queries: on generated CSS no wider or deeper LBF was
better, and it trains in minutes on a CPU."""

LARGE = 50_000
"""Training pairs of an epoch from which the model's own defaults are recommended."""


def for_size(pairs: int) -> dict[str, object]:
    """A small table needs a light model, and batches small enough for some steps an epoch."""
    if pairs >= LARGE:
        return {}
    return {**LIGHT, "batch": min(128, max(8, pairs // 16))}
