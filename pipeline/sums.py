"""Checksums of an HDF5 file, after its end, where HDF5 does not look.

    the file as HDF5 wrote it
    JSON       size     bytes of the file before this
               rest     sha256 of all of it but the arrays
               arrays   name to [first byte, bytes, sha256], for each that is contiguous
    sha256     of the JSON, in hexadecimal
    8 bytes    length of the JSON, little-endian
    8 bytes    MAGIC

HDF5 believes its own structures, and may follow damaged ones for minutes: so `rest`, some
kilobytes, is checked before HDF5 opens a file.  Arrays are checked by whoever asks for it.
A file without checksums (version 1, or written to by another program) is first opened by
another process, which has SECONDS for it.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py

from cqr.remote import is_remote

MAGIC = b"cqr-sums"
_HASH, _TAIL = 64, 64 + 16
BLOCK = 1 << 20

SECONDS = 2
"""Of CPU that opening a file without checksums may take, and one more for each BYTES: 0.04 are
usual."""

BYTES = 16 << 20

HOPELESS = 3
"""So many files in which opening did not end are enough: those after them are not tried."""

MEMORY = 8 << 30
"""Bytes of address space of the process that tries."""


class Damaged(Exception):
    """The message says in what a file shows that it is."""


@dataclass(frozen=True)
class Sums:
    """What a file must be; see the module."""

    size: int
    rest: str
    arrays: dict[str, tuple[int, int, str]]

    @classmethod
    def of(cls, image: memoryview, file: h5py.File) -> Self:
        """Of a file that is open, and flushed to `image`."""
        arrays = {
            name: (first, size, hashlib.sha256(image[first : first + size]).hexdigest())
            for name, first, size in _contiguous(file)
        }
        rest = hashlib.sha256()
        for first, end in _between(len(image), [span[:2] for span in arrays.values()]):
            rest.update(image[first:end])
        return cls(len(image), rest.hexdigest(), arrays)

    @property
    def trailer(self) -> bytes:
        text = json.dumps({"size": self.size, "rest": self.rest, "arrays": self.arrays}).encode()
        digest = hashlib.sha256(text).hexdigest().encode()
        return text + digest + len(text).to_bytes(8, "little") + MAGIC

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Those that a file ends with; None where it ends otherwise.

        Raises:
            Damaged: they are damaged.
            OSError: it cannot be read.
        """
        with path.open("rb") as file:
            whole = file.seek(0, os.SEEK_END)
            if whole < _TAIL:
                return None
            file.seek(whole - _TAIL)
            tail = file.read(_TAIL)
            if tail[-8:] != MAGIC:
                return None
            length = int.from_bytes(tail[_HASH : _HASH + 8], "little")
            if length > whole - _TAIL:
                raise Damaged("its checksums are damaged")
            file.seek(whole - _TAIL - length)
            text = file.read(length)
        if hashlib.sha256(text).hexdigest().encode() != tail[:_HASH]:
            raise Damaged("its checksums are damaged")
        content: dict[str, Any] = json.loads(text)
        if content["size"] != whole - _TAIL - length:
            raise Damaged("it has another size than it was written with")
        arrays = {
            name: (int(first), int(size), str(digest))
            for name, (first, size, digest) in content["arrays"].items()
        }
        return cls(content["size"], content["rest"], arrays)

    def check_rest(self, path: Path) -> None:
        """Raises Damaged if anything but the arrays is not as it was written; OSError."""
        rest = hashlib.sha256()
        spans = _between(self.size, [span[:2] for span in self.arrays.values()])
        _feed(rest, path, spans)
        if rest.hexdigest() != self.rest:
            raise Damaged("its checksum is another")

    def damaged(self, path: Path) -> list[str]:
        """The arrays that are not as they were written.  Raises OSError."""
        wrong = []
        for name, (first, size, expected) in self.arrays.items():
            found = hashlib.sha256()
            _feed(found, path, [(first, first + size)])
            if found.hexdigest() != expected:
                wrong.append(name)
        return wrong


def _contiguous(file: h5py.File) -> Iterator[tuple[str, int, int]]:
    """Name, first byte and bytes of each array that lies in one piece."""
    found: list[tuple[str, int, int]] = []

    def look(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset) or item.is_virtual or item.chunks is not None:
            return
        offset = item.id.get_offset()
        if item.dtype.kind in "iuf" and item.nbytes and offset is not None:
            found.append((name, int(offset), item.nbytes))

    file.visititems(look)
    return iter(sorted(found, key=lambda one: one[1]))


def _between(size: int, taken: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """First byte and end of what lies between spans (first byte, bytes)."""
    at = 0
    for first, length in sorted(taken):
        yield at, first
        at = first + length
    yield at, size


def _feed(
    digest: Any, path: Path, spans: Iterator[tuple[int, int]] | list[tuple[int, int]]
) -> None:
    with path.open("rb") as file:
        for first, end in spans:
            file.seek(first)
            while first < end and (block := file.read(min(BLOCK, end - first))):
                digest.update(block)
                first += len(block)


# --- before a file is opened ---------------------------------------------------------------------

_tried: dict[tuple[str, int, int], str] = {}
"""What became of files without checksums: path, time and size, to what is wrong or ""."""


def check(path: Path) -> None:
    """Whether HDF5 can open a file without coming to grief.

    Raises:
        Damaged: it cannot.
        OSError: the file cannot be read.
    """
    sums = Sums.read(path)
    if sums is not None:
        sums.check_rest(path)
        return
    if is_remote(path):  # every cqr that writes there writes checksums
        raise Damaged("it does not end with its checksums")
    end, whole = _end(path), path.stat().st_size
    if end is not None and end < whole:
        raise Damaged("its checksums are cut off")
    if end is not None and end > whole:
        raise Damaged(f"it has {whole:,} of {end:,} bytes")
    if wrong := _outcomes([path])[path]:
        raise Damaged(wrong)


def _end(path: Path) -> int | None:
    """Bytes of a file as HDF5 left it, by its own head; what follows would be the checksums."""
    with path.open("rb") as file:
        head = file.read(52)
    if head[:8] != b"\x89HDF\r\n\x1a\n" or len(head) < 52:
        return None
    at = (40, 44, 28, 28)[min(head[8], 3)]  # by the version of what the file begins with
    return int.from_bytes(head[at : at + 8], "little")


def try_at_once(paths: Sequence[Path]) -> None:
    """Have the files without checksums among these tried by one process, for `check` to know."""
    without = []
    for path in paths:
        if is_remote(path):
            continue
        try:
            if Sums.read(path) is None:
                without.append(path)
        except (Damaged, OSError):
            continue  # `check` will say so
    _outcomes(without)


def _outcomes(paths: Sequence[Path]) -> dict[Path, str]:
    keys = {path: _key(path) for path in paths}
    left = [path for path in paths if keys[path] not in _tried]
    ended = 0  # files in which it did not end
    while left and ended < HOPELESS:
        said, killed = _run(left)
        for path, line in zip(left, said, strict=False):
            _tried[keys[path]] = "" if line == "good" else "HDF5 cannot read it"
        left = left[len(said) :]
        if not killed:  # it ended of itself, or could not even begin: nothing is known against them
            break
        if left:
            ended += 1
            _tried[keys[left[0]]] = "opening it does not come to an end"
            left = left[1:]
    outcomes = {path: _tried.get(key, "") for path, key in keys.items()}
    if ended == HOPELESS:
        outcomes |= dict.fromkeys(left, "others beside it are damaged, and it is not tried")
    return outcomes


def _key(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return str(path.resolve()), status.st_mtime_ns, status.st_size


_TRY = f"""
import os, resource, sys, h5py
def most(kind, wanted):
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (wanted if hard < 0 else min(wanted, hard), hard))
most(resource.RLIMIT_AS, {MEMORY})
def look(name, item):
    dict(item.attrs)
    if isinstance(item, h5py.Dataset) and not item.is_virtual:
        item.shape, item.dtype, item.chunks, item.id.get_offset()
        if item.dtype.kind == "O":
            item.asstr()[:]
for path in sys.stdin.read().split(chr(0)):
    used = resource.getrusage(resource.RUSAGE_SELF)
    more = os.path.getsize(path) // {BYTES}
    limit = int(used.ru_utime + used.ru_stime) + 1 + {SECONDS} + more
    most(resource.RLIMIT_CPU, limit)
    try:
        with h5py.File(path, "r") as file:
            dict(file.attrs)
            file.visititems(look)
        print("good", flush=True)
    except Exception:
        print("bad", flush=True)
"""


def _run(paths: Sequence[Path]) -> tuple[list[str], bool]:
    """A word for each file until one in which it was killed, and whether it was."""
    done = subprocess.run(
        [sys.executable, "-c", _TRY],
        input="\0".join(str(path) for path in paths).encode("utf-8", "surrogateescape"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONUTF8": "1", "PYTHONIOENCODING": "utf-8:surrogateescape"},
        check=False,
    )
    return done.stdout.decode().split(), done.returncode < 0
