"""What the readers of a user's own tables share: which is which, where it lies, how it is read."""

import os
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from cqr.errors import UserError, reason
from cqr.trainer.datasets.layout import Pictures

SUFFIXES = (".csv", ".parquet")
QUERY = ("reference", "text", "target")
"""What a table of queries must have."""

PATHS = ("path", "file", "image", "id")
"""What the column that names the pictures may be called: the first of these that is there."""

PLACES = (
    "in that folder, or beside it as FOLDER.queries.csv or FOLDER.csv, or as NAME.queries.csv "
    "beside NAME.h5"
)


def names_queries(columns: list[str]) -> bool:
    """Whether a table has at least the names of a table of queries."""
    return "reference" in columns and ("target" in columns or "text" in columns)


def names_pictures(columns: list[str]) -> bool:
    """Whether a table names pictures and says something of each."""
    return not names_queries(columns) and not lacks_of_pictures(columns)


def lacks_of_pictures(columns: list[str]) -> str:
    """What a table lacks to be one of pictures, in words; "" for nothing."""
    name = path_column(columns)
    if name is None:
        return f"a column {', '.join(PATHS[:-1])} or {PATHS[-1]}"
    said = [column for column in columns if column not in (name, "split")]
    return "" if said else f"a caption or an attribute beside {name}"


def path_column(columns: list[str]) -> str | None:
    """The column that names the pictures."""
    return next((name for name in PATHS if name in columns), None)


def find(
    pictures: Pictures,
    data: Path | None,
    what: str,
    fits: Callable[[list[str]], bool],
    may: Callable[[list[str]], bool],
) -> Path | None:
    """The table, looked for in the `PLACES`, in that order.

    Args:
        what: it is, for the message.
        fits: whether a table of these columns is meant, if it lies among the pictures.
        may: whether it is meant if it is named, or lies where a table is named after them.

    Raises:
        UserError: two tables fit equally well.
    """
    root = Path(pictures.root if data is None else data)
    if root.is_file():
        return root if may(columns_of(root)) else None
    places = [(fits, _tables_in(root))]
    if data is None:
        ends = [f"{queries}{suffix}" for queries in (".queries", "") for suffix in SUFFIXES]
        places += [(may, [root.with_name(root.name + end)]) for end in ends]
        if (features := pictures.features) is not None:
            ends = [f".queries{suffix}" for suffix in SUFFIXES]
            places += [(may, [features.with_name(features.stem + end)]) for end in ends]
    for meant, paths in places:
        # Path's own raises where a name beside a long one would be too long
        fitting = [path for path in paths if os.path.isfile(path) and meant(columns_of(path))]
        if len(fitting) > 1:
            names = ", ".join(path.name for path in fitting)
            raise UserError(
                f"{root} holds {len(fitting)} tables of {what} ({names}): choose one with --data"
            )
        if fitting:
            return fitting[0]
    return None


def _tables_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)


def columns_of(path: Path) -> list[str]:
    """The names of a table's columns; none where it cannot be read."""
    try:
        if path.suffix.lower() == ".parquet":
            return [str(name) for name in pq.read_schema(path).names]
        return pd.read_csv(
            path, nrows=0, encoding="utf-8-sig", sep=separator(path)
        ).columns.tolist()
    except Exception:  # the readers of damaged bytes raise what they like
        return []


def separator(path: Path) -> str:
    """What stands between the cells of a CSV: ";" where its first line has that and no comma.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        header = file.readline(1 << 16)
    return ";" if b";" in header and b"," not in header else ","


def load(path: Path) -> pd.DataFrame:
    """A table whose columns are named by text; the cells of a CSV are text as it stands.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path).reset_index(drop=True)
            return frame.set_axis([str(name) for name in frame.columns], axis=1)
        return pd.read_csv(
            path, dtype=object, encoding="utf-8-sig", keep_default_na=False, sep=separator(path)
        )
    except Exception as error:  # the readers of damaged bytes raise what they like
        raise UserError(
            f"cannot read the table {path} ({reason(error)}): save it as UTF-8 CSV or Parquet"
        ) from error


def strings(column: pd.Series) -> pd.Series:
    """Stripped; "" where there is nothing."""
    return column.where(column.notna(), "").map(lambda value: str(value).strip()).astype(object)


def check_splits(path: Path, split: pd.Series) -> None:
    """Raises UserError when a row has a split that is none, or none is to be scored."""
    found = set(split)
    unknown = sorted(found - {"train", "val", "test"})
    if unknown:
        shown = ", ".join(name or "empty" for name in unknown)
        raise UserError(
            f"{path}: split must be train, val or test in every row, and is also {shown}"
        )
    if "test" not in found:
        raise UserError(
            f"{path} has no test split: mark some rows with split = test, or remove the column to "
            "have some kept for the test"
        )
