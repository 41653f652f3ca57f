"""Settings of a training that several data sets recommend."""

LIGHT = {"width": 128, "heads": 4, "vep_depth": 1, "tep_depth": 1}
"""Recommended for up to some ten thousand queries: on generated CSS no wider or deeper LBF was
better, and it trains in minutes on a CPU."""

LARGE = 50_000
"""Training pairs of an epoch from which the model's own defaults are recommended."""


def for_table(pairs: int) -> dict[str, object]:
    """What is recommended for tables of users' own, which follow no published protocol.

    In them many targets are equally right, and counted as mistakes those cost much: on photographs
    of products, held out, TIRG's R@1 was 45.2 with them and 49.2 without.  A small table needs a
    light model, and batches small enough for some steps an epoch.
    """
    told: dict[str, object] = {"negatives": "wrong"}
    if pairs >= LARGE:
        return told
    return {**LIGHT, **told, "batch": min(128, max(8, pairs // 16))}
