"""The file that joins the shards, and what HDF5 would hide.

    NAME.h5                  what users open: virtual datasets over all shards
    NAME.shards/00000.h5     see `shards`

A virtual dataset reads a source that is missing, or that it cannot open for
want of file handles, as zeros, without a word.  So `open_features` holds every
shard against what the joining file says about it, and readers of many rows
should read the shards themselves (`Shard.offsets` says where the bytes are).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cqr.errors import UserError, scarcity
from cqr.pipeline import sums
from cqr.pipeline.regions import Regions
from cqr.pipeline.shards import (
    DAMAGE,
    FORMAT,
    READ,
    TEXT,
    BadShard,
    Header,
    Rows,
    Shard,
    opened,
    strings,
    written,
)
from cqr.remote import check, located, source

if TYPE_CHECKING:  # an image library, which the trainer never loads
    from PIL import Image

BLOCK = 128
"""Pictures in memory at once: 19 MB at K = 36, D = 2048."""


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

    @cached_property
    def _row(self) -> dict[str, int]:
        return {path: row for row, path in enumerate(self.paths)}

    def regions(self, path: str) -> Regions:
        """The regions of one picture; `trainer.features` reads those of many, fast.

        Raises:
            UserError: the file has no such picture.
        """
        if path not in self._row:
            raise UserError(f"{path} is not in {self.path}: name a picture as {self.paths[0]}")
        row = self._row[path]
        shard = next(s for s in self.shards if s.first <= row < s.first + s.rows)
        width, height = self.sizes[row].tolist()
        with h5py.File(source(shard.path), "r") as file:
            at = row - shard.first
            return Regions(
                features=file["regions/features"][at].astype(np.float32),
                boxes=file["regions/boxes"][at],
                scores=file["regions/scores"][at],
                count=int(file["regions/count"][at]),
                whole=file["whole/features"][at].astype(np.float32),
                width=width,
                height=height,
            )

    def show(self, path: str) -> "Image.Image":
        """A picture with its regions drawn on it, and a caption.

        Raises:
            UserError: the file has no such picture.
        """
        from cqr.pipeline.show import drawn

        return drawn(self, path)

    def damage(self) -> list[str]:
        """What is not as it was written, a sentence each, by the checksums of all arrays.

        Files of version 1 have none.
        """
        wrong = []
        for file in (self.path, *(shard.path for shard in self.shards)):
            checksums = sums.Sums.read(file)
            if checksums is None:
                with h5py.File(source(file), "r") as content:
                    if content.attrs.get("version") != 1:
                        wrong.append(f"{file.name} has lost its checksums: it was written to since")
                continue
            wrong += [
                f"{name} of {file.name} is damaged (its checksum is another)"
                for name in checksums.damaged(file)
            ]
        return wrong

    def blocks(self) -> Iterator[Rows]:
        """All rows in their order, at most BLOCK pictures at a time, none across two shards."""
        for shard in self.shards:
            with h5py.File(source(shard.path), "r") as file:
                paths = strings(file["images/path"])
                for start in range(0, shard.rows, BLOCK):
                    block = slice(start, start + BLOCK)
                    arrays = {name: file[name][block] for name in self.header.layout}
                    yield Rows(paths[block], arrays)


def shards_folder(out: Path) -> Path:
    """Where the shards of the feature file `out` lie: NAME.shards beside NAME.h5."""
    return out.with_name(f"{out.stem}.shards")


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
        with opened(shard, header) as (file, _):
            names = strings(file["images/path"])
            sizes.append(file["images/size"][:])
        paths += names
        if names:
            used.append((shard.name, len(names)))

    with written(out) as file:
        file.attrs.update(header.attributes())
        file.attrs["shards"] = shards_folder(out).name
        file.create_dataset("shards/file", data=[name for name, _ in used], dtype=TEXT)
        file.create_dataset("shards/rows", data=np.array([rows for _, rows in used], "<i8"))
        file.create_dataset("images/path", data=paths, dtype=TEXT)
        file.create_dataset("images/size", data=np.concatenate(sizes))
        for name, (shape, dtype) in header.layout.items():
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


def open_features(path: Path, verify: bool = False) -> FeatureFile:
    """Open a feature file, having checked that every shard is there, whole, and of this set.

    Values are not read, unless asked for: `cqr inspect` does that.

    Args:
        verify: also hold every array against its checksum, which reads them all.

    Raises:
        UserError: the file or one of its shards is missing, truncated, of another
            version or from another set; the sentence names the command that mends it.
    """
    path = located(path)
    check(path)
    try:
        sums.check(path)
        file = h5py.File(source(path), "r")
    except FileNotFoundError:
        raise UserError(
            f"no feature file {path}; make it with: cqr extract --images DIR --out {path}"
        ) from None
    except sums.Damaged as error:
        raise UserError(
            f"{path} is truncated or no feature file ({error}); make it again with: cqr extract"
            f" --images DIR --out {path}"
        ) from None
    except DAMAGE as error:
        if why := scarcity(error):
            raise UserError(f"cannot read {path}: {why}") from None
        raise UserError(
            f"{path} is truncated or no feature file ({_first_line(error)}); make it again with:"
            f" cqr extract --images DIR --out {path}"
        ) from None
    with file:
        header = _header(path, file)
        mend = f"make it again with: {header.command} --out {path}"
        try:
            paths = strings(file["images/path"])
            sizes = file["images/size"][:]
            folder = path.parent / str(file.attrs["shards"])
            table = list(zip(strings(file["shards/file"]), file["shards/rows"][:], strict=True))
        except DAMAGE as error:
            raise UserError(f"{path} is damaged ({_first_line(error)}); {mend}") from None
    sums.try_at_once([folder / name for name, _ in table])
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
    opened_file = FeatureFile(path, header, paths, sizes, shards)
    if verify and (wrong := opened_file.damage()):
        raise UserError(f"{wrong[0]}; {mend} --overwrite")
    return opened_file


def _shard(path: Path, header: Header, first: int, rows: int) -> Shard:
    with opened(path, header) as (file, offsets):
        found: int = len(file["images/path"])
    if found != rows:
        raise BadShard(path, f"has {found} rows, not {rows}")
    return Shard(path, first, rows, offsets)


def _header(path: Path, file: h5py.File) -> Header:
    try:
        format, version = file.attrs.get("format"), file.attrs.get("version")
    except DAMAGE:
        format = version = None
    if format != FORMAT:
        raise UserError(
            f"{path} is not a feature file; make one with: cqr extract --images DIR --out FILE"
        )
    if version not in READ:
        raise UserError(
            f"{path} is of version {version}, this cqr reads {' and '.join(map(str, READ))}: update"
            f" cqr, or extract again with --overwrite"
        )
    try:
        return Header.of(file.attrs)
    except DAMAGE as error:
        raise UserError(
            f"{path} is damaged (attribute {_first_line(error)}); extract again with --overwrite"
        ) from None


def _first_line(error: BaseException) -> str:
    return str(error).split("\n", 1)[0]
