"""Ways to find the nearest vectors of a gallery: one file each, one interface."""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.search.gallery import Gallery

SCHEME = "milvus://"
"""Begins the name of a Milvus collection."""

LARGE = 50_000
"""From so many vectors on, `cqr index` builds an approximate index if it is not told otherwise."""

_LOG = logging.getLogger(__name__)

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Progress = Callable[[int, int], None]


class Index(Protocol):
    """The nearest vectors of a gallery; may be used by several threads.

    Attributes:
        name: what `cqr search --index` calls it.
    """

    name: str

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: Sequence[Rows],
        where: str | None = None,
    ) -> tuple[Rows, Scores]:
        """The k rows of the greatest dot product, best first; equal ones in gallery order.

        Args:
            queries: B x E, finite.
            k: at least 1.
            exclude: for each query the rows that it must not find.
            where: a condition on the metadata that every row found meets; see `metadata`.

        Returns:
            B x k rows, -1 where there are no more, and their scores, NaN there.

        Raises:
            UserError: the condition cannot be read, or the index cannot be reached.
        """
        ...


def open_index(name: str | None, gallery: Gallery) -> Index:
    """The index of that name over a gallery.

    Args:
        name: "exact", "hnsw", or milvus://HOST:PORT/COLLECTION; None is "hnsw" where one was
            built and is whole, else "exact"; a line of the log says that one is not.

    Raises:
        UserError: there is no such index, it was not built for this gallery, or what it
            needs is not installed.
    """
    from cqr.search.indexes import exact, hnsw

    if name is None:
        name = "exact"
        if any(gallery.folder.glob(hnsw.OF_BEFORE)):
            _LOG.warning(
                "the graph in %s is of an earlier cqr: `cqr index` builds it anew; the exact search"
                " answers",
                gallery.folder,
            )
        elif hnsw.file_of(gallery).is_file():
            try:
                return hnsw.Hnsw(gallery)
            except UserError as error:
                _LOG.warning("%s; the exact search answers", error)
    if name == "exact":
        return exact.Exact(gallery)
    if name == "hnsw":
        return hnsw.Hnsw(gallery)
    if name.startswith(SCHEME):
        from cqr.search.indexes import milvus

        return milvus.Milvus(gallery, name)
    raise UserError(_unknown(name))


def build_index(name: str | None, gallery: Gallery, progress: Progress) -> str:
    """Build the index of that name over a gallery, unless it is there.

    Args:
        name: as for `open_index`; None is "hnsw" for a gallery that is LARGE, or that had one
            before it changed, else "exact", for which nothing is to be built.

    Returns:
        The name of the index.

    Raises:
        UserError: there is no such index, it cannot be written or reached, or what it needs
            is not installed.
    """
    from cqr.search.indexes import hnsw

    if name is None:
        before = any(gallery.folder.glob("hnsw-*"))
        name = "hnsw" if before or len(gallery) >= LARGE else "exact"
    if name == "hnsw":
        hnsw.build(gallery, progress)
    elif name.startswith(SCHEME):
        from cqr.search.indexes import milvus

        milvus.build(gallery, name, progress)
    elif name != "exact":
        raise UserError(_unknown(name))
    return name


def _unknown(name: str) -> str:
    return f"--index {name} is not exact, hnsw or milvus://HOST:PORT/COLLECTION"
