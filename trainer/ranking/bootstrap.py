"""How far the queries, and seeds, that there happen to be decide a result."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

RESAMPLES = 10_000

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """What a paired bootstrap says of the mean difference, first minus second.

    Attributes:
        mean: over the queries as they are.
        low: the 2.5th percentile over the resamples.
        high: the 97.5th.
        not_better: share of the resamples in which the first is not above the second.
    """

    mean: float
    low: float
    high: float
    not_better: float


def paired(
    first: Floats,
    second: Floats,
    weights: Floats | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Paired bootstrap over queries, with percentile interval.

    Drawing Q queries with repetition and averaging their differences is drawing
    how often each *distinct* difference comes, which is multinomial.  Hits averaged
    over a few seeds have few distinct values, so this is exact and fast.

    Args:
        first: Q, the hits of each query averaged over the seeds; Q at least 1.
        second: the same of the other.
        weights: Q, averaging 1, where recall is not the plain mean over queries.
    """
    differences = first - second if weights is None else weights * (first - second)
    size = len(differences)
    # rounded, so that sums which are 0 in exact arithmetic are 0
    values, counts = np.unique(differences.round(12), return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(size, counts / size, size=resamples)
    means = (drawn @ values / size).round(9)
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(
        float(differences.mean()), float(low), float(high), float(np.mean(means <= 0))
    )


def interval(
    ranks: NDArray[np.int64], k: int, weights: Floats | None = None
) -> tuple[float, float]:
    """The 95 % interval of R@k in percent, by a bootstrap over queries; see `paired`.

    Args:
        ranks: Q, of each query's first correct image, 0 for none; Q at least 1.
        weights: as for `paired`.
    """
    hits = ((ranks >= 1) & (ranks <= k)).astype(np.float64)
    found = paired(hits, np.zeros_like(hits), weights)
    return 100 * found.low, 100 * found.high


def weights_of(queries: pd.DataFrame, part: str | None) -> Floats:
    """Q, averaging 1: where recall is the mean over parts, a query of a small part counts more.

    Args:
        part: the column that tells them apart; None where there is one.
    """
    if part is None:
        return np.ones(len(queries))
    number = queries.groupby(part)[part].transform("size").to_numpy(np.float64)
    return len(queries) / (number * queries[part].nunique())


def in_deviations(first: Floats, second: Floats) -> float | None:
    """The mean difference over seeds divided by its sample standard deviation.

    Args:
        first: S results, one a seed.
        second: those of the other with the same seeds.

    Returns:
        None for less than two seeds, or where no seed differs from another.
    """
    differences = (first - second).round(9)
    if len(differences) < 2 or np.ptp(differences) == 0:
        return None
    return float(differences.mean() / differences.std(ddof=1))
