"""Images and queries to vectors, in batches, in evaluation mode."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.errors import UserError
from cqr.trainer.datasets.queries import Task
from cqr.trainer.features import RegionReader
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.ranking.metrics import Ranking, rank, rank_among, rank_within
from cqr.trainer.text.vocabulary import TextReader

BATCH = 256


def encode_images(
    model: RetrievalModel, reader: RegionReader, rows: NDArray[np.int64], device: torch.device
) -> Tensor:
    """G x E vectors of the images at `rows`."""
    return torch.cat(
        [model.encode_image(reader.gather(rows[part]).to(device)) for part in _batches(len(rows))]
    )


def encode_queries(
    model: RetrievalModel,
    reader: RegionReader,
    words: TextReader,
    rows: NDArray[np.int64],
    texts: list[str],
    device: torch.device,
) -> Tensor:
    """Q x E vectors of the references at `rows` with their texts."""
    return torch.cat(
        [
            model.query(reader.gather(rows[part]).to(device), words.encode(texts[part]).to(device))
            for part in _batches(len(rows))
        ]
    )


@dataclass(frozen=True)
class Vectors:
    """What a model makes of a task.

    Attributes:
        queries: Q x E; zero where the reference has no regions.
        known: Q bool, whether it has.
        gallery: G x E.
    """

    queries: Tensor
    known: NDArray[np.bool_]
    gallery: Tensor

    def rank(self, work: Task) -> Ranking:
        """Rank the task's gallery, or each query's own.

        A query whose reference has no regions finds nothing.
        """
        if work.own is None:
            found = rank(self.queries, self.gallery, work.reference, work.correct)
        else:
            found = rank_within(self.queries, self.gallery, work.own, work.correct)
        return Ranking(
            np.where(self.known, found.rank, 0),
            np.where(self.known[:, None], found.top, -1),
            np.where(self.known[:, None], found.scores, np.nan).astype(np.float32),
        )

    def rank_among(self, work: Task) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rank each query's members, which the task must have.

        Returns:
            As `metrics.rank_among`; a query whose reference has no regions finds nothing.
        """
        assert work.members is not None
        ranks, ranked = rank_among(self.queries, self.gallery, work.members, work.correct)
        return np.where(self.known, ranks, 0), np.where(self.known[:, None], ranked, -1)


@torch.inference_mode()
def encode(
    model: RetrievalModel,
    reader: RegionReader,
    words: TextReader,
    work: Task,
    device: torch.device,
) -> Vectors:
    """Encode a task's gallery and queries.

    Raises:
        UserError: a vector is not finite.
    """
    was_training = model.training
    model.eval()
    gallery = encode_images(model, reader, reader.rows(work.gallery), device)
    rows = reader.rows(work.queries["reference"].tolist())
    known = rows >= 0
    queries = gallery.new_zeros((len(rows), gallery.shape[1]))
    if known.any():
        texts = work.queries["text"][known].tolist()
        queries[torch.from_numpy(known)] = encode_queries(
            model, reader, words, rows[known], texts, device
        )
    model.train(was_training)
    require_finite(gallery, work.gallery, reader)
    require_finite(queries, work.queries["reference"].tolist(), reader)
    return Vectors(queries, known, gallery)


def require_finite(vectors: Tensor, names: Sequence[str], reader: RegionReader) -> None:
    """Raises UserError when some of the vectors, which are of the images `names`, are not."""
    bad = (~torch.isfinite(vectors).all(1)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"the vectors of {len(bad)} images are not finite, first {names[bad[0]]}: "
            f"check the features with `cqr inspect {reader.file.path}`"
        )


def _batches(size: int) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, size, BATCH))
