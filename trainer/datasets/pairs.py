"""Where training pairs come from: a list, or drawn anew for every epoch by a data set's rule."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True)
class Drawn:
    """The training pairs of an epoch, in the order in which they are trained on.

    Attributes:
        reference, target: image paths, as objects.
        text: as objects.
    """

    reference: NDArray[np.object_]
    text: NDArray[np.object_]
    target: NDArray[np.object_]

    def __len__(self) -> int:
        return len(self.text)


class PairSource(Protocol):
    """What a training draws its pairs from."""

    def __len__(self) -> int:
        """Pairs of an epoch; the same for every epoch."""

    def texts(self) -> Iterable[str]:
        """Texts that hold every word that can be drawn, for the vocabulary."""

    def draw(self, rng: np.random.Generator) -> Drawn:
        """An epoch: a function of the generator's state alone."""


class Listed:
    """Every query of a list once an epoch, shuffled.

    Attributes:
        queries: the list.
        together: so many queries of one reference, as far as it has them, follow one
            another and so meet in a batch, where their targets, which are nearly the
            same, tell them apart only by what the texts mean.  TIRG's released code
            puts two together (`datasets.py`); more is ours.
    """

    def __init__(self, queries: pd.DataFrame, images: pd.DataFrame | None = None) -> None:
        self.queries = queries
        self.together = 1

    def __len__(self) -> int:
        return len(self.queries)

    def texts(self) -> Iterable[str]:
        return self.queries["text"]

    def draw(self, rng: np.random.Generator) -> Drawn:
        order = self.order(rng)
        columns = (self.queries[name].to_numpy(object)[order] for name in Drawn.__annotations__)
        return Drawn(*columns)

    def order(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """The rows of the list as an epoch takes them."""
        order = rng.permutation(len(self))
        if self.together == 1:
            return order
        references = self.queries["reference"].iloc[order]
        nth = references.groupby(references).cumcount() // self.together
        group = references.groupby([references, nth], sort=False).ngroup().to_numpy()
        return order[np.argsort(rng.permutation(group.max() + 1)[group], kind="stable")]


def cut(frame: pd.DataFrame, column: str, fraction: float, seed: int) -> NDArray[np.bool_]:
    """Which rows are held out: all rows of a random share of the column's values.

    Args:
        fraction: of the values; 0 holds out none, else at least one is held out
            and at least one kept.
    """
    values = np.sort(frame[column].unique())
    n = round(fraction * len(values))
    if fraction > 0:
        n = min(max(n, 1), len(values) - 1)
    drawn = np.random.default_rng(seed).permutation(values)[:n]
    return frame[column].isin(drawn).to_numpy()
