"""Published numbers that stand beside one's own, in columns that say so."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cqr.errors import UserError


def read(file: Path | None, measures: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By label of a row: its published measures that are known, and their "source".

    Args:
        file: CSV with the columns row, source, and any of `measures`; a blank is not known.
            None: nothing is.
        measures: names of the measures, such as "R@1".

    Raises:
        UserError: it cannot be read, or has other columns, a row twice, no source, or a
            measure that is no number.
    """
    if file is None:
        return {}
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"--published {file} cannot be read: {error}") from error
    wrong = [name for name in table if name not in ("row", "source", *measures)]
    if wrong or not {"row", "source"} <= set(table):
        known = ", ".join(measures)
        raise UserError(f"--published {file}: its columns must be row, source, and any of {known}")
    twice = table["row"][table["row"].duplicated()]
    if len(twice) or (table["source"].str.strip() == "").any():
        raise UserError(f"--published {file}: each row must come once, and have a source")
    numbers = table.drop(columns=["row", "source"])
    try:
        values: list[dict[str, Any]] = [
            {str(name): float(text) for name, text in line.items() if text.strip()}
            for line in numbers.to_dict("records")
        ]
    except ValueError as error:
        raise UserError(f"--published {file}: {error}") from error
    return {
        row: {**value, "source": source}
        for row, source, value in zip(table["row"], table["source"], values, strict=True)
    }


def columns(rows: Iterable[Mapping[str, Any]], measures: Sequence[str]) -> list[str]:
    """Those of the measures of which a row has a published number."""
    known = {name for row in rows for name in row}
    return [name for name in measures if name in known]


def cells(row: Mapping[str, Any], columns: Sequence[str]) -> list[str]:
    """A row's published numbers as they are printed, with blanks."""
    return [f"{row[name]:.2f}" if name in row else "" for name in columns]
