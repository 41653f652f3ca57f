"""The user's own queries: a CSV or Parquet of reference, text, target and, if wanted, split."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from cqr.errors import UserError
from cqr.pipeline.shards import FeatureFile
from cqr.trainer.queries import Dataset, Protocol

REQUIRED = ["reference", "text", "target"]
TEST_SHARE = 5  # every fifth reference, when the table has no split column

PROTOCOL = Protocol(
    name="table",
    source="Own table of queries",
    gallery="all",
    remove_reference=True,
    correct="target",
    recall_at=(1, 5, 10, 50),
)


def looks_for(features: FeatureFile, data: Path | None) -> list[str]:
    columns = "a .csv or .parquet table with the columns reference, text, target"
    if data is not None:
        return [f"{columns} at {data}"]
    root = Path(features.image_root)
    return [
        f"{columns} in {root}",
        f"{root}.queries.csv or {root}.csv (or .parquet)",
        f"{_beside(features, '.csv')} (or .parquet)",
    ]


def find(features: FeatureFile, data: Path | None) -> Path | None:
    """The table, looked for in the places of `looks_for`, in that order.

    Raises:
        UserError: two tables fit equally well.
    """
    root = Path(features.image_root if data is None else data)
    if root.is_file():
        return root
    places: list[list[Path]] = [sorted(p for p in _tables_in(root) if _fits(p))]
    if data is None:
        ends = (".queries.csv", ".queries.parquet", ".csv", ".parquet")
        places += [[root.with_name(root.name + end)] for end in ends]
        places += [[_beside(features, ".csv")], [_beside(features, ".parquet")]]
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


def read(path: Path, features: FeatureFile) -> Dataset:
    """Raises UserError on a missing column, an empty cell, or a split without queries."""
    frame = _load(path)
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise UserError(
            f"{path} lacks the column{'s' * (len(missing) > 1)} {', '.join(missing)}; it has "
            f"{', '.join(map(str, frame.columns))}; needed are reference, text, target and, "
            "if wanted, split"
        )
    for name in REQUIRED:
        frame[name] = frame[name].astype("string").str.strip()
        blank = np.flatnonzero(frame[name].isna() | (frame[name] == ""))
        if len(blank):
            raise UserError(
                f"{path}: {name} is empty in {len(blank)} of {len(frame)} rows, first in row "
                f"{blank[0] + 1}; fill or remove them"
            )
    notes = []
    if "split" in frame.columns:
        frame["split"] = frame["split"].astype("string").str.strip().str.lower()
    else:
        frame["split"] = _cut(frame["reference"])
        tests = int((frame["split"] == "test").sum())
        notes.append(
            f"{path.name} has no split column: {tests} of {len(frame)} queries, those of every "
            f"{TEST_SHARE}th reference, are the test split"
        )
    _check_splits(path, frame)
    for name in ("reference", "target"):
        frame[name] = _resolve(frame[name], features.paths)
    own = [name for name in frame.columns if name not in [*REQUIRED, "split", "query_id"]]
    queries = frame[[*REQUIRED, "split", *own]].astype(dict.fromkeys([*REQUIRED, "split"], object))
    ids = (
        frame["query_id"].astype(str)
        if "query_id" in frame
        else [str(i + 1) for i in range(len(frame))]
    )
    queries.insert(0, "query_id", ids)
    return Dataset(
        name="table",
        root=path,
        queries=queries.reset_index(drop=True),
        images=pd.DataFrame({"path": features.paths, "caption": None, "split": None}),
        protocol=PROTOCOL,
        notes=tuple(notes),
    )


def _load(path: Path) -> pd.DataFrame:
    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, encoding="utf-8-sig", keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the table {path}: {str(error).splitlines()[0]}") from error


def _check_splits(path: Path, frame: pd.DataFrame) -> None:
    counts = frame["split"].value_counts()
    unknown = sorted(set(counts.index.dropna()) - {"train", "val", "test"})
    if unknown or frame["split"].isna().any():
        shown = ", ".join(unknown) or "nothing"
        raise UserError(
            f"{path}: split must be train, val or test in every row, and is also {shown}"
        )
    for split in ("train", "test"):
        if not counts.get(split, 0):
            raise UserError(
                f"{path} has no {split} split: mark some rows with split = {split}, or remove the "
                "column to have every fifth reference used for the test"
            )


def _cut(reference: pd.Series) -> pd.Series:
    """Every fifth reference, in the order of their names, is for the test."""
    order = {name: i for i, name in enumerate(sorted(reference.unique()))}
    if len(order) == 1:
        return pd.Series("train", index=reference.index).mask(
            np.arange(len(reference)) % TEST_SHARE == TEST_SHARE - 1, "test"
        )
    every = min(TEST_SHARE, len(order))
    return reference.map(order).mod(every).eq(every - 1).map({True: "test", False: "train"})


def _resolve(names: pd.Series, paths: list[str]) -> pd.Series:
    """Names to paths of the feature file: the path itself, else the one file of that name.

    A name that fits no image stays as it is, and counts as missing later.
    """
    known = set(paths)
    by_name = pd.Series(paths, index=[path.rpartition("/")[2] for path in paths])
    by_name = by_name[~by_name.index.duplicated(keep=False)]
    return names.map(lambda name: name if name in known else by_name.get(name, name))


def _beside(features: FeatureFile, suffix: str) -> Path:
    path = Path(features.path)
    return path.with_name(f"{path.stem}.queries{suffix}")


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
