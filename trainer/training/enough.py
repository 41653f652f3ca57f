"""Whether there are queries enough: to learn from, to choose an epoch by, and to measure with.

A share of n queries is known within 98 / sqrt(n) points, 95 times of 100, where it is near 50 %:
within 10 points by 96 queries, within 5 by 384.  How many a training needs was measured on
generated scenes; see docs/history.md.
"""

import math

from cqr.trainer.datasets.pairs import PairSource
from cqr.trainer.datasets.queries import Dataset, Task
from cqr.trainer.training.settings import Settings

LEARN, CHOOSE, MEASURE = 1000, 100, 400
"""Queries below which something is said."""


def too_little(
    dataset: Dataset, settings: Settings, source: PairSource, choice: list[Task]
) -> list[str]:
    """What there is too little of, and what it is enough for; a sentence each.

    Args:
        source, choice: see `holdout.divide`.
    """
    said = []
    if len(source) < LEARN and settings.start == "scratch":
        said.append(
            f"{_queries(len(source))} to learn from: a model that starts from nothing needs a "
            f"thousand or more; `--model zero-shot` needs none, `--start joint` few"
        )
    chosen = sum(len(task.queries) for task in choice)
    if 0 < chosen < CHOOSE and settings.select == "validation":
        said.append(
            f"{_queries(chosen)} to choose the epoch by, which know R@k within "
            f"{_within(chosen)} points: `--validation SHARE` holds out more, `--select last` needs "
            "none"
        )
    scored = len(dataset.split(dataset.protocol.scored))
    if 0 < scored < MEASURE:
        said.append(
            f"{_queries(scored)} to measure with, which know R@k within {_within(scored)} points: "
            f"{MEASURE} know it within {_within(MEASURE)}"
        )
    return said


def _queries(number: int) -> str:
    return "1 query" if number == 1 else f"{number:,} queries"


def _within(number: int) -> int:
    """Points, 95 times of 100, at the most."""
    return min(100, math.ceil(98 / math.sqrt(number)))
