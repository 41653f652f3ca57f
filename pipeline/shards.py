"""One shard of a feature file: some pictures' regions, in arrays that can be mapped.

    NAME.shards/00000.h5     contiguous and uncompressed

`feature_file` joins the shards into the one file that users open.
"""

import contextlib
import hashlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

import cqr
from cqr.atomic import replacing
from cqr.errors import reason, scarcity
from cqr.listing import Failure
from cqr.pipeline import sums
from cqr.pipeline.regions import Regions
from cqr.remote import source

FORMAT = "cqr-regions"
SHARD_FORMAT = "cqr-regions-shard"
VERSION = 2
READ = (1, 2)
"""Versions that are read: the first has no checksums."""

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError)
"""What h5py raises on damaged bytes."""

TEXT = h5py.string_dtype("utf-8")


def layout(
    k: int, dim: int, extras: Mapping[str, str] = {}
) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Each numeric dataset of a file: its name, the shape of one row, its dtype.

    `extras` are datasets beyond those that every file has, and that a reader may
    pass over: name and dtype of what has one value a region.
    """
    named: dict[str, tuple[tuple[int, ...], np.dtype]] = {
        "images/size": ((2,), np.dtype("<i4")),  # width, height
        "regions/features": ((k, dim), np.dtype("<f2")),
        "regions/boxes": ((k, 4), np.dtype("<f4")),  # x1, y1, x2, y2 in pixels
        "regions/scores": ((k,), np.dtype("<f4")),
        "regions/count": ((), np.dtype("<i4")),
        "whole/features": ((dim,), np.dtype("<f2")),
    }
    return named | {name: ((k,), np.dtype(dtype)) for name, dtype in extras.items()}


@dataclass(frozen=True)
class Header:
    """What all shards of one set share, and the attributes of the joining file.

    Attributes:
        set_id: made once, with the plan; a shard of another set has another.
        created: ISO 8601, UTC.
        k: K.
        dim: D.
        detector: the detector's identity.
        image_root: absolute folder that the paths are relative to.
        command: makes the file again, but for `--out FILE`.
        made_by: version of cqr.
        warning: what the user was warned of when the detector was chosen, or "".
        extras: datasets beyond those that every file has; see `layout`.
    """

    set_id: str
    created: str
    k: int
    dim: int
    detector: dict[str, Any]
    image_root: str
    command: str
    made_by: str
    warning: str = ""
    extras: dict[str, str] = field(default_factory=dict)

    @classmethod
    def new(cls, **fields: Any) -> Self:
        """The header of a set that begins now; `fields` are all that is not decided by that."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(secrets.token_hex(16), created, made_by=cqr.__version__, **fields)

    @property
    def layout(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        return layout(self.k, self.dim, self.extras)

    @property
    def settings(self) -> str:
        """A hash of all that decides the numbers."""
        parts: dict[str, Any] = {"k": self.k, "dim": self.dim, "detector": self.detector}
        if self.extras:
            parts["extras"] = self.extras
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def attributes(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "set": self.set_id,
            "settings": self.settings,
            "created": self.created,
            "k": self.k,
            "dim": self.dim,
            "detector": json.dumps(self.detector, sort_keys=True),
            "image_root": self.image_root,
            "command": self.command,
            "cqr_version": self.made_by,
            "warning": self.warning,
            "extras": json.dumps(self.extras, sort_keys=True),
        }

    @classmethod
    def of(cls, attributes: Any) -> Self:
        """The inverse of `attributes`.  Raises KeyError, ValueError on what is not."""
        return cls(
            set_id=str(attributes["set"]),
            created=str(attributes["created"]),
            k=int(attributes["k"]),
            dim=int(attributes["dim"]),
            detector=json.loads(attributes["detector"]),
            image_root=str(attributes["image_root"]),
            command=str(attributes["command"]),
            made_by=str(attributes["cqr_version"]),
            warning=str(attributes["warning"]),
            extras=_extras(attributes.get("extras", "{}")),
        )


def _extras(text: str) -> dict[str, str]:
    """Raises ValueError for what `layout` cannot use."""
    try:
        return {str(name): np.dtype(dtype).str for name, dtype in json.loads(text).items()}
    except (AttributeError, TypeError) as error:
        raise ValueError(f"extras, {text!r}") from error


DAMAGED = "is truncated or damaged"


class BadShard(Exception):
    """A shard that cannot be used; `reason` completes "shard X ..."."""

    def __init__(self, shard: Path, reason: str):
        super().__init__(shard, reason)
        self.shard = shard
        self.reason = reason

    def __str__(self) -> str:
        return f"shard {self.shard} {self.reason}"


@dataclass(frozen=True, eq=False)
class Rows:
    """Pictures as they lie in a shard: `paths`, and the arrays named in `layout`."""

    paths: list[str]
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def empty(cls, k: int, dim: int, rows: int, extras: Mapping[str, str] = {}) -> Self:
        arrays = {name: np.zeros((rows, *s), t) for name, (s, t) in layout(k, dim, extras).items()}
        return cls([""] * rows, arrays)

    def put(self, i: int, path: str, regions: Regions) -> None:
        """Fill row i.  Raises OverflowError if a value does not fit float16."""
        with np.errstate(over="ignore"):
            features = regions.features.astype("<f2")
            whole = regions.whole.astype("<f2")
        if not (np.isfinite(features).all() and np.isfinite(whole).all()):
            largest = max(np.abs(regions.features).max(), np.abs(regions.whole).max())
            raise OverflowError(f"its feature {largest:.4g} is more than float16 holds (65504)")
        self.paths[i] = path
        self.arrays["images/size"][i] = regions.width, regions.height
        self.arrays["regions/features"][i] = features
        self.arrays["regions/boxes"][i] = regions.boxes
        self.arrays["regions/scores"][i] = regions.scores
        self.arrays["regions/count"][i] = regions.count
        self.arrays["whole/features"][i] = whole

    def merged(self, other: Self) -> Self:
        """Both, in the order of their paths."""
        paths = self.paths + other.paths
        pairs = ((name, array, other.arrays[name]) for name, array in self.arrays.items())
        arrays = {name: np.concatenate([ours, theirs]) for name, ours, theirs in pairs}
        return type(self)(paths, arrays).take(sorted(range(len(paths)), key=paths.__getitem__))

    def take(self, order: Sequence[int]) -> Self:
        picked = list(order)
        if picked == list(range(len(self.paths))):
            return self  # what happens nearly always; saves a copy of the features
        arrays = {name: array[picked] for name, array in self.arrays.items()}
        return type(self)([self.paths[i] for i in picked], arrays)


class Shard(NamedTuple):
    """One file of a set: rows `first` to `first + rows` of the whole.

    `offsets` gives, for each dataset of `layout`, the byte in the file at which
    its `rows` contiguous, little-endian, C-ordered rows start.
    """

    path: Path
    first: int
    rows: int
    offsets: dict[str, int]


@contextlib.contextmanager
def written(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file that is put to `path` when the block ends well, with its checksums.

    It is made in memory and written by us: when the disk is full, HDF5 2.0 ends
    the process by a segmentation fault while it closes the file.
    """
    options = {"driver": "core", "backing_store": False}
    alignment = {"alignment_threshold": 64, "alignment_interval": 64}
    with h5py.File(str(path), "w", **options, **alignment) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
        trailer = sums.Sums.of(memoryview(image), file).trailer
    with replacing(path) as temporary, temporary.open("wb") as stream:
        stream.write(image)
        stream.write(trailer)


def write_shard(path: Path, header: Header, rows: Rows, failures: Sequence[Failure] = ()) -> None:
    """Write one shard; afterwards it is there and whole, or (on any error) not there.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with written(path) as file:
        file.attrs["format"] = SHARD_FORMAT
        file.attrs["version"] = VERSION
        file.attrs["set"] = header.set_id
        file.attrs["settings"] = header.settings
        file.create_dataset("images/path", data=rows.paths, shape=(len(rows.paths),), dtype=TEXT)
        for name, array in rows.arrays.items():
            file.create_dataset(name, data=array)
        for i, name in enumerate(Failure._fields):
            column = [failure[i] for failure in failures]
            file.create_dataset(f"failures/{name}", data=column, shape=(len(column),), dtype=TEXT)


def read_shard(path: Path, header: Header) -> tuple[Rows, list[Failure]]:
    """All of one shard of the set that `header` describes.

    Raises:
        BadShard: it is missing, damaged, or of another set.
    """
    with opened(path, header) as (file, _):
        try:
            paths = strings(file["images/path"])
            rows = Rows(paths, {name: file[name][:] for name in header.layout})
            return rows, _failures(path, file)
        except DAMAGE:
            raise BadShard(path, "is truncated or damaged") from None


def shard_contents(path: Path, header: Header) -> tuple[list[str], list[Failure]]:
    """The paths that have rows, and the failures, of one shard.

    Raises:
        BadShard: it is missing, damaged, or of another set.
    """
    with opened(path, header) as (file, _):
        try:
            return strings(file["images/path"]), _failures(path, file)
        except DAMAGE:
            raise BadShard(path, "is truncated or damaged") from None


@contextlib.contextmanager
def opened(path: Path, header: Header) -> Iterator[tuple[h5py.File, dict[str, int]]]:
    """A shard open for reading, and its offsets, after checking all that can be wrong with it."""
    try:
        sums.check(path)
        file = h5py.File(source(path), "r")
    except FileNotFoundError:
        raise BadShard(path, "is missing") from None
    except (sums.Damaged, *DAMAGE) as error:
        why = scarcity(error)
        raise BadShard(path, f"cannot be read: {why}" if why else DAMAGED) from None
    with file:
        try:
            offsets = _checked(path, file, header)
        except DAMAGE:
            raise BadShard(path, "is truncated or damaged") from None
        yield file, offsets


def _checked(path: Path, file: h5py.File, header: Header) -> dict[str, int]:
    """Where each array begins, once the file is found to be a shard of that set."""
    if file.attrs.get("format") != SHARD_FORMAT or file.attrs.get("version") not in READ:
        versions = " or ".join(map(str, READ))
        raise BadShard(path, f"is not a {SHARD_FORMAT} file of version {versions}")
    if (file.attrs.get("set"), file.attrs.get("settings")) != (header.set_id, header.settings):
        raise BadShard(path, "belongs to another set")
    paths = file.get("images/path")
    if not isinstance(paths, h5py.Dataset) or paths.ndim != 1:
        raise BadShard(path, "has no images/path")
    return {
        name: _offset(path, file.get(name), name, (len(paths), *shape), dtype)
        for name, (shape, dtype) in header.layout.items()
    }


def _offset(path: Path, data: Any, name: str, shape: tuple[int, ...], dtype: np.dtype) -> int:
    """The byte at which a shard's dataset starts, once it is found to be as it must be."""
    if not isinstance(data, h5py.Dataset):
        raise BadShard(path, f"has no {name}")
    if data.shape != shape or data.dtype != dtype:
        raise BadShard(path, f"has {name} of {data.shape} {data.dtype}, not {shape} {dtype}")
    if shape[0] == 0:
        return 0
    offset = data.id.get_offset()
    if data.chunks is not None or offset is None:
        raise BadShard(path, f"has {name} that is not contiguous")
    if offset + data.nbytes > path.stat().st_size:
        raise BadShard(path, DAMAGED)
    return int(offset)


def strings(data: h5py.Dataset) -> list[str]:
    return list(data.asstr()[:])


def _failures(path: Path, file: h5py.File) -> list[Failure]:
    try:
        columns = [strings(file[f"failures/{name}"]) for name in Failure._fields]
        return [Failure(*row) for row in zip(*columns, strict=True)]
    except Exception as error:  # HDF5 and its text raise nearly anything on damage
        raise BadShard(path, f"{DAMAGED} (its failures: {reason(error)})") from None
