"""Training pairs by the batch, one loaded ahead."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cqr.trainer.datasets.pairs import Drawn
from cqr.trainer.features import RegionBatch, RegionReader
from cqr.trainer.text.vocabulary import TextReader, WordBatch


@dataclass(frozen=True)
class Batch:
    """B training pairs."""

    reference: RegionBatch
    words: WordBatch
    target: RegionBatch


@dataclass(frozen=True)
class Pairs:
    """The training pairs of an epoch by index: rows in the feature file, and texts."""

    reference: NDArray[np.int64]
    target: NDArray[np.int64]
    texts: NDArray[np.object_]
    reader: RegionReader
    words: TextReader

    @classmethod
    def of(cls, drawn: Drawn, reader: RegionReader, words: TextReader) -> "Pairs":
        reference, target = (reader.rows(p.tolist()) for p in (drawn.reference, drawn.target))
        return cls(reference, target, drawn.text, reader, words)

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, index: NDArray[np.int64]) -> Batch:
        return Batch(
            self.reader.gather(self.reference[index]),
            self.words.encode(self.texts[index].tolist()),
            self.reader.gather(self.target[index]),
        )


def ahead(
    loader: ThreadPoolExecutor, pairs: Pairs, steps: NDArray[np.int64], first: int
) -> Iterator[tuple[int, Batch, float]]:
    """Each step's number, batch, and the seconds waited for it; one batch is loaded ahead."""
    following = loader.submit(pairs.batch, steps[first]) if first < len(steps) else None
    for step in range(first, len(steps)):
        assert following is not None
        began = time.perf_counter()
        batch = following.result()
        waited = time.perf_counter() - began
        if step + 1 < len(steps):
            following = loader.submit(pairs.batch, steps[step + 1])
        yield step, batch, waited
