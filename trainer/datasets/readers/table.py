"""The user's own queries: a CSV or Parquet of reference, text, target and, if wanted, split."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from cqr.errors import UserError, reason
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.queries import QUERY_COLUMNS, Dataset, Protocol
from cqr.trainer.datasets.recommended import LIGHT

REQUIRED = ["reference", "text", "target"]
LARGE = 50_000  # training queries from which the model's own defaults are recommended
TEST_SHARE = 5  # every fifth reference, when the table has no split column

NAME = "table"
LAYOUT = (
    "a .csv or .parquet with the columns reference, text, target in that folder, "
    "or beside it as FOLDER.queries.csv or FOLDER.csv, or as NAME.queries.csv beside NAME.h5"
)
PUBLISHED: dict[str, int] = {}

PROTOCOL = Protocol(
    name="table",
    source="Own table of queries",
    gallery="all pictures",
    remove_reference=True,
    correct="alike",
    recall_at=(1, 5, 10, 50),
)


@dataclass(frozen=True)
class Options:
    """What a table leaves to choose.

    Attributes:
        reference: whether the query's own image is removed from the gallery.
    """

    reference: Literal["removed", "kept"] = "removed"


def find(pictures: Pictures, data: Path | None) -> Path | None:
    """The table, looked for in the places of `LAYOUT`, in that order.

    Raises:
        UserError: two tables fit equally well.
    """
    root = Path(pictures.root if data is None else data)
    if root.is_file():
        return root
    places: list[list[Path]] = [sorted(p for p in _tables_in(root) if _fits(p))]
    if data is None:
        ends = (".queries.csv", ".queries.parquet", ".csv", ".parquet")
        places += [[root.with_name(root.name + end)] for end in ends]
        if pictures.features is not None:
            places += [[_beside(pictures.features, end)] for end in (".csv", ".parquet")]
    for place in places:
        fitting = [path for path in place if path.is_file()]
        if len(fitting) > 1:
            names = ", ".join(path.name for path in fitting)
            raise UserError(
                f"{root} holds {len(fitting)} tables of queries ({names}): choose one with --data"
            )
        if fitting:
            return fitting[0]
    return None


def read(path: Path, pictures: Pictures, options: Options) -> Dataset:
    """Raises UserError on a missing column, an empty cell, or a split without queries."""
    frame = _load(path)
    _check_columns(path, frame)
    notes = []
    if "split" in frame.columns:
        frame["split"] = _strings(frame["split"]).str.lower()
    else:
        frame["split"] = _cut(frame["reference"])
        tests = (frame["split"] == "test").sum()
        notes.append(
            f"{path.name} has no split column: {tests} of {len(frame)} queries, those of every "
            f"{TEST_SHARE}th reference, are the test split"
        )
    _check_splits(path, frame)
    if "query_id" not in frame.columns:
        frame["query_id"] = [str(row) for row in range(1, len(frame) + 1)]
    own = [name for name in frame.columns if name not in QUERY_COLUMNS]
    return Dataset(
        name=NAME,
        root=path,
        queries=frame[[*QUERY_COLUMNS, *own]],
        images=pd.DataFrame({"path": pictures.paths, "caption": None, "split": None}, dtype=object),
        protocol=replace(PROTOCOL, remove_reference=options.reference == "removed"),
        recommended=_recommended(int((frame["split"] == "train").sum())),
        copies=False,
        notes=tuple(notes),
    )


def counts(dataset: Dataset) -> dict[str, int]:
    return {}


def _load(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path).reset_index(drop=True)
        return pd.read_csv(path, dtype=object, encoding="utf-8-sig", keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read the table {path} ({reason(error)}): save it as UTF-8 CSV or Parquet"
        ) from error


def _check_columns(path: Path, frame: pd.DataFrame) -> None:
    """The required columns are there and full; makes them plain strings."""
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise UserError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has "
            f"{', '.join(map(str, frame.columns))}; needed are reference, text, target and, "
            "if wanted, split"
        )
    if frame.empty:
        raise UserError(f"{path} holds no queries: fill in reference, text, target")
    for name in REQUIRED:
        frame[name] = _strings(frame[name])
        blank = np.flatnonzero(frame[name] == "")
        if len(blank):
            raise UserError(
                f"{path}: {name} is empty in {len(blank)} of {len(frame)} rows, first in row "
                f"{blank[0] + 1}; fill or remove them"
            )


def _strings(column: pd.Series) -> pd.Series:
    """Stripped; "" where there is nothing."""
    return column.where(column.notna(), "").map(lambda value: str(value).strip()).astype(object)


def _check_splits(path: Path, frame: pd.DataFrame) -> None:
    found = set(frame["split"])
    unknown = sorted(found - {"train", "val", "test"})
    if unknown:
        shown = ", ".join(name or "empty" for name in unknown)
        raise UserError(
            f"{path}: split must be train, val or test in every row, and is also {shown}"
        )
    for split in ("train", "test"):
        if split not in found:
            raise UserError(
                f"{path} has no {split} split: mark some rows with split = {split}, or remove the "
                "column to have every fifth reference used for the test"
            )


def _cut(reference: pd.Series) -> list[str]:
    """Every fifth reference, in the order of their names, is for the test; one at least."""
    names = sorted(set(reference))
    share = min(TEST_SHARE, len(names))
    tests = set(names[share - 1 :: share])
    return ["test" if name in tests else "train" for name in reference]


def _recommended(queries: int) -> dict[str, object]:
    """A small table needs a light model, and batches small enough for some steps an epoch."""
    if queries >= LARGE:
        return {}
    return {**LIGHT, "batch": min(128, max(8, queries // 16))}


def _beside(features: Path, suffix: str) -> Path:
    return features.with_name(f"{features.stem}.queries{suffix}")


def _tables_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return [p for p in folder.iterdir() if p.suffix.lower() in (".csv", ".parquet") and p.is_file()]


def _fits(path: Path) -> bool:
    """Whether the table has at least the names of a table of queries."""
    try:
        if path.suffix.lower() == ".parquet":
            columns = pq.read_schema(path).names
        else:
            columns = pd.read_csv(path, nrows=0, encoding="utf-8-sig").columns.tolist()
    except (OSError, ValueError):
        return False
    return {"reference", "target"} <= set(columns) or {"reference", "text"} <= set(columns)
