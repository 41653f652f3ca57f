"""Approximate search: faiss' HNSW graph (Malkov and Yashunin, 2016) beside the gallery.

    hnsw-ID.faiss            the graph over the gallery of that id, with vectors of its own in
                             eight bits a number: whole numbers, all dimensions in one range,
                             which take half the time; or, where a few dimensions are much
                             larger than all others, as CLIP's are, each in its own range
    hnsw-ID.partial.faiss    as far as an interrupted build came
    *.faiss.sha256           what each of them must be: faiss believes nearly every byte of a
                             graph, and a damaged one may end the process

The graph proposes; the gallery's own vectors decide the order and the scores.  Graphs of cqr 0.1,
hnsw-ID.usearch, are read no more: `cqr index` builds them anew.
"""

import contextlib
import ctypes
import itertools
import math
import sys
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
from cqr.search.gallery import Gallery, Vectors
from cqr.search.indexes import Progress, Rows, Scores
from cqr.search.indexes.exact import Exact, best

CONNECTIVITY, BUILD_WIDTH, SEARCH_WIDTH = 16, 128, 96
"""Links of a node, and candidates kept while building and, see `search_width`, while searching."""

PROPOSED = 2
"""Candidates for each result, among which the gallery's own vectors choose."""

FARTHEST = 8.0
"""Where whole numbers end, in root mean squares of a vector's numbers; what is beyond is cut."""

CUT = 0.05
"""The share of a gallery's vectors with a number beyond that, up to which whole numbers do."""

TRAINED_ON = 65_536
"""Vectors, evenly spread over the gallery, that the range of each dimension is measured on."""

OF_BEFORE = "hnsw-*.usearch"
"""Graphs of cqr 0.1."""

LARGE_PAGE = 2**21
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25
"""Of Linux, the latter since 6.1."""

BLOCK = 4096
SAVE_EVERY = 60.0
"""Seconds of building that a kill may cost."""


def search_width(size: int) -> int:
    """Candidates kept while searching: from 100,000 vectors on half as many more each tenfold.

    With as many at every size, recall falls as the gallery grows: `benchmarks/speed/search.py`.
    """
    return round(SEARCH_WIDTH * math.pow(1.5, max(0.0, math.log10(size / 100_000))))


def file_of(gallery: Gallery) -> Path:
    return gallery.folder / f"hnsw-{gallery.id}.faiss"


def _partial(gallery: Gallery) -> Path:
    return gallery.folder / f"hnsw-{gallery.id}.partial.faiss"


class Hnsw:
    """See `Index`.  A condition, or a k near the size of the gallery, is searched exactly.

    Its file is read through once, to see that it is as it was written.

    Raises:
        UserError: on construction, if faiss is not installed, or no graph was built for
            this gallery, or it is damaged or cannot be read.
    """

    name = "hnsw"

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._exact = Exact(gallery)
        file = file_of(gallery)
        faiss = import_faiss()
        if not file.is_file():
            raise UserError(
                f"there is no HNSW index for {gallery.folder} as it is now: build it with "
                "`cqr index --index hnsw`"
            )
        self._graph = _opened(faiss, file, gallery)
        if self._graph.ntotal != len(gallery):
            raise UserError(f"{file} is not of {gallery.folder}: {_AGAIN}")
        self._whole = _holds_whole_numbers(faiss, self._graph)
        self._questions = itertools.count(1)
        self._how = faiss.SearchParametersHNSW(efSearch=search_width(len(gallery)))

    def search(
        self,
        queries: NDArray[np.float32],
        k: int,
        exclude: Sequence[Rows],
        where: str | None = None,
    ) -> tuple[Rows, Scores]:
        wanted = PROPOSED * k + max(map(len, exclude), default=0)
        if where is not None or 4 * wanted > len(self._gallery):
            return self._exact.search(queries, k, exclude, where)
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), np.nan, np.float32)
        if next(self._questions) == 2:  # for one question it takes longer than it saves
            _to_large_pages(import_faiss(), self._graph)
        asked = _asked(queries, self._whole)
        _, proposed = self._graph.search(asked, wanted, params=self._how)
        for number, query in enumerate(queries):
            kept = proposed[number][proposed[number] >= 0]
            if len(exclude[number]):
                kept = kept[~np.isin(kept, exclude[number])]
            found, reached = best(query, self._gallery.vectors, kept, k)
            rows[number, : len(found)], scores[number, : len(found)] = found, reached
        return rows, scores


def _to_large_pages(faiss: Any, graph: Any) -> None:
    """Move a graph's vectors and links to pages of 2 MB, where the system has such.

    A question reads here and there in them, and without spends a quarter of its time on finding
    pages.  A second a million vectors.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    for part, width in ((faiss.downcast_index(graph.storage).codes, 1), (graph.hnsw.neighbors, 4)):
        begin = int(part.data())
        first = -(-begin // LARGE_PAGE) * LARGE_PAGE
        size = (begin + width * part.size() - first) // LARGE_PAGE * LARGE_PAGE
        if size > 0:
            for advice in (MADV_HUGEPAGE, MADV_COLLAPSE):  # refused, all stays as it is
                libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(size), advice)


def _holds_whole_numbers(faiss: Any, graph: Any) -> bool:
    """Whether a graph holds whole numbers."""
    kind = faiss.downcast_index(graph.storage).sq.qtype
    return bool(kind == faiss.ScalarQuantizer.QT_8bit_direct_signed)


def _stored(vectors: Vectors, whole: bool) -> NDArray[np.float32]:
    """B x E unit vectors as a graph is given them."""
    out: NDArray[np.float32] = vectors.astype(np.float32)
    if whole:
        out *= 127 * math.sqrt(out.shape[1]) / FARTHEST
        out = np.rint(out).clip(-127, 127)
    return out


def _asked(queries: NDArray[np.float32], whole: bool) -> NDArray[np.float32]:
    """B x E queries as a graph is asked, each in a range of its own: only their order counts."""
    if whole:
        greatest = np.abs(queries).max(1, keepdims=True)
        queries = np.rint(queries * (127 / np.where(greatest > 0, greatest, 1)))
    return queries


def _even(vectors: Vectors) -> bool:
    """Whether whole numbers do for a gallery, by some of it."""
    some = _some(vectors, 1000)
    cut = np.abs(some).max(1) > FARTHEST * np.sqrt(np.square(some).mean(1))
    return bool(cut.mean() <= CUT)


def _some(vectors: Vectors, most: int) -> NDArray[np.float32]:
    """Evenly spread over a gallery."""
    some: NDArray[np.float32] = vectors[:: math.ceil(len(vectors) / most)].astype(np.float32)
    return some


_AGAIN = "build it again with `cqr index --index hnsw`, or take --index exact meanwhile"


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
        UserError: faiss is not installed, or the disk is full.
    """
    faiss = import_faiss()
    file = file_of(gallery)
    if not _is_whole(faiss, file, gallery):
        threads = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(machine.cores())
        try:
            _grow(faiss, _begun(faiss, gallery), gallery, progress)
        finally:
            faiss.omp_set_num_threads(threads)  # which PyTorch may share
    for other in gallery.folder.glob("hnsw-*"):
        if other not in (file, _sums(file)):
            other.unlink(missing_ok=True)
    return file


def _grow(faiss: Any, graph: Any, gallery: Gallery, progress: Progress) -> None:
    """Add the rows that it lacks, and save it."""
    saved, whole = time.monotonic(), _holds_whole_numbers(faiss, graph)
    total = len(gallery)
    for first in range(graph.ntotal, total, BLOCK):
        progress(first, total)
        graph.add(_stored(gallery.vectors[first : first + BLOCK], whole))
        if time.monotonic() - saved > SAVE_EVERY:
            _save(faiss, graph, _partial(gallery))
            saved = time.monotonic()
    progress(total, total)
    _save(faiss, graph, file_of(gallery))


def _is_whole(faiss: Any, file: Path, gallery: Gallery) -> bool:
    try:
        return file.is_file() and _opened(faiss, file, gallery).ntotal == len(gallery)
    except UserError:
        return False


def _begun(faiss: Any, gallery: Gallery) -> Any:
    """A graph of the first rows of a gallery: what was built of it, or of the one it extends."""
    size, dim = gallery.vectors.shape
    for file in (_partial(gallery), gallery.folder / f"hnsw-{gallery.extends}.faiss"):
        if file.is_file():
            with contextlib.suppress(UserError):  # damaged: it is built anew
                graph = _opened(faiss, file, gallery)
                if graph.ntotal <= size:
                    return graph
    kinds = faiss.ScalarQuantizer
    kind = kinds.QT_8bit_direct_signed if _even(gallery.vectors) else kinds.QT_8bit
    graph = faiss.IndexHNSWSQ(dim, kind, CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = BUILD_WIDTH
    if not graph.is_trained:  # whole numbers need no ranges
        graph.train(_some(gallery.vectors, TRAINED_ON))
    return graph


def _opened(faiss: Any, file: Path, gallery: Gallery) -> Any:
    """A graph of vectors as wide as the gallery's.

    Raises:
        UserError: it is damaged, cannot be read, or is not such a graph.
    """
    if damage := _damage(file):
        raise UserError(f"{file} is damaged ({damage}): {_AGAIN}")
    try:
        graph = faiss.read_index(str(file))
    except RuntimeError as error:  # its bytes are as written
        reason = str(error).rpartition("failed: ")[2]
        raise UserError(f"{file} cannot be opened ({reason}): {_AGAIN}") from error
    if not isinstance(graph, faiss.IndexHNSWSQ) or graph.d != gallery.vectors.shape[1]:
        raise UserError(f"{file} is not of {gallery.folder}: {_AGAIN}")
    return graph


def _save(faiss: Any, graph: Any, file: Path) -> None:
    """The sums are put there before the graph, the old one's among them: a kill between costs
    nothing."""
    with replacing(file) as temporary:
        with temporary.open("wb") as opened:  # a full disk is said as Python says it
            faiss.write_index(graph, faiss.PyCallbackIOWriter(opened.write))
        sums = [sha256(temporary), *([sha256(file)] if file.is_file() else [])]
        with replacing(_sums(file)) as beside:
            beside.write_text("\n".join(sums) + "\n", encoding="ascii")


def import_faiss() -> Any:
    """Raises UserError when it is not installed."""
    try:
        import faiss
    except ImportError:
        raise UserError(
            "the HNSW index needs faiss: pip install 'cqr[index]', or take --index exact"
        ) from None
    return faiss
