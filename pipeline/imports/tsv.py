"""A line a picture, arrays in base64: bottom-up-attention's 6 columns, LXMERT's 10.

Columns after tools/generate_tsv.py and tools/read_tsv.py of
peteanderson80/bottom-up-attention, and src/utils.py of airsplay/lxmert, which
py-bottom-up-attention shares.  The file may be compressed by gzip.
"""

import binascii
import codecs
import csv
import gzip
import zlib
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from cqr.errors import UserError
from cqr.listing import Failure
from cqr.pipeline.imports.source import Broken, Entry, Found, Kind

BOTTOM_UP = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")
LXMERT = (
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
)
LAYOUTS = {"bottom-up-attention TSV": BOTTOM_UP, "LXMERT TSV": LXMERT}

ARRAYS = {
    "objects_id": ("<i8", 1),
    "objects_conf": ("<f4", 1),
    "attrs_id": ("<i8", 1),
    "attrs_conf": ("<f4", 1),
    "boxes": ("<f4", 4),
}
"""Dtype, and values a region; features are float32 of any width."""

EXTRAS = {"classes": "objects_id", "attributes": "attrs_id", "attribute_scores": "attrs_conf"}
"""What cqr names its extras, and the column that holds them."""

MAX_LINE = 64 << 20
"""Bytes; 100 regions of 2048 values take 1.1 million."""

FIRST = 100
"""One of so many lines has to show the number of columns."""

_CUT = (EOFError, gzip.BadGzipFile, zlib.error)


MAX_ID = 500
"""Characters; a longer first column is the rest of a line that was cut."""


class _Look(NamedTuple):
    """A line's columns by name, and what they say without being decoded."""

    id: str
    columns: dict[str, bytes]
    size: tuple[int, int]
    regions: int
    dim: int


class Tsv:
    """A TSV file; see the module.

    Raises:
        UserError: it cannot be read, or no line has the columns of either layout.
    """

    def __init__(self, file: Path):
        self.file = file
        self.stream = _opened(file)
        self.format, self.names = self._layout()
        self.extras = {ours: theirs for ours, theirs in EXTRAS.items() if theirs in self.names}
        self.ranked = "objects_conf" in self.names

    def close(self) -> None:
        self.stream.close()

    def entries(self) -> Iterator[Entry | Failure]:
        number = 0
        extras = tuple(self.extras)
        kinds: dict[int, Kind] = {}  # one for all: they may be many lines
        try:
            for number, offset, line in self._lines():
                fields = _fields(line)
                if _header(fields):
                    continue
                note = f"line {number}"
                try:
                    look = self._look(fields)
                except Broken as error:
                    if not line.endswith(b"\n"):
                        note += ", where the file ends"
                    yield Failure(self._label(fields, number), f"{error} ({note})")
                else:
                    kind = kinds.setdefault(look.dim, Kind(look.dim, extras, self.ranked))
                    yield Entry(look.id, offset, note, look.regions, kind)
        except _CUT:
            where = f"{self.file.name}:{number + 1}"
            yield Failure(where, f"is cut off or damaged in its compression (line {number + 1})")

    def read(self, entry: Entry) -> Found:
        self.stream.seek(entry.place)
        look = self._look(_fields(self.stream.readline(MAX_LINE)))
        columns = look.columns
        array = {
            name: _decoded(name, columns[name], dtype)
            for name, (dtype, _) in ARRAYS.items()
            if name in columns
        }
        return Found(
            features=_decoded("features", columns["features"], "<f4").reshape(-1, look.dim),
            boxes=array["boxes"].reshape(-1, 4),
            confidence=array.get("objects_conf"),
            extras={ours: array[theirs] for ours, theirs in self.extras.items()},
            size=look.size,
        )

    def _lines(self) -> Iterator[tuple[int, int, bytes]]:
        """Number, offset and bytes of every line that is not blank."""
        self.stream.seek(0)
        offset = 0
        for number in count(1):
            line = self.stream.readline(MAX_LINE)
            if not line:
                return
            if len(line) == MAX_LINE and not line.endswith(b"\n"):
                raise UserError(
                    f"line {number} of {self.file} has more than {MAX_LINE >> 20} MiB: that is no"
                    f" TSV of region features"
                )
            if not line.isspace():
                yield number, offset, line
            offset += len(line)

    def _layout(self) -> tuple[str, tuple[str, ...]]:
        """Which layout it is, and its columns in their order."""
        try:
            for _, _, line in islice(self._lines(), FIRST):
                fields = _fields(line)
                for name, columns in LAYOUTS.items():
                    if len(fields) == len(columns):
                        names = _header(fields) or columns
                        return name, tuple(name.replace("image_", "img_") for name in names)
        except _CUT:
            pass
        raise UserError(
            f"{self.file} holds no region features that cqr knows: none of its first {FIRST} lines"
            f" has the 6 columns of bottom-up-attention ({', '.join(BOTTOM_UP)}) or the 10 of"
            f" LXMERT ({', '.join(LXMERT)})"
        )

    def _look(self, fields: list[bytes]) -> _Look:
        """Raises Broken unless all columns are there, with lengths that fit one another."""
        if len(fields) != len(self.names):
            raise Broken(f"has {len(fields)} columns, not {len(self.names)}")
        columns = dict(zip(self.names, fields, strict=True))
        width, height, regions = (_number(n, columns[n]) for n in ("img_w", "img_h", "num_boxes"))
        for name, (dtype, values) in ARRAYS.items():
            if name in columns:
                size = _size(name, columns[name])
                needed = regions * values * np.dtype(dtype).itemsize
                if size != needed:
                    raise Broken(f"has {size} bytes of {name}, not {needed} for {regions} regions")
        size = _size("features", columns["features"])
        dim = size // (4 * regions) if regions else 0
        if size != 4 * regions * dim or (regions and not dim):
            raise Broken(f"has {size} bytes of features, which {regions} regions cannot share")
        return _Look(_id(columns["img_id"]), columns, (width, height), regions, dim)

    def _label(self, fields: list[bytes], number: int) -> str:
        """The id in a broken line if there is one; else the file's name and the line's number."""
        try:
            return _id(fields[self.names.index("img_id")])
        except (Broken, IndexError):
            return f"{self.file.name}:{number}"


def _opened(file: Path) -> IO[bytes]:
    if not file.is_file():
        raise UserError(f"{file} is no regular file; it is read twice, so save it first")
    try:
        stream = file.open("rb")
        if stream.read(2) == b"\x1f\x8b":
            stream.close()
            return cast(IO[bytes], gzip.open(file, "rb"))
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    return stream


def _fields(line: bytes) -> list[bytes]:
    return line.removeprefix(codecs.BOM_UTF8).rstrip(b"\r\n").split(b"\t")


def _header(fields: list[bytes]) -> tuple[str, ...] | None:
    """The names of the columns, if that is what a line holds."""
    if sum(map(len, fields)) > MAX_ID:
        return None
    names = tuple(field.decode("latin-1") for field in fields)
    return names if any(sorted(names) == sorted(columns) for columns in LAYOUTS.values()) else None


def _id(field: bytes) -> str:
    try:
        text = field.decode()
    except UnicodeDecodeError:
        raise Broken("has an id that is not UTF-8") from None
    if text.startswith('"'):
        text = next(csv.reader([text]))[0]  # as csv writers quote
    if not text or len(text) > MAX_ID or "\0" in text:
        raise Broken("has no id")
    return text


def _number(name: str, field: bytes) -> int:
    if not field.isdigit() or len(field) > 9:
        raise Broken(f"has no number in {name}")
    return int(field)


def _size(name: str, field: bytes) -> int:
    """How many bytes base64 text stands for."""
    if len(field) % 4:
        raise Broken(f"has {name} whose base64 is cut off")
    return len(field) // 4 * 3 - field[-2:].count(b"=")


def _decoded(name: str, field: bytes, dtype: str) -> NDArray[Any]:
    try:
        return np.frombuffer(binascii.a2b_base64(field, strict_mode=True), dtype)
    except ValueError:  # binascii.Error is one
        raise Broken(f"has {name} that are no base64") from None
