"""One file a data set: a layout on disk becomes the one queries table.

To add a data set, write a module that is a `Reader`, and list it in `recognise.READERS`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.queries import Dataset


class Reader(Protocol):
    """What a module of this room holds.

    `SUBMISSION`, the files that the data set's evaluation server takes (`forms`), is there too
    where such a server is.

    Attributes:
        NAME: what it is called on the command line.
        LAYOUT: what it looks for, in words.
        PUBLISHED: counts of the whole release, by what `counts` calls them.
        Options: a frozen dataclass of the choices that its protocol leaves.
    """

    NAME: str
    LAYOUT: str
    PUBLISHED: dict[str, int]
    Options: type[Any]

    def find(self, pictures: Pictures, data: Path | None) -> Path | None:
        """Where its files are, or None."""

    def read(self, root: Path, pictures: Pictures, options: Any) -> Dataset:
        """The data set.  Raises UserError when it is broken."""

    def counts(self, dataset: Dataset) -> Mapping[str, int]:
        """Numbers to be held against PUBLISHED."""
