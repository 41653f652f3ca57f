"""The feature file: shards, the file that joins them, and what HDF5 would hide.

    NAME.h5                  what users open: virtual datasets over all shards
    NAME.shards/00000.h5     contiguous and uncompressed, so that a reader can map it

A virtual dataset reads a source that is missing, or that it cannot open for
want of file handles, as zeros, without a word.  So `open_features` holds every
shard against what the joining file says about it, and readers of many rows
should read the shards themselves (`Shard.offsets` says where the bytes are).
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from cqr.atomic import replacing
from cqr.errors import UserError

FORMAT = "cqr-regions"
SHARD_FORMAT = "cqr-regions-shard"
VERSION = 1

_TEXT = h5py.string_dtype("utf-8")


def layout(k: int, dim: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Each numeric dataset of a file: its name, the shape of one row, its dtype."""
    return {
        "images/size": ((2,), np.dtype("<i4")),  # width, height
        "regions/features": ((k, dim), np.dtype("<f2")),
        "regions/boxes": ((k, 4), np.dtype("<f4")),  # x1, y1, x2, y2 in pixels
        "regions/scores": ((k,), np.dtype("<f4")),
        "regions/count": ((), np.dtype("<i4")),
        "whole/features": ((dim,), np.dtype("<f2")),
    }


@dataclass(frozen=True)
class Header:
    """What all shards of one set share, and the attributes of the joining file.

    Attributes:
        set_id: made once, with the plan; a shard of another set has another.
        created: ISO 8601, UTC.
        k, dim: K and D.
        detector: the detector's identity.
        image_root: absolute folder that the paths are relative to.
        command: makes the file again, but for `--out FILE`.
        made_by: version of cqr.
        warning: what the user was warned of when the detector was chosen, or "".
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

    @property
    def settings(self) -> str:
        """A hash of all that decides the numbers."""
        parts = {"k": self.k, "dim": self.dim, "detector": self.detector}
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
        )


class BadShard(Exception):
    """A shard that cannot be used; `reason` completes "shard X ..."."""

    def __init__(self, shard: Path, reason: str):
        super().__init__(shard, reason)
        self.shard = shard
        self.reason = reason

    def __str__(self) -> str:
        return f"shard {self.shard} {self.reason}"


class Failure(NamedTuple):
    """A file that could not be used; both fields are valid UTF-8."""

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class Rows:
    """Pictures as they lie in a shard: `paths`, and the arrays named in `layout`."""

    paths: list[str]
    arrays: dict[str, NDArray[Any]]

    @classmethod
    def empty(cls, k: int, dim: int, rows: int) -> Self:
        arrays = {name: np.zeros((rows, *s), t) for name, (s, t) in layout(k, dim).items()}
        return cls([""] * rows, arrays)

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


@dataclass(frozen=True, eq=False)
class FeatureFile:
    """A feature file whose shards are all there, whole, and of one set.

    Attributes:
        path: the file that was opened.
        header: everything its attributes say.
        paths: N paths relative to `image_root`, "/" separated, unique.
        sizes: N x 2 int32, width and height of the upright pictures.
        shards: in order of their rows.
    """

    path: Path
    header: Header
    paths: list[str]
    sizes: NDArray[np.int32]
    shards: list[Shard]

    @property
    def k(self) -> int:
        return self.header.k

    @property
    def dim(self) -> int:
        return self.header.dim

    @property
    def detector(self) -> dict[str, Any]:
        return self.header.detector

    @property
    def image_root(self) -> str:
        return self.header.image_root


def shards_folder(out: Path) -> Path:
    """Where the shards of the feature file `out` lie: NAME.shards beside NAME.h5."""
    return out.with_name(f"{out.stem}.shards")


@contextlib.contextmanager
def _written(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file that is put to `path` when the block ends well.

    It is made in memory and written by us: when the disk is full, HDF5 2.0 ends
    the process by a segmentation fault while it closes the file.
    """
    options = {"driver": "core", "backing_store": False}
    alignment = {"alignment_threshold": 64, "alignment_interval": 64}
    with h5py.File(path, "w", **options, **alignment) as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    with replacing(path) as temporary:
        temporary.write_bytes(image)


# --- one shard ---------------------------------------------------------------------------------


def write_shard(path: Path, header: Header, rows: Rows, failures: Sequence[Failure] = ()) -> None:
    """Write one shard; afterwards it is there and whole, or (on any error) not there.

    Raises:
        UserError: the disk is full or the folder cannot be written.
    """
    with _written(path) as file:
        file.attrs["format"] = SHARD_FORMAT
        file.attrs["version"] = VERSION
        file.attrs["set"] = header.set_id
        file.attrs["settings"] = header.settings
        file.create_dataset("images/path", data=rows.paths, shape=(len(rows.paths),), dtype=_TEXT)
        for name, array in rows.arrays.items():
            file.create_dataset(name, data=array)
        for i, name in enumerate(Failure._fields):
            column = [failure[i] for failure in failures]
            file.create_dataset(f"failures/{name}", data=column, shape=(len(column),), dtype=_TEXT)


def read_shard(path: Path, header: Header) -> tuple[Rows, list[Failure]]:
    """All of one shard of the set that `header` describes.

    Raises:
        BadShard: it is missing, damaged, or of another set.
    """
    with _opened(path, header) as (file, _):
        paths = _strings(file["images/path"])
        rows = Rows(paths, {name: file[name][:] for name in layout(header.k, header.dim)})
        return rows, _failures(file)


def shard_contents(path: Path, header: Header) -> tuple[list[str], list[Failure]]:
    """The paths that have rows, and the failures, of one shard.

    Raises:
        BadShard: it is missing, damaged, or of another set.
    """
    with _opened(path, header) as (file, _):
        return _strings(file["images/path"]), _failures(file)


@contextlib.contextmanager
def _opened(path: Path, header: Header) -> Iterator[tuple[h5py.File, dict[str, int]]]:
    """A shard open for reading, and its offsets, after checking all that can be wrong with it."""
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise BadShard(path, "is missing") from None
    except OSError:
        raise BadShard(path, "is truncated or damaged") from None
    with file:
        if file.attrs.get("format") != SHARD_FORMAT or file.attrs.get("version") != VERSION:
            raise BadShard(path, f"is not a {SHARD_FORMAT} file of version {VERSION}")
        if (file.attrs.get("set"), file.attrs.get("settings")) != (header.set_id, header.settings):
            raise BadShard(path, "belongs to another set")
        paths = file.get("images/path")
        if not isinstance(paths, h5py.Dataset) or paths.ndim != 1:
            raise BadShard(path, "has no images/path")
        expected = layout(header.k, header.dim)
        offsets = {
            name: _offset(path, file.get(name), name, (len(paths), *shape), dtype)
            for name, (shape, dtype) in expected.items()
        }
        yield file, offsets


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
        raise BadShard(path, "is truncated or damaged")
    return int(offset)


def _strings(data: h5py.Dataset) -> list[str]:
    return list(data.asstr()[:])


def _failures(file: h5py.File) -> list[Failure]:
    columns = [_strings(file[f"failures/{name}"]) for name in Failure._fields]
    return [Failure(*row) for row in zip(*columns, strict=True)]


# --- the file that joins them --------------------------------------------------------------------


def join(out: Path, header: Header, shards: Sequence[Path]) -> int:
    """Write `out`, one array over all shards that have rows; give the number of rows.

    Raises:
        BadShard: one of the shards is missing, damaged, or of another set.
        UserError: the disk is full or the folder cannot be written.
    """
    paths: list[str] = []
    sizes: list[NDArray[np.int32]] = [np.zeros((0, 2), "<i4")]
    used: list[tuple[str, int]] = []  # file name, number of rows
    for shard in shards:
        with _opened(shard, header) as (file, _):
            names = _strings(file["images/path"])
            sizes.append(file["images/size"][:])
        paths += names
        if names:
            used.append((shard.name, len(names)))

    with _written(out) as file:
        file.attrs.update(header.attributes())
        file.attrs["shards"] = shards_folder(out).name
        file.create_dataset("shards/file", data=[name for name, _ in used], dtype=_TEXT)
        file.create_dataset("shards/rows", data=np.array([rows for _, rows in used], "<i8"))
        file.create_dataset("images/path", data=paths, dtype=_TEXT)
        file.create_dataset("images/size", data=np.concatenate(sizes))
        for name, (shape, dtype) in layout(header.k, header.dim).items():
            if name != "images/size":
                whole = _virtual(name, shape, dtype, used, shards_folder(out).name)
                file.create_virtual_dataset(name, whole)
    return len(paths)


def _virtual(
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    used: Sequence[tuple[str, int]],
    folder: str,
) -> h5py.VirtualLayout:
    whole = h5py.VirtualLayout((sum(rows for _, rows in used), *shape), dtype)
    # Relative to the joining file; HDF5 takes a lone % for the start of a pattern.
    pattern = folder.replace("%", "%%")
    first = 0
    for file, rows in used:
        source = h5py.VirtualSource(f"{pattern}/{file}", name, (rows, *shape), dtype)
        whole[first : first + rows] = source
        first += rows
    return whole


def open_features(path: Path) -> FeatureFile:
    """Open a feature file, having checked that every shard is there, whole, and of this set.

    Values are not read: `cqr inspect` does that.

    Raises:
        UserError: the file or one of its shards is missing, truncated, of another
            version or from another set; the sentence names the command that mends it.
    """
    path = Path(path)
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise UserError(
            f"no feature file {path}; make it with: cqr extract --images DIR --out {path}"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} is truncated or no feature file ({_first_line(error)}); make it again with:"
            f" cqr extract --images DIR --out {path}"
        ) from None
    with file:
        header = _header(path, file)
        mend = f"make it again with: {header.command} --out {path}"
        try:
            paths = _strings(file["images/path"])
            sizes = file["images/size"][:]
            folder = path.parent / str(file.attrs["shards"])
            table = list(zip(_strings(file["shards/file"]), file["shards/rows"][:], strict=True))
        except (KeyError, OSError, ValueError) as error:
            raise UserError(f"{path} is damaged ({_first_line(error)}); {mend}") from None
    shards = []
    bad = []
    first = 0
    for name, rows in table:
        try:
            shards.append(_shard(folder / name, header, first, int(rows)))
        except BadShard as error:
            bad.append(error)
        first += int(rows)
    if bad:
        more = f", and {len(bad) - 1} more cannot be used" if len(bad) > 1 else ""
        raise UserError(
            f"shard {bad[0].shard} of {path} {bad[0].reason}{more} (HDF5 would read zeros); {mend}"
        )
    if not len(paths) == len(sizes) == first:
        raise UserError(f"{path} names {len(paths)} pictures, its shards hold {first}; {mend}")
    return FeatureFile(path, header, paths, sizes, shards)


def _shard(path: Path, header: Header, first: int, rows: int) -> Shard:
    with _opened(path, header) as (file, offsets):
        found = len(file["images/path"])
    if found != rows:
        raise BadShard(path, f"has {found} rows, not {rows}")
    return Shard(path, first, rows, offsets)


def _header(path: Path, file: h5py.File) -> Header:
    if file.attrs.get("format") != FORMAT:
        raise UserError(
            f"{path} is not a feature file; make one with: cqr extract --images DIR --out FILE"
        )
    version = file.attrs.get("version")
    if version != VERSION:
        raise UserError(
            f"{path} is of version {version}, this cqr reads {VERSION}: update cqr, or extract"
            f" again with --overwrite"
        )
    try:
        return Header.of(file.attrs)
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{path} is damaged (attribute {_first_line(error)}); extract again with --overwrite"
        ) from None


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]
