"""Find the picture files of a folder, by their names alone."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cqr.errors import UserError

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
_OTHERS = (
    ".png",
    ".webp",
    ".avif",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
)
SUFFIXES = frozenset(_JPEG + _OTHERS)


class Failure(NamedTuple):
    """A file that could not be used; both fields are valid UTF-8."""

    path: str
    reason: str


def find(
    root: Path, skip: Path | None = None, may_lack: bool = False
) -> tuple[list[str], list[Failure]]:
    """The picture files under `root`, and those whose name cannot be stored.

    Paths are relative to `root`, "/" separated, sorted.  A picture is known by
    its suffix, in any case.  Hidden files and folders are left out, and so is
    the folder `skip` (where the program itself writes).  Links are followed,
    except to a folder that the link lies in.

    Raises:
        UserError: `root` is not a folder, one in it cannot be listed, or there is no
            picture and it may not lack them.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; name a folder of pictures with --images")
    left_out = None if skip is None or skip.resolve() == root.resolve() else skip.resolve()
    names = sorted(_walk(root, "", (root.resolve(),), left_out))
    paths = [name for name in names if is_utf8(name)]
    refused = [Failure(readable(n), "name is not valid UTF-8") for n in names if not is_utf8(n)]
    if not names and not may_lack:
        raise UserError(
            f"no pictures in {root} (looked for {' '.join(sorted(SUFFIXES))}, in any case,"
            f" in all folders below it); name another folder with --images"
        )
    return paths, refused


def _walk(folder: Path, prefix: str, above: tuple[Path, ...], skip: Path | None) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(
            f"cannot list {folder}: {error.strerror}; give yourself access or move it away"
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            real = Path(entry.path).resolve()
            if real != skip and real not in above:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, real), skip)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
