"""What is known of the pictures, as a page offers it: columns, and what they hold."""

import pandas as pd

from cqr.search.gallery import Gallery
from cqr.search.server.messages import Column

CHOICES = 60
"""A column of at most so many values is chosen from; of more, it is typed."""


def columns(gallery: Gallery) -> list[Column]:
    """The columns of the metadata, in their order."""
    table = gallery.metadata
    return [_column(str(name), table[name]) for name in table.columns]


def known(gallery: Gallery, row: int) -> dict[str, str | float | bool | None]:
    """What is known of one picture, by column; None is not known."""
    line = gallery.metadata.iloc[row]
    return {str(name): _plain(value) for name, value in line.items()}


def _column(name: str, values: "pd.Series[str]") -> Column:
    there = values.dropna()
    if pd.api.types.is_bool_dtype(there.dtype):
        return Column(name=name, kind="flag")
    if pd.api.types.is_numeric_dtype(there.dtype):
        if there.empty:
            return Column(name=name, kind="number")
        return Column(name=name, kind="number", least=float(there.min()), most=float(there.max()))
    distinct = sorted({str(value) for value in there})
    return Column(name=name, kind="text", values=distinct if len(distinct) <= CHOICES else None)


def _plain(value: object) -> str | float | bool | None:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return None
    item = getattr(value, "item", None)
    plain = item() if item else value
    return plain if isinstance(plain, str | int | float | bool) else str(plain)
