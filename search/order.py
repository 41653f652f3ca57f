"""Pictures in another order than the gallery's: by their path, or by a column of the metadata."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.search.gallery import Gallery
from cqr.search.metadata import matching

PATH = "path"
"""Names the order of the paths."""


def ordered(
    gallery: Gallery, sort: str | None, descending: bool, where: str | None = None
) -> NDArray[np.int64]:
    """The rows of the gallery that meet a condition, sorted; rows that are equal stay in order.

    Args:
        sort: `PATH`, a column of the metadata, or None for the gallery's own order.  A value
            that is not known comes last, either way.
        where: None takes every row.

    Raises:
        UserError: there is no such column, or the condition cannot be read.
    """
    rows = np.arange(len(gallery))
    if where is not None:
        rows = rows[matching(where, gallery.metadata)]
    return by(gallery, rows, sort, descending)


def by(
    gallery: Gallery, rows: NDArray[np.int64], sort: str | None, descending: bool
) -> NDArray[np.int64]:
    """These rows, sorted as `ordered` says.

    Raises:
        UserError: there is no such column.
    """
    if sort is None:
        return rows[::-1] if descending else rows
    if sort not in gallery.table.columns:
        raise UserError(
            f"there is no column {sort!r} to sort by; there are {', '.join(gallery.table.columns)}"
        )
    values: pd.Series[str] = gallery.table[sort].iloc[rows].reset_index(drop=True)
    order = values.sort_values(kind="stable", ascending=not descending, na_position="last").index
    sorted_rows: NDArray[np.int64] = rows[order.to_numpy()]
    return sorted_rows
