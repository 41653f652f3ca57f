"""Score a model under a data set's protocol: the one evaluator for all data sets."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.trainer.features import RegionReader
from cqr.trainer.material import Material
from cqr.trainer.metrics import Ranking, chance_at, rank, recall_at
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.queries import Task, task
from cqr.trainer.runs import Run
from cqr.trainer.text import TextReader

BATCH = 256


@dataclass(frozen=True)
class Evaluation:
    """Recall of one run on one split.

    Attributes:
        metrics: what metrics.json holds.
        per_query: query_id, reference, text, target, rank, found, scores.
    """

    metrics: dict[str, Any]
    per_query: pd.DataFrame


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
            model.encode_query(
                reader.gather(rows[part]).to(device), words.encode(texts[part]).to(device)
            )
            for part in _batches(len(rows))
        ]
    )


@torch.inference_mode()
def score(
    model: RetrievalModel,
    reader: RegionReader,
    words: TextReader,
    work: Task,
    device: torch.device,
) -> Ranking:
    """Rank the task's gallery for its queries.

    A query whose reference has no regions finds nothing.

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
    for vectors, names in ((gallery, work.gallery), (queries, work.queries["reference"].tolist())):
        bad = (~torch.isfinite(vectors).all(1)).nonzero().flatten().tolist()
        if bad:
            raise UserError(
                f"the vectors of {len(bad)} images are not finite, first {names[bad[0]]}: "
                f"check the features with `cqr inspect {reader.file.path}`"
            )
    found = rank(queries, gallery, work.reference, work.correct)
    return Ranking(
        np.where(known, found.rank, 0),
        np.where(known[:, None], found.top, -1),
        np.where(known[:, None], found.scores, np.nan).astype(np.float32),
    )


def evaluate(run: Run, material: Material, device: torch.device, split: str = "test") -> Evaluation:
    """Score a run's chosen weights on a split.

    Raises:
        UserError: the run has no weights, they do not fit, no image of the split
            has regions, or the run's text encoder cannot be had.
    """
    dataset, reader = material.dataset, material.reader
    model = run.trained_model().to(device)
    work = task(dataset, dataset.split(split), dataset.gallery(split))
    if not work.gallery:
        raise UserError(f"none of the {split} images has regions in {reader.file.path}")
    words = run.words(device)
    found = score(model, reader, words, work, device)
    queries = work.queries
    size = len(work.gallery) - (work.reference >= 0)
    number = np.array([len(c) for c in work.correct])
    ks = dataset.protocol.recall_at
    unknown = run.vocabulary.unknown(queries["text"]) if run.vocabulary else Counter()

    def recalls(where: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "queries": int(where.sum()),
            "recall": {str(k): recall_at(found.rank[where], k) for k in ks},
            "chance": {str(k): chance_at(number[where], size[where], k) for k in ks},
        }

    everything = np.ones(len(queries), dtype=bool)
    metrics = {
        "run": run.path.name,
        "model": run.settings.model,
        "dataset": dataset.name,
        "split": split,
        "protocol": dataset.protocol.sentence(),
        "select": run.settings.select,
        "k": reader.k,
        "gallery": len(work.gallery),
        **recalls(everything),
        "without_correct_image": int((number == 0).sum()),
        "text_encoder": run.text_encoder.name if run.text_encoder else None,
        "texts_cut": words.cut(queries["text"]),
        "unknown_words": dict(unknown.most_common(20)),
        "breakdown": {
            column: {
                str(value): recalls((queries[column] == value).to_numpy())
                for value in sorted(queries[column].dropna().unique(), key=str)
            }
            for column in dataset.breakdown
        },
        "cqr": version("cqr"),
        "torch": torch.__version__,
    }
    gallery = np.array([*work.gallery, None], dtype=object)  # place -1 is None
    per_query = queries.assign(
        rank=found.rank, found=list(gallery[found.top]), scores=list(found.scores)
    )
    return Evaluation(metrics, per_query)


def write(evaluation: Evaluation, folder: Path) -> None:
    """metrics.json and queries.parquet."""
    with replacing(folder / "queries.parquet") as temporary:
        evaluation.per_query.to_parquet(temporary, index=False)
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(evaluation.metrics, indent=1), encoding="utf-8")


def _batches(size: int) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, size, BATCH))
