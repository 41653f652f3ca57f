"""A line a picture, arrays in base64: bottom-up-attention's 6 columns, LXMERT's 10, VinVL's 3.

Columns after tools/generate_tsv.py and tools/read_tsv.py of
peteanderson80/bottom-up-attention, and src/utils.py of airsplay/lxmert, which
py-bottom-up-attention shares; VinVL's as oscar/run_vqa.py of microsoft/Oscar reads them, whose
features end in their box (x1, y1, x2, y2, width, height, as fractions of a picture whose size the
file does not say).  The file may be compressed by gzip.

How wide a number is, the columns do not say: of boxes and the like the count of bytes does, of
features their values.  Those of float16 read as float32 are noise, of half the width.
"""

import binascii
import codecs
import contextlib
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
VINVL = ("image_id", "num_boxes", "features")
LAYOUTS = {"bottom-up-attention TSV": BOTTOM_UP, "LXMERT TSV": LXMERT, "VinVL TSV": VINVL}

ARRAYS = {
    "objects_id": ("i", 1),
    "objects_conf": ("f", 1),
    "attrs_id": ("i", 1),
    "attrs_conf": ("f", 1),
    "boxes": ("f", 4),
}
"""Kind of number, and values a region."""

WIDTHS = {"i": (8, 4), "f": (4, 2, 8)}
"""Bytes that a number of a kind may have, the usual first."""

ENOUGH = 1024
"""Bytes of features in which their width shows."""

BOX = 6
"""Values of a box at the end of VinVL's features."""

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
    size: tuple[int, int] | None
    regions: int
    dim: int
    dtypes: dict[str, str]


class Tsv:
    """A TSV file; see the module.

    Raises:
        UserError: it cannot be read, or no line has the columns of either layout.
    """

    def __init__(self, file: Path):
        self.file = file
        self.stream = _opened(file)
        self.width = 4
        self.format, self.names = self._layout()
        self.width = self._feature_width()
        self.extras = {ours: theirs for ours, theirs in EXTRAS.items() if theirs in self.names}
        self.ranked = "objects_conf" in self.names
        self.sized = "img_w" in self.names

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
        array = {name: _decoded(name, columns[name], dtype) for name, dtype in look.dtypes.items()}
        features = _decoded("features", columns["features"], f"<f{self.width}")
        features = features.reshape(look.regions, -1)
        boxes = array["boxes"].reshape(-1, 4) if "boxes" in array else None
        inside = features.shape[1] - look.dim
        if inside:
            boxes = features[:, look.dim : look.dim + 4]
        return Found(
            features=features[:, : look.dim],
            boxes=boxes,
            fractions=bool(inside),
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
            f" has the 6 columns of bottom-up-attention ({', '.join(BOTTOM_UP)}), the 10 of"
            f" LXMERT ({', '.join(LXMERT)}) or the 3 of VinVL ({', '.join(VINVL)})"
        )

    def _look(self, fields: list[bytes]) -> _Look:
        """Raises Broken unless all columns are there, with lengths that fit one another."""
        if len(fields) != len(self.names):
            raise Broken(f"has {len(fields)} columns, not {len(self.names)}")
        columns = dict(zip(self.names, fields, strict=True))
        regions = _number("num_boxes", columns["num_boxes"])
        picture = None
        if "img_w" in columns:
            picture = _number("img_w", columns["img_w"]), _number("img_h", columns["img_h"])
        dtypes = {
            name: _dtype(name, columns[name], kind, regions, values)
            for name, (kind, values) in ARRAYS.items()
            if name in columns
        }
        size = _size("features", columns["features"])
        dim = size // (self.width * regions) if regions else 0
        if size != self.width * regions * dim or (regions and not dim):
            raise Broken(f"has {size} bytes of features, which {regions} regions cannot share")
        if "boxes" not in columns and dim % 64 == BOX:
            dim -= BOX
        return _Look(_id(columns["img_id"]), columns, picture, regions, dim, dtypes)

    def _feature_width(self) -> int:
        """Bytes of a number of the features, by the values of the first line that can be read."""
        try:
            for _, _, line in islice(self._lines(), FIRST):
                fields = _fields(line)
                with contextlib.suppress(Broken):
                    look = self._look(fields) if not _header(fields) else None
                    if look is not None and look.regions:
                        content = binascii.a2b_base64(look.columns["features"])
                        return _width(content)
        except (*_CUT, ValueError):
            pass
        return 4

    @property
    def notes(self) -> list[str]:
        """What was guessed, a sentence each."""
        if self.width == 4:
            return []
        kind = f"float{8 * self.width}"
        return [f"Features: {kind}, by their values; as the usual float32 they would be noise"]

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


def _dtype(name: str, field: bytes, kind: str, regions: int, values: int) -> str:
    """How wide the numbers of a column are, by its bytes.  Raises Broken if no width fits."""
    size = _size(name, field)
    for width in WIDTHS[kind]:
        if size == regions * values * width:
            return f"<{kind}{width}"
    needed = regions * values * WIDTHS[kind][0]
    raise Broken(f"has {size} bytes of {name}, not {needed} for {regions} regions")


def _width(content: bytes) -> int:
    """Bytes of a number of features.

    Taken apart into halves, the lower ones of float32 are bits of its mantissa, anything at all;
    those of float16 are features too, and so are of a size.  Likewise for words and float64.
    """
    if len(content) < ENOUGH or len(content) % 8:
        return 4
    halves = np.frombuffer(content, "<u2")
    lower, upper = halves[::2], halves[1::2]
    below_64 = (lower >> 10 & 31) <= 20
    filled = np.count_nonzero(lower)
    if filled and 2 * filled > np.count_nonzero(upper) and below_64.mean() > 0.98:
        return 2
    words = np.frombuffer(content, "<u4")
    exponent = words >> 23 & 255
    usual = (words == 0) | ((exponent > 87) & (exponent < 167))  # 1e-12 to 1e12
    return 8 if usual[::2].mean() < 0.7 and usual[1::2].mean() > 0.95 else 4


def _size(name: str, field: bytes) -> int:
    """How many bytes base64 text stands for."""
    if field[:2] in (b"b'", b'b"'):
        raise Broken(
            f"has {name} written as b'...', as Python 3 prints bytes: write them with .decode()"
        )
    if len(field) % 4:
        raise Broken(f"has {name} whose base64 is cut off")
    return len(field) // 4 * 3 - field[-2:].count(b"=")


def _decoded(name: str, field: bytes, dtype: str) -> NDArray[Any]:
    try:
        return np.frombuffer(binascii.a2b_base64(field, strict_mode=True), dtype)
    except ValueError:  # binascii.Error is one
        raise Broken(f"has {name} that are no base64") from None
