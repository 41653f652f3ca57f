"""Approximate search: usearch's HNSW graph (Malkov and Yashunin, 2016) beside the gallery.

    hnsw-ID.usearch            the graph over the gallery of that id, with vectors of its own in
                               eight bits a number; mapped
    hnsw-ID.partial.usearch    as far as an interrupted build came
    *.usearch.sha256           what each of them must be: usearch believes every byte of a graph,
                               and a damaged one ends the process

The graph proposes; the gallery's own vectors decide the order and the scores.
"""

import logging
import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cqr import machine
from cqr.atomic import replacing
from cqr.digest import sha256
from cqr.errors import UserError, scarcity
from cqr.search.gallery import Gallery
from cqr.search.indexes import Progress, Rows, Scores
from cqr.search.indexes.exact import PROPOSED, Exact, best

CONNECTIVITY, BUILD_WIDTH, SEARCH_WIDTH = 16, 128, 96
"""Links of a node, and candidates kept while building and, see `search_width`, while searching."""

BLOCK = 4096
SAVE_EVERY = 60.0
"""Seconds of building that a kill may cost."""


def search_width(size: int) -> int:
    """Candidates kept while searching: from 100,000 vectors on twice as many each tenfold.

    With as many at every size, recall falls as the gallery grows: `benchmarks/speed/search.py`.
    """
    return round(SEARCH_WIDTH * 2 ** max(0.0, math.log10(size / 100_000)))


def file_of(gallery: Gallery) -> Path:
    return gallery.folder / f"hnsw-{gallery.id}.usearch"


def _partial(gallery: Gallery) -> Path:
    return gallery.folder / f"hnsw-{gallery.id}.partial.usearch"


class Hnsw:
    """See `Index`.  A condition, or a k near the size of the gallery, is searched exactly.

    Its file is read through once, to see that it is as it was written.  A graph that names a row
    that is not there is asked no more: the exact search answers, and a line of the log says so.

    Raises:
        UserError: on construction, if usearch is not installed, or no graph was built for
            this gallery, or it is damaged or cannot be read.
    """

    name = "hnsw"

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._exact = Exact(gallery)
        self._lock = threading.Lock()  # usearch gives every caller the same scratch space
        file = file_of(gallery)
        usearch = import_usearch()
        if not file.is_file():
            raise UserError(
                f"there is no HNSW index for {gallery.folder} as it is now: build it with "
                "`cqr index --index hnsw`"
            )
        if damage := _damage(file):
            raise UserError(f"{file} is damaged ({damage}): {_AGAIN}")
        self._sound = True
        try:
            self._graph = usearch.Index.restore(file, view=True)
            size = len(self._graph), self._graph.ndim
        except (RuntimeError, ValueError, TypeError) as error:  # its bytes are as written
            raise UserError(f"cannot open {file} ({error}): {_AGAIN}") from error
        if size != gallery.vectors.shape:
            raise UserError(f"{file} is not of {gallery.folder}: {_AGAIN}")
        self._graph.expansion_search = search_width(len(gallery))

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: Sequence[Rows],
        where: str | None = None,
    ) -> tuple[Rows, Scores]:
        wanted = PROPOSED * k + max(map(len, exclude), default=0)
        size = len(self._gallery)
        if not self._sound or where is not None or 4 * wanted > size:
            return self._exact.search(queries, k, exclude, where)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        for number, query in enumerate(queries):
            with self._lock:
                keys = self._graph.search(query, wanted, threads=1).keys
            if len(keys) and int(keys.max()) >= size:
                self._sound = False
                file = file_of(self._gallery)
                _LOG.warning("%s names rows that are not there; searching exactly", file)
                return self._exact.search(queries, k, exclude, where)
            proposed = np.setdiff1d(keys.astype(np.int64), exclude[number])
            found, reached = best(query, self._gallery.vectors, proposed, k)
            rows[number, : len(found)], scores[number, : len(found)] = found, reached
        return rows, scores


_AGAIN = "build it again with `cqr index --index hnsw`, or take --index exact meanwhile"
_LOG = logging.getLogger(__name__)


def _sums(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _damage(file: Path) -> str:
    """What is wrong with the bytes of a graph; "" if they are those that were written.

    Raises:
        UserError: they cannot be read.
    """
    try:
        written = _sums(file).read_text(encoding="ascii").split()
        return "" if sha256(file) in written else "it is not what was written"
    except FileNotFoundError:
        return f"there is no {_sums(file).name} to hold it against"
    except OSError as error:
        raise UserError(f"cannot read {file}: {scarcity(error) or error.strerror}") from error
    except ValueError as error:
        return str(error)


def build(gallery: Gallery, progress: Progress) -> Path:
    """Build the graph of a gallery, unless it is there and whole.

    A graph of fewer of its rows is gone on with.  On several cores the order in which vectors
    come in, and so the graph, is not always the same.

    Raises:
        UserError: usearch is not installed, or the disk is full.
    """
    usearch = import_usearch()
    file = file_of(gallery)
    if not file.is_file() or _damage(file):
        graph = _begun(usearch, gallery)
        saved = time.monotonic()
        total = len(gallery)
        for first in range(len(graph), total, BLOCK):
            progress(first, total)
            rows = np.arange(first, min(first + BLOCK, total))
            graph.add(rows, gallery.vectors[rows].astype(np.float32), threads=machine.cores())
            if time.monotonic() - saved > SAVE_EVERY:
                _save(graph, _partial(gallery))
                saved = time.monotonic()
        progress(total, total)
        _save(graph, file)
    for other in gallery.folder.glob("hnsw-*.usearch"):
        if other != file:
            other.unlink(missing_ok=True)
            _sums(other).unlink(missing_ok=True)
    return file


def _begun(usearch: Any, gallery: Gallery) -> Any:
    """A graph of the first rows of a gallery: what was built of it, or of the one it extends."""
    earlier = gallery.folder / f"hnsw-{gallery.extends}.usearch"
    for file in (_partial(gallery), earlier):
        try:
            sound = file.is_file() and not _damage(file)
            graph = usearch.Index.restore(file, enable_key_lookups=False) if sound else None
        except (RuntimeError, ValueError, TypeError):
            continue  # damaged: it is built anew
        if graph is not None and graph.ndim == gallery.vectors.shape[1]:
            graph.expansion_add = BUILD_WIDTH
            return graph
    return usearch.Index(
        ndim=gallery.vectors.shape[1],
        metric="cos",
        dtype="i8",
        connectivity=CONNECTIVITY,
        expansion_add=BUILD_WIDTH,
        enable_key_lookups=False,
    )


def _save(graph: Any, file: Path) -> None:
    """The sums are put there before the graph, the old one's among them: a kill between costs
    nothing."""
    with replacing(file) as temporary:
        try:
            graph.save(temporary)
        except RuntimeError as error:  # usearch's of a write that failed, without its number
            raise OSError(f"{error} (is the disk full?)") from error
        sums = [sha256(temporary), *([sha256(file)] if file.is_file() else [])]
        with replacing(_sums(file)) as beside:
            beside.write_text("\n".join(sums) + "\n", encoding="ascii")


def import_usearch() -> Any:
    """Raises UserError when it is not installed."""
    try:
        import usearch.index
    except ImportError:
        raise UserError(
            "the HNSW index needs usearch: pip install 'cqr[index]', or take --index exact"
        ) from None
    return usearch.index
