"""A ranking to the measures that a protocol asks for.

Measures are named as papers print them: "R@10", "R_subset@1", "mAP@5", and
"adjective R@1" for recall by a column of the images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqr.trainer.datasets.queries import Dataset, Protocol, Task
from cqr.trainer.ranking.encode import Vectors
from cqr.trainer.ranking.metrics import Ranking, chance_at, map_at, recall_at


@dataclass(frozen=True)
class Measured:
    """One task's results.

    Attributes:
        metrics: queries, gallery, recall and chance by k, other measures by name,
            without_correct_image, breakdown.
        per_query: the queries with rank, found, scores.
    """

    metrics: dict[str, Any]
    per_query: pd.DataFrame


def measure(dataset: Dataset, work: Task, vectors: Vectors) -> Measured:
    """Rank a task's gallery and measure the result."""
    found = vectors.rank(work)
    queries, ks = work.queries, dataset.protocol.recall_at
    number = np.array([len(c) for c in work.correct])

    def recalls(where: NDArray[np.bool_]) -> dict[str, Any]:
        return {
            "queries": int(where.sum()),
            "recall": {str(k): recall_at(found.rank[where], k) for k in ks},
            "chance": {str(k): chance_at(number[where], work.size[where], k) for k in ks},
        }

    metrics = {
        "gallery": len(work.gallery),
        **recalls(np.ones(len(queries), dtype=bool)),
        "measures": _others(dataset, work, vectors, found),
        "without_correct_image": int((number == 0).sum()),
        "breakdown": {
            column: {
                str(value): recalls((queries[column] == value).to_numpy())
                for value in sorted(queries[column].dropna().unique(), key=str)
            }
            for column in dataset.breakdown
        },
    }
    gallery = np.array([*work.gallery, None], dtype=object)  # place -1 is None
    return Measured(
        metrics,
        queries.assign(rank=found.rank, found=list(gallery[found.top]), scores=list(found.scores)),
    )


def combined(dataset: Dataset, parts: list[Measured]) -> dict[str, Any]:
    """The metrics of all parts: their means, with each part's in the breakdown."""
    metrics = [part.metrics for part in parts]
    whole = dict(metrics[0])
    if len(parts) > 1:
        column = dataset.protocol.part
        whole |= {key: sum(m[key] for m in metrics) for key in ("queries", "without_correct_image")}
        whole["gallery"] = sum(m["gallery"] for m in metrics)
        for key in ("recall", "chance", "measures"):
            whole[key] = {n: float(np.mean([m[key][n] for m in metrics])) for n in whole[key]}
        names = [str(part.per_query[column].iloc[0]) for part in parts]
        own = {name: _row(m) for name, m in zip(names, metrics, strict=True)}
        whole["breakdown"] = {str(column): own}
    return whole | {"average": _average(dataset.protocol, whole)}


def _row(metrics: dict[str, Any]) -> dict[str, Any]:
    return {key: metrics[key] for key in ("queries", "gallery", "recall", "chance")}


def _average(protocol: Protocol, metrics: dict[str, Any]) -> dict[str, Any] | None:
    if not protocol.average:
        return None
    values = {f"R@{k}": value for k, value in metrics["recall"].items()} | metrics["measures"]
    return {
        "of": list(protocol.average),
        "value": float(np.mean([values[name] for name in protocol.average])),
    }


def _others(dataset: Dataset, work: Task, vectors: Vectors, found: Ranking) -> dict[str, float]:
    """What the protocol asks for beside recall of the correct images."""
    protocol = dataset.protocol
    measures: dict[str, float] = {}
    for column in protocol.also:
        ranks = _rank_of_label(dataset.images, column, work, found)
        measures |= {f"{column} R@{k}": recall_at(ranks, k) for k in protocol.recall_at}
    if work.members is not None:
        ranks, _ = vectors.rank_among(work)
        measures |= {f"R_subset@{k}": recall_at(ranks, k) for k in protocol.subset_recall_at}
    if work.relevant is not None:
        measures |= {f"mAP@{k}": map_at(found.top, work.relevant, k) for k in protocol.precision_at}
    return measures


def _rank_of_label(
    images: pd.DataFrame, column: str, work: Task, found: Ranking
) -> NDArray[np.int64]:
    """The rank among the best T of the first image with the target's value; 0 for none.

    Exact for every k up to T.
    """
    label = images.drop_duplicates("path").set_index("path")[column]
    codes, _ = pd.factorize(label)
    code = pd.Series(codes, index=label.index)
    gallery = np.append(_codes(code, work.gallery, -2), -2)  # place -1 has no label
    hit = gallery[found.top] == _codes(code, work.queries["target"], -3)[:, None]
    return np.where(hit.any(1), hit.argmax(1) + 1, 0)


def _codes(code: "pd.Series[int]", paths: Iterable[str], nothing: int) -> NDArray[np.int64]:
    return code.reindex(list(paths)).fillna(nothing).to_numpy().astype(np.int64)
