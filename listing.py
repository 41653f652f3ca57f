"""Which files of a folder are wanted: all pictures, by their suffix, or those on a list."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
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


class Listed(NamedTuple):
    """What a list of pictures names.

    Attributes:
        paths: those that are there, relative to the folder, sorted, each once.
        missing: those that are not.
        repeated: lines that name a picture again.
    """

    paths: list[str]
    missing: list[Failure]
    repeated: int


def find(root: Path, skip: Path | None = None) -> tuple[list[str], list[Failure]]:
    """The picture files under `root`, and those whose name cannot be stored.

    Paths are relative to `root`, "/" separated, sorted.  A picture is known by
    its suffix, in any case.  Hidden files and folders are left out, and so is
    the folder `skip` (where the program itself writes).  Links are followed,
    except to a folder that the link lies in.

    Raises:
        UserError: `root` is not a folder, one in it cannot be listed, or there is no picture.
    """
    _check_folder(root)
    names = files(root, SUFFIXES, skip)
    paths = [name for name in names if is_utf8(name)]
    refused = [Failure(readable(n), "name is not valid UTF-8") for n in names if not is_utf8(n)]
    if not names:
        raise UserError(
            f"no pictures in {root} (looked for {' '.join(sorted(SUFFIXES))}, in any case,"
            f" in all folders below it); name another folder with --images"
        )
    return paths, refused


def listed(root: Path, file: Path) -> Listed:
    """The pictures under `root` that `file` names, a path relative to `root` on each line.

    Blank lines are passed over, and so is a "./" in front.  No suffix is asked
    for, and nothing else under `root` is looked at.

    Raises:
        UserError: `root` is not a folder; `file` cannot be read, is no text in
            UTF-8, names nothing, or something that does not lie under `root`.
    """
    _check_folder(root)
    named = []
    for number, line in enumerate(lines(file), 1):
        if not line.strip():
            continue
        path = PurePosixPath(line)
        if path.is_absolute() or ".." in path.parts or "\0" in line:
            raise UserError(
                f"line {number} of {file}, {line!r}, cannot be a picture in {root}; list paths"
                f" relative to that folder, without .."
            )
        named.append(str(path))
    if not named:
        raise UserError(f"{file} names no picture; write one path relative to {root} on each line")
    paths, missing = [], []
    for name in sorted(set(named)):
        if os.path.lexists(root / name):
            paths.append(name)
        else:
            missing.append(Failure(name, f"is listed in {file} but not there"))
    return Listed(paths, missing, len(named) - len(paths) - len(missing))


def lines(file: Path) -> list[str]:
    """The lines of a UTF-8 text file, with ends of either kind, without a byte-order mark.

    Raises:
        UserError: it cannot be read, or is not UTF-8.
    """
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"line {line} of {file} is not UTF-8; save the file as UTF-8") from None
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n")


def files(root: Path, suffixes: Collection[str], skip: Path | None = None) -> list[str]:
    """The files under `root` with such a suffix, as `find` finds pictures, sorted."""
    left_out = None if skip is None or skip.resolve() == root.resolve() else skip.resolve()
    return sorted(_walk(root, suffixes, "", (root.resolve(),), left_out))


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; name a folder of pictures with --images")


def _walk(
    folder: Path, suffixes: Collection[str], prefix: str, above: tuple[Path, ...], skip: Path | None
) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(
            f"cannot list {folder}: {error.strerror}; give yourself access or move it away"
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = Path(entry.path)
        if _is_folder(entry):
            real = path.resolve()
            if real != skip and real not in above:
                yield from _walk(path, suffixes, f"{prefix}{entry.name}/", (*above, real), skip)
        elif os.path.splitext(entry.name)[1].lower() in suffixes:
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
