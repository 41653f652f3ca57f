"""Which queries a page shows, by rules that look at no picture, and all that is shown of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.trainer.comparing.plan import Cell, Comparison
from cqr.trainer.datasets.queries import Dataset, tasks
from cqr.trainer.evaluation.attended import Attended
from cqr.trainer.evaluation.explained import (
    Shares,
    Shown,
    Way,
    best,
    explained,
    has,
    shares_of,
    shown_of,
)
from cqr.trainer.features import RegionReader
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run

Rows = NDArray[np.int64]

SHOWN, SHOWN_EACH = 10, 5
"""How many of the best images of a query are shown: of one model, and of each of several."""

EXPLAINED = 5
"""Of how many of them it is shown what their regions add to the score."""

_COLUMNS = ["query_id", "reference", "text", "target", "rank", "found", "scores"]


@dataclass(frozen=True)
class Answer:
    """What one model found.

    Attributes:
        label: of the model.
        rank: of the first right image; 0 if there is none.
        found, scores: the best images, best first, and their scores.
        shares: what their regions add to these; none of a model whose score does not divide, and
            of one that is not asked.  None of an image that has no regions.
    """

    label: str
    rank: int
    found: list[str]
    scores: list[float]
    shares: list[Shares | None]


@dataclass(frozen=True)
class Example:
    """A query as it is shown.

    Attributes:
        target: None where only a server knows it.
        right: every image that Recall counts as right.
        boxes: K x 4 float32, (x1/W, y1/H, x2/W, y2/H), of the reference; none of an image
            that has no regions.
        looked: what its words look at; None of a model that does not say.
        looker: label of the model that is given these boxes and looks so.
        shown: in which way it looks, and how well that points.
    """

    query_id: str
    reference: str
    text: str
    target: str | None
    right: frozenset[str]
    answers: list[Answer]
    boxes: NDArray[np.float32]
    looked: Attended | None
    looker: str
    shown: Shown

    @property
    def found(self) -> list[str]:
        """The images of all answers, each once."""
        return list(dict.fromkeys(path for answer in self.answers for path in answer.found))


@dataclass(frozen=True)
class Group:
    """Examples of one sort.

    Attributes:
        rule: by which they were chosen, in a sentence.
    """

    title: str
    rule: str
    examples: list[Example]


def of_evaluation(
    per_query: pd.DataFrame,
    run: Run,
    material: Material,
    number: int,
    pointing: Mapping[str, Any] | None = None,
) -> list[Group]:
    """Queries that a run answered and queries that it did not, half of `number` each.

    Args:
        per_query: what `evaluate` returns of the same run and material.
        pointing: of its metrics.
    """
    if not number:
        return []
    ranks = per_query["rank"].to_numpy(np.int64)
    order = _by_id(per_query["query_id"])
    first, later = order[ranks[order] == 1], order[ranks[order] > 1]
    good = _spaced(first, (number + 1) // 2)
    worst = later[np.argsort(-ranks[later], kind="stable")]
    again = per_query["reference"].iloc[worst].duplicated().to_numpy()
    bad = worst[~again][: number // 2]
    label = run.settings.model
    examples = _examples(
        np.concatenate([good, bad]),
        {label: per_query.iloc[np.concatenate([good, bad])]},
        label,
        run,
        material,
        best(pointing),
        SHOWN,
    )
    return [
        Group(
            "Found",
            f"{len(good)} of the {len(first):,} queries whose first image is right: evenly "
            "spaced in the order of their ids.",
            examples[: len(good)],
        ),
        Group(
            "Missed",
            f"{len(bad)} of the {len(later):,} queries that have a right image in the gallery, "
            "but not first: those whose first right image ranks last, at most one query of a "
            "reference, equal ranks in the order of ids.",
            examples[len(good) :],
        ),
    ]


def of_comparison(comparison: Comparison, number: int) -> list[Group]:
    """Queries on which rows differ, and queries of any sort, half of `number` each.

    A row is shown by the first of its seeds that is done.

    Raises:
        UserError: a row was scored on other queries than the data set has by now.
    """
    cells = first_done(comparison)
    if not number or not cells:
        return []
    ranks = np.stack([_read(cell, ["rank"])["rank"].to_numpy() for cell in cells])
    order = _by_id(_read(cells[0], ["query_id"])["query_id"].to_pandas())
    misses = (ranks < 1) | (ranks > SHOWN_EACH)
    differ = ((ranks == 1).any(0) & misses.any(0))[order]
    apart = _spaced(order[differ], number // 2)
    others = order[~differ]
    alike = _spaced(others, number - number // 2)
    rows = np.concatenate([apart, alike])
    answers = {cell.row.label: _read(cell, _COLUMNS).take(rows).to_pandas() for cell in cells}
    seen = next((cell for cell in cells if _attends(cell)), cells[0])
    run = Run.load(seen.path)
    examples = _examples(
        rows, answers, seen.row.label, run, seen.row.material, shown_of(run), SHOWN_EACH
    )
    return [
        Group(
            "Where the rows differ",
            f"{len(apart)} of the {differ.sum():,} queries of which one row finds a right image "
            f"first and another none among its first {SHOWN_EACH}: evenly spaced in the order of "
            "their ids.",
            examples[: len(apart)],
        ),
        Group(
            "Other queries",
            f"{len(alike)} of the {len(others):,} others: evenly spaced in the order of their ids.",
            examples[len(apart) :],
        ),
    ]


def _by_id(ids: "pd.Series[str]") -> Rows:
    """Places in the order of the ids."""
    return np.argsort(ids.astype(str).to_numpy(object), kind="stable")


def _spaced(rows: Rows, number: int) -> Rows:
    """So many of the rows, or all, evenly spaced, their middle ones in the middle."""
    number = min(number, len(rows))
    return rows[(2 * np.arange(number) + 1) * len(rows) // (2 * max(number, 1))]


def first_done(comparison: Comparison) -> list[Cell]:
    """Of each row the first seed that is done."""
    first: dict[str, Cell] = {}
    for cell in comparison.cells():
        if cell.done:
            first.setdefault(cell.row.label, cell)
    return [first[row.label] for row in comparison.rows if row.label in first]


def _attends(cell: Cell) -> bool:
    return Run.load(cell.path).model().attends


def _read(cell: Cell, columns: Sequence[str]) -> pa.Table:
    return cell.evaluation.read_table(columns)


def _examples(
    rows: Rows,
    answers: Mapping[str, pd.DataFrame],
    looker: str,
    run: Run,
    material: Material,
    shown: Shown,
    depth: int,
) -> list[Example]:
    """The queries at `rows` of the split that is scored.

    Args:
        answers: by label, of the same queries: query_id, reference, text, target, rank,
            found, scores.
        looker: label of the run.
        run: whose regions are shown, and what its words look at.
        shown: in which way.
        depth: how many of the images that were found are shown.
    """
    asked = next(iter(answers.values()))
    right = _right(material.dataset, rows, asked["query_id"].tolist())
    model = run.trained_model()
    reader = material.seen_by(run.settings).reader
    regions = _regions(run, model, reader, asked, shown.way)
    found = {label: _records(frame) for label, frame in answers.items()}
    whys = [_shares(run, model, reader, one) for one in found[looker]]
    return [
        Example(
            query_id=str(one["query_id"]),
            reference=one["reference"],
            text=one["text"],
            target=one["target"] if isinstance(one["target"], str) else None,
            right=right[i],
            answers=[
                _answer(label, some[i], depth, whys[i] if label == looker else [])
                for label, some in found.items()
            ],
            boxes=regions[i][0],
            looked=regions[i][1],
            looker=looker,
            shown=shown,
        )
        for i, one in enumerate(_records(asked))
    ]


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _answer(
    label: str, query: Mapping[str, Any], depth: int, shares: list[Shares | None]
) -> Answer:
    found = [path for path in query["found"][:depth] if path is not None]
    scores = [float(score) for score in query["scores"][: len(found)]]
    return Answer(label, int(query["rank"]), found, scores, shares[: len(found)])


def _right(dataset: Dataset, rows: Rows, ids: list[Any]) -> list[frozenset[str]]:
    """The images that are right for each of some queries of the split that is scored.

    Raises:
        UserError: other queries are in these places.
    """
    right: dict[int, frozenset[str]] = {}
    first = 0
    for work in tasks(dataset, dataset.protocol.scored):
        known = work.queries["query_id"].to_numpy()
        for row, name in zip(rows.tolist(), ids, strict=True):
            if not first <= row < first + len(known):
                continue
            if known[row - first] != name:
                break
            right[row] = frozenset(work.gallery[place] for place in work.correct[row - first])
        first += len(known)
    if len(right) < len(set(rows.tolist())):
        raise UserError(
            f"the queries in {dataset.root} are not those that were scored: score them again"
        )
    return [right[row] for row in rows.tolist()]


def _shares(
    run: Run, model: RetrievalModel, reader: RegionReader, query: Mapping[str, Any]
) -> list[Shares | None]:
    """Of the first images that a query found, why: what their regions add."""
    paths = [path for path in query["found"][:EXPLAINED] if path is not None]
    rows, (own,) = reader.rows(paths), reader.rows([query["reference"]])
    if not model.divides or own < 0 or not (rows >= 0).any():
        return []
    with torch.inference_mode():
        words = run.words().encode([query["text"]])
        vector = model.query(reader.gather(np.array([own])), words)[0].float()
    known = np.flatnonzero(rows >= 0)
    made = shares_of(model, vector, reader.gather(rows[known]), torch.device("cpu"))
    of_place = dict(zip(known.tolist(), made, strict=True))
    return [of_place.get(place) for place in range(len(rows))]


def _regions(
    run: Run, model: RetrievalModel, reader: RegionReader, asked: pd.DataFrame, way: Way | None
) -> list[tuple[NDArray[np.float32], Attended | None]]:
    """Of each query its reference's boxes, and what its words look at."""
    rows = reader.rows(asked["reference"].tolist())
    nothing: tuple[NDArray[np.float32], Attended | None] = (np.zeros((0, 4), np.float32), None)
    if not (rows >= 0).any():
        return [nothing] * len(rows)
    known = np.flatnonzero(rows >= 0)
    batch = reader.gather(rows[known])
    looked: list[Attended | None] = [None] * len(known)
    if way is not None and has(model, way):
        texts = asked["text"].iloc[known].tolist()
        looked = [*explained(model, run.words(), batch, texts, torch.device("cpu"), way)]
    boxes = [some[mask].numpy() for some, mask in zip(batch.boxes, batch.mask, strict=True)]
    of_row = dict(zip(known.tolist(), zip(boxes, looked, strict=True), strict=True))
    return [of_row.get(i, nothing) for i in range(len(rows))]
