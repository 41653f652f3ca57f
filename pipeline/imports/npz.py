"""A folder of .npz files, one a picture, as MILVLG/bottom-up-attention.pytorch writes them.

Its utils/extract_utils.py stores x (n x D), bbox (n x 4), num_bbox, image_h,
image_w, and info: a pickled dictionary with objects_id, objects_conf, attrs_id
and attrs_conf.  Others store x as D x n (openvqa reads that), or no info.
"""

import contextlib
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cqr import unpickle
from cqr.errors import UserError
from cqr.listing import Failure
from cqr.pipeline.imports.source import Broken, Entry, Found, Kind, file_by_file

EXTRAS = {"classes": "objects_id", "attributes": "attrs_id", "attribute_scores": "attrs_conf"}
"""What cqr names its extras, and what holds them in `info`."""

COLUMNS = ("objects_conf", *EXTRAS.values())

LIMIT = 2**28
"""Bytes of an array: 100 regions of 2048 values take 0.8 million."""

IN_ORDER = "in_order"
"""Set in `info` by `cqr export`: rows are in order already, though not of confidence alone."""


class Npz:
    """A folder of .npz files; see the module.

    Args:
        files: below it, the .npz files among them.
        unreadable: folders below it that cannot be listed.

    Raises:
        UserError: there is none.
    """

    format = "npz"
    sized = True
    notes: ClassVar[list[str]] = []

    def __init__(self, folder: Path, files: list[str], unreadable: list[Failure]):
        self.folder = folder
        self.names = [name for name in files if name.lower().endswith(".npz")]
        self.unreadable = unreadable
        if not self.names:
            raise UserError(
                f"{folder} holds no features that cqr knows: neither .npz files, one a picture, nor"
                f" X.npy beside X_info.npy, nor features.npy, boxes.npy and paths.txt"
            )

    def close(self) -> None: ...

    def entries(self) -> Iterator[Entry | Failure]:
        yield from self.unreadable
        yield from file_by_file(self.names, self._look)

    def _look(self, name: str) -> Entry:
        with _Archive(self.folder / name) as archive:
            return Entry(name.removesuffix(".npz"), name, "", *archive.look())

    def read(self, entry: Entry) -> Found:
        with _Archive(self.folder / entry.place) as archive:
            return archive.found()


class _Archive:
    """One file, of which nothing is run.  Raises Broken for all that can be wrong with it."""

    def __init__(self, file: Path):
        with _damage_said():
            self.zip = zipfile.ZipFile(file)
            self.members = {name.removesuffix(".npy") for name in self.zip.namelist()}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.zip.close()

    def look(self) -> tuple[int, Kind]:
        """The number of regions, and their kind."""
        n, boxes = self._boxes()
        info = self._info()
        with self._member("x") as stream:
            shape, _ = _header(stream)
        dim = shape[0 if _is_across(shape, {n, len(boxes)}) else 1]
        extras = tuple(ours for ours, theirs in EXTRAS.items() if theirs in info)
        ranked = "objects_conf" in info and not info.get(IN_ORDER)
        return n, Kind(dim, extras, ranked)

    def found(self) -> Found:
        n, boxes = self._boxes()
        info = self._info()
        x = self._array("x")
        column = {name: _column(info, name, n) for name in COLUMNS if name in info}
        return Found(
            features=(x.T if _is_across(x.shape, {n, len(boxes)}) else x)[:n],
            boxes=boxes[:n],
            confidence=column.get("objects_conf"),
            extras={ours: column[theirs] for ours, theirs in EXTRAS.items() if theirs in column},
            size=(self._integer("image_w", info), self._integer("image_h", info)),
        )

    def _boxes(self) -> tuple[int, NDArray[Any]]:
        """How many regions are real, and all boxes: some writers fill up to a fixed number."""
        boxes = self._array("bbox")
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise Broken(f"has a bbox of {boxes.shape}, not one of 4 columns")
        number = self._integer("num_bbox", {}) if "num_bbox" in self.members else len(boxes)
        if not 0 <= number <= len(boxes):
            raise Broken(f"has {len(boxes)} boxes, but a num_bbox of {number}")
        return number, boxes

    def _info(self) -> dict[str, Any]:
        if "info" not in self.members:
            return {}
        with _damage_said(), self._member("info") as stream:
            _header(stream)
            found = unpickle.load(stream)
            info = found.values if isinstance(found, unpickle.Array) else []
        return info[0] if len(info) == 1 and isinstance(info[0], dict) else {}

    def _integer(self, name: str, otherwise: Mapping[str, Any]) -> int:
        try:
            given = name in self.members
            value = self._array(name) if given else unpickle.as_numbers(otherwise.get(name))
        except ValueError:
            raise Broken(f"has no number in {name}") from None
        if value.size != 1 or value.dtype.kind not in "iu":
            raise Broken(f"has no number in {name}")
        return int(value.item())

    def _array(self, name: str) -> NDArray[Any]:
        with _damage_said(), self._member(name) as stream:
            shape, dtype = _header(stream)
            needed = math.prod(shape) * dtype.itemsize
            if needed > self.zip.getinfo(f"{name}.npy").file_size:  # else numpy makes room for it
                raise Broken(f"is truncated or damaged ({name} says that it has {needed:,} bytes)")
        with _damage_said(), self._member(name) as stream:
            array = npy.read_array(stream, allow_pickle=False)
        if array.dtype.kind not in "iuf":
            raise Broken(f"has {array.dtype} in {name}, not numbers")
        return array

    def _member(self, name: str) -> IO[bytes]:
        if name not in self.members:
            raise Broken(f"has no {name}")
        with _damage_said():
            size = self.zip.getinfo(f"{name}.npy").file_size
            if size > LIMIT:
                raise Broken(f"has {size:,} bytes of {name}, more than features of a picture take")
            return self.zip.open(f"{name}.npy")


@contextlib.contextmanager
def _damage_said() -> Iterator[None]:
    try:
        yield
    except Broken:
        raise
    except Exception as error:  # zipfile, zlib, numpy and pickle raise nearly anything on damage
        raise Broken(f"is truncated or damaged ({' '.join(str(error).split())})") from error


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and dtype that a .npy stream begins with."""
    with _damage_said():
        old = npy.read_magic(stream) == (1, 0)
        read = npy.read_array_header_1_0 if old else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        return shape, dtype


def _is_across(shape: tuple[int, ...], rows: set[int]) -> bool:
    """Whether x of that shape is D x n, not n x D; `rows` are what n may be."""
    if len(shape) != 2 or not (rows & set(shape)):
        raise Broken(f"has an x of {shape}, which does not fit {max(rows)} boxes")
    return shape[0] not in rows


def _column(info: Mapping[str, Any], name: str, n: int) -> NDArray[Any]:
    try:
        values = unpickle.as_numbers(info[name])
    except ValueError:
        values = np.zeros((0, 0))
    if values.ndim != 1 or len(values) < n or values.dtype.kind not in "iuf":
        raise Broken(f"has an {name} in its info that is no array of {n} numbers")
    return values[:n]
