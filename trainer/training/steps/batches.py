"""Training pairs by the batch, one loaded ahead."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.machine import moved
from cqr.trainer.datasets.pairs import Drawn
from cqr.trainer.features import RegionBatch, RegionReader
from cqr.trainer.text.vocabulary import TextReader, WordBatch


@dataclass(frozen=True)
class Batch:
    """B training pairs.

    Attributes:
        alike: B x 2 numbers: of the target's description, and of the question.  Targets are
            right for one another's queries where one of the two is equal.
    """

    reference: RegionBatch
    words: WordBatch
    target: RegionBatch
    alike: Tensor

    def to(self, device: torch.device) -> "Batch":
        return Batch(
            self.reference.to(device),
            self.words.to(device),
            self.target.to(device),
            moved(self.alike, device),
        )

    def filled(self, k: int, n: int) -> "Batch":
        """The same with k places for regions and n for words, each image by itself."""
        return replace(
            self,
            reference=self.reference.filled(k),
            words=self.words.filled(n),
            target=self.target.filled(k),
        )

    def parts(self) -> dict[str, Tensor]:
        """The tensors of a batch that is `filled`, by name."""
        every = {
            f"{name}.{field.name}": getattr(getattr(self, name), field.name)
            for name in ("reference", "words", "target")
            for field in fields(getattr(self, name))
        }
        return {name: part for name, part in every.items() if part is not None} | {
            "alike": self.alike
        }

    @classmethod
    def of(cls, parts: dict[str, Tensor]) -> "Batch":
        """The batch of which these are the `parts`."""
        own: dict[str, dict[str, Tensor]] = {"reference": {}, "words": {}, "target": {}}
        for name, part in parts.items():
            if name != "alike":
                group, field = name.split(".")
                own[group][field] = part
        return cls(
            RegionBatch(**own["reference"]),
            WordBatch(**own["words"]),
            RegionBatch(**own["target"]),
            parts["alike"],
        )


@dataclass(frozen=True)
class Pairs:
    """The training pairs of an epoch by index: rows in the feature file, and texts.

    Attributes:
        alike: of each pair two numbers; see `Batch`.
        cuts: of each pair where its text is cut and joined anew, see `WordBatch.reordered`;
            None where all texts are as they are.
    """

    reference: NDArray[np.int64]
    target: NDArray[np.int64]
    texts: NDArray[np.object_]
    alike: NDArray[np.int64]
    reader: RegionReader
    words: TextReader
    cuts: NDArray[np.float32] | None = None

    @classmethod
    def of(
        cls,
        drawn: Drawn,
        reader: RegionReader,
        words: TextReader,
        caption: "pd.Series[str] | None" = None,
    ) -> "Pairs":
        """Pairs as they were drawn.

        Args:
            caption: by picture, where pictures of equal captions are equally right; a picture
                without one is like itself alone.
        """
        reference, target = (reader.rows(p.tolist()) for p in (drawn.reference, drawn.target))
        picture = pd.Series(drawn.target)
        said = picture if caption is None else picture.map(caption).fillna(picture)
        asked = pd.MultiIndex.from_arrays([drawn.reference, drawn.text])
        alike = np.stack([pd.factorize(said)[0], pd.factorize(asked)[0]], axis=1)
        return cls(reference, target, drawn.text, alike, reader, words)

    def __len__(self) -> int:
        return len(self.texts)

    def reordered(self, share: float, rng: np.random.Generator) -> "Pairs":
        """The same, but a share of the texts with two neighbouring runs of words exchanged.

        So a training hears that it must not need the order in which its texts are worded.
        """
        cuts = np.sort(rng.random((len(self), 3), np.float32), axis=1)
        cuts[rng.random(len(self)) >= share] = 0
        return replace(self, cuts=cuts)

    def batch(self, index: NDArray[np.int64]) -> Batch:
        words = self.words.encode(self.texts[index].tolist())
        if self.cuts is not None:
            cuts = torch.from_numpy(self.cuts[index])
            words = words.reordered(moved(cuts, words.mask.device))
        return Batch(
            self.reader.gather(self.reference[index]),
            words,
            self.reader.gather(self.target[index]),
            torch.from_numpy(self.alike[index]),
        )


def ahead(
    loader: ThreadPoolExecutor,
    pairs: Sequence[Pairs],
    steps: NDArray[np.int64],
    first: int,
    device: torch.device,
) -> Iterator[tuple[int, list[Batch], float]]:
    """Each step's number, a batch of each of the pairs on the device, and the seconds waited for
    them; those of one step are loaded ahead.
    """

    def batches(step: int) -> list[Batch]:
        return [each.batch(steps[step]).to(device) for each in pairs]

    following = loader.submit(batches, first) if first < len(steps) else None
    for step in range(first, len(steps)):
        assert following is not None
        began = time.perf_counter()
        found = following.result()
        waited = time.perf_counter() - began
        if step + 1 < len(steps):
            following = loader.submit(batches, step + 1)
        yield step, found, waited
