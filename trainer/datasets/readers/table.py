"""The user's own queries: a CSV or Parquet of reference, text, target and, if wanted, split.

Rows that are alike in reference and text are one question with several right answers; for
training each is a pair.  A question is scored against pictures that no training row names, unless
it names its own in a column `gallery` (as GeneCIS does, Vaze et al., CVPR 2023: some 15 each).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from cqr.errors import UserError
from cqr.trainer.datasets import tabular
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.locate import locate
from cqr.trainer.datasets.queries import QUERY_COLUMNS, Dataset, Protocol
from cqr.trainer.datasets.recommended import for_table
from cqr.trainer.datasets.tabular import QUERY, strings

TEST_SHARE = 5  # every fifth reference, when the table has no split column

NAME = "table"
LAYOUT = f"a .csv or .parquet with the columns reference, text, target {tabular.PLACES}"
PUBLISHED: dict[str, int] = {}

GALLERY = {
    "test": "the pictures of the test rows, and those that no row names",
    "all": "all pictures",
    "own": "each question's own list",
}
PROTOCOL = Protocol(
    name="table",
    source="Own table of queries",
    gallery=GALLERY["test"],
    remove_reference=True,
    correct="alike",
    recall_at=(1, 5, 10, 50),
)
UNANSWERED = ("none", "wrong")
"""What a row's `kind` says of a row without a target, as `cqr serve --collect` writes it."""

RESERVED = ("own_image", "members", "targets", "rank", "found", "scores")
"""Columns that other data sets' queries and results have: a user's are kept under other names."""


@dataclass(frozen=True)
class Options:
    """What a table leaves to choose.

    Attributes:
        reference: whether the query's own image is removed from the gallery.
        gallery: what a question of a split that is scored is held against.  "test": the
            pictures of that split's rows and those that no row names; or, where the table has
            a column `gallery`, the question's own list there.  "all": every picture that has
            regions, those that were trained on too, which flatters.
    """

    reference: Literal["removed", "kept"] = "removed"
    gallery: Literal["test", "all"] = "test"


def find(pictures: Pictures, data: Path | None) -> Path | None:
    """Raises UserError when two tables fit equally well."""

    def may_be(columns: list[str]) -> bool:
        return not tabular.names_pictures(columns)  # `read` says what another one lacks

    return tabular.find(pictures, data, "queries", tabular.names_queries, may_be)


def read(path: Path, pictures: Pictures, options: Options) -> Dataset:
    """Raises UserError on a missing column, an empty cell, or a table without test rows."""
    frame = tabular.load(path)
    _check_columns(path, frame)
    frame, notes = _answered(path, frame)
    if "split" in frame.columns:
        frame["split"] = strings(frame["split"]).str.lower()
    else:
        frame["split"] = _cut(frame["reference"])
        notes.append(_said_of_cut(path, frame))
    tabular.check_splits(path, frame["split"])
    tests = frame[frame["split"] == "test"]
    if number := int(tests.duplicated(["reference", "text"]).sum()):
        notes.append(f"{path.name}: {len(tests)} test rows are {len(tests) - number} questions")
    if "query_id" not in frame.columns:
        frame["query_id"] = [str(row) for row in range(1, len(frame) + 1)]
    kind: Literal["test", "all", "own"] = options.gallery
    if "gallery" in frame.columns:
        kind, frame = _with_lists(path, frame, pictures, options)
    frame, said = _renamed(path, frame)
    own = [name for name in frame.columns if name not in QUERY_COLUMNS]
    return Dataset(
        name=NAME,
        root=path,
        queries=frame[[*QUERY_COLUMNS, *own]],
        images=_images(frame, pictures.paths, kind),
        protocol=replace(
            PROTOCOL, gallery=GALLERY[kind], remove_reference=options.reference == "removed"
        ),
        recommended=for_table(int((frame["split"] == "train").sum())),
        copies=False,
        notes=(*notes, *said),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    return {}


def _check_columns(path: Path, frame: pd.DataFrame) -> None:
    """The required columns are there; makes them plain strings."""
    columns = list(frame.columns)
    missing = [name for name in QUERY if name not in columns]
    has = f"it has {', '.join(columns)}"
    if missing and not tabular.names_queries(columns):
        lacks = tabular.lacks_of_pictures(columns)
        raise UserError(
            f"{path} is no table that can be used: of a table of queries it lacks "
            f"{', '.join(missing)}, of one of pictures {lacks}; {has}"
        )
    if missing:
        raise UserError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; {has}; "
            "needed are reference, text, target and, if wanted, split"
        )
    if frame.empty:
        raise UserError(f"{path} holds no queries: fill in reference, text, target")
    for name in QUERY:
        frame[name] = strings(frame[name])


def _answered(path: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The rows that have a target, and what is to be said of those that say why they have none.

    Raises:
        UserError: another cell that is needed is empty, or no row has a target.
    """
    kind = strings(frame["kind"]) if "kind" in frame.columns else pd.Series("", frame.index)
    open_ = kind.isin(UNANSWERED) & (frame["target"] == "")
    for name in QUERY:
        blank = np.flatnonzero((frame[name] == "") & ~open_)
        if len(blank):
            raise UserError(
                f"{path}: {name} is empty in {len(blank)} of {len(frame)} rows, first in row "
                f"{blank[0] + 1}; fill or remove them"
            )
    if open_.all():
        raise UserError(f"{path} names no target in any of its {len(frame)} rows: mark some right")
    if not open_.any():
        return frame, []
    said = (
        f"{path.name}: {open_.sum()} of {len(frame)} rows have no target, as their kind says "
        f"({' or '.join(UNANSWERED)}), and are passed over"
    )
    return frame[~open_].reset_index(drop=True), [said]


def _cut(reference: pd.Series) -> list[str]:
    """Every fifth reference, in the order of their names, is for the test; one at least."""
    names = sorted(set(reference))
    share = min(TEST_SHARE, len(names))
    tests = set(names[share - 1 :: share])
    return ["test" if name in tests else "train" for name in reference]


def _said_of_cut(path: Path, frame: pd.DataFrame) -> str:
    tests, number = (frame["split"] == "test").sum(), frame["reference"].nunique()
    which = f"every {TEST_SHARE}th" if number >= TEST_SHARE else f"the last of {number}"
    return (
        f"{path.name} has no split column: {tests} of {len(frame)} queries, those of {which} "
        f"reference{'s' * (number < TEST_SHARE)}, are the test split"
    )


def _with_lists(
    path: Path, frame: pd.DataFrame, pictures: Pictures, options: Options
) -> tuple[Literal["all", "own"], pd.DataFrame]:
    """The table with its column `gallery` as lists, or without it where all pictures are wanted.

    Raises:
        UserError: it names no picture, or a test row has none.
    """
    if options.gallery == "all":
        return "all", frame.drop(columns="gallery")
    lists = [_list(cell) for cell in frame["gallery"]]
    named = list(dict.fromkeys(name for some in lists for name in some or ()))
    if not locate(named, pictures.paths)[0]:
        first = f" (first {named[0]!r})" if named else ""
        raise UserError(
            f"{path}: the column gallery, which lists the pictures that each question is held "
            f"against with ; between, names no picture{first}: fill it or call it otherwise"
        )
    bare = [
        row
        for row, (some, split) in enumerate(zip(lists, frame["split"], strict=True), start=1)
        if some is None and split != "train"
    ]
    if bare:
        raise UserError(
            f"{path}: gallery is empty in {len(bare)} rows that are scored, first in row "
            f"{bare[0]}; fill them, or leave it with --protocol gallery=all"
        )
    return "own", frame.assign(gallery=pd.Series(lists, frame.index, dtype=object))


def _list(cell: Any) -> list[str] | None:
    """The names in a cell: of a list in Parquet, or with ; between; None where there are none."""
    if isinstance(cell, list | tuple | np.ndarray):
        names = [str(name).strip() for name in cell]
    else:
        names = [name.strip() for name in str("" if pd.isna(cell) else cell).split(";")]
    return [name for name in names if name] or None


def _renamed(path: Path, frame: pd.DataFrame) -> tuple[pd.DataFrame, Iterator[str]]:
    """The table, no column of the user's own named as one of ours."""
    new = {}
    for name in (name for name in RESERVED if name in frame.columns):
        new[name] = f"table_{name}"
        while new[name] in frame.columns:
            new[name] = f"table_{new[name]}"
    said = ", ".join(f"{old} as {kept}" for old, kept in new.items())
    notes = [f"{path.name}: columns that cqr has too are kept under another name: {said}"]
    return frame.rename(columns=new), iter(notes if new else [])


def _images(
    frame: pd.DataFrame, paths: list[str], kind: Literal["test", "all", "own"]
) -> pd.DataFrame:
    """The pictures, by the splits in whose galleries they are; of several, as many rows."""
    if kind == "all":
        return pd.DataFrame({"path": paths, "caption": None, "split": None}, dtype=object)
    columns = ["gallery"] if kind == "own" else ["reference", "target"]
    named = {
        split: set(pd.concat([rows[column].explode() for column in columns]).dropna())
        for split, rows in frame.groupby("split")
    }
    found, _ = locate(sorted(set().union(*named.values())), paths)
    splits: dict[str, list[str | None]] = {}
    for split, names in named.items():
        for name in names:
            for path in found.get(name, ()):
                splits.setdefault(path, [])
                if split not in splits[path]:
                    splits[path].append(str(split))
    nowhere: list[str | None] = [] if kind == "own" else [None]
    rows = [(path, None, split) for path in paths for split in splits.get(path, nowhere)]
    return pd.DataFrame(rows, columns=["path", "caption", "split"], dtype=object)
