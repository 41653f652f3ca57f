"""Which files of a folder are wanted: all pictures, by their suffix, or those on a list."""

import os
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from importlib.util import find_spec
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
HEIF = (".heic", ".heif", ".hif")
"""Pictures where pillow-heif is installed, which reads them."""

RAW = (".dng", ".nef", ".cr2", ".cr3", ".arw", ".orf", ".rw2", ".raf")

SUFFIXES = frozenset(_JPEG + _OTHERS + (HEIF if find_spec("pillow_heif") else ()))

BESIDE = frozenset(("@eaDir", "#recycle", "__MACOSX"))
"""Folders that a NAS, its bin and macOS keep beside pictures: small copies and what was deleted."""

SAID = 8
"""So many suffixes are counted out loud."""


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


class Looked(NamedTuple):
    """What lies below a folder.

    Attributes:
        paths: the pictures, relative to the folder, "/" separated, sorted.
        refused: pictures whose name cannot be stored, and folders that cannot be listed.
        notes: what was passed over, a sentence each.
    """

    paths: list[str]
    refused: list[Failure]
    notes: list[str]


def find(root: Path, skip: Path | None = None) -> tuple[list[str], list[Failure]]:
    """The first two of `look`."""
    return look(root, skip)[:2]


def look(root: Path, skip: Path | None = None, exclude: Collection[str] = ()) -> Looked:
    """The picture files under `root`, and what is none.

    A picture is known by its suffix, in any case.  Hidden files and folders are left out, and so
    are the folder `skip` (where the program itself writes), what other programs keep beside
    pictures (`BESIDE`), and what a pattern of `exclude` fits: a path below `root`, or any part of
    one, with * ? [] as in a shell.  Links are followed; each real folder is looked into once, under
    its own name where it has one below `root`.

    Raises:
        UserError: `root` is not a folder, or cannot be listed, or there is no picture.
    """
    _check_folder(root)
    walked = _walk(root, skip, exclude)
    names = sorted(name for name in walked.files if _suffix(name) in SUFFIXES)
    over = [name for name in walked.files if _suffix(name) not in SUFFIXES]
    notes = list(_notes(over, walked))
    if not names:
        passed = f"; {'; '.join(notes)}" if notes else ""
        raise UserError(
            f"no pictures in {root} (looked for {' '.join(sorted(SUFFIXES))}, in any case,"
            f" in all folders below it{passed}); name another folder with --images"
        )
    refused = [Failure(readable(n), "name is not valid UTF-8") for n in names if not is_utf8(n)]
    return Looked([n for n in names if is_utf8(n)], refused + sorted(walked.unreadable), notes)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _notes(over: list[str], walked: "_Walked") -> Iterator[str]:
    if over:
        kinds = Counter(_kind(name) for name in over).most_common()
        said = ", ".join(f"{number:,} {kind}" for kind, number in kinds[:SAID])
        more = f" and {len(kinds) - SAID} more kinds" if len(kinds) > SAID else ""
        yield f"Passed over, by their suffix: {said}{more}{_advice(dict(kinds))}"
    if walked.excluded:
        names = ", ".join(
            f"{number:,} {name}" for name, number in walked.excluded.most_common(SAID)
        )
        yield f"Left out, with all that is in them: {names}"
    if walked.again:
        yield (
            f"Linked: {walked.again:,} folders that are there under another name too; each is taken"
            " once"
        )


def _kind(name: str) -> str:
    """A suffix as it is said: of `a.jpg?w=500` it is ".jpg?"."""
    suffix = readable(_suffix(name).split("?")[0])
    if not suffix:
        return "without a suffix"
    return f"{suffix}?" if "?" in _suffix(name) else suffix


def _advice(kinds: Mapping[str, int]) -> str:
    advice = []
    if kinds.keys() & set(HEIF):
        advice.append("HEIC needs `pip install 'cqr[heic]'`")
    if kinds.keys() & set(RAW):
        advice.append("save raw pictures as JPEG or TIFF")
    if any(kind.endswith("?") or kind == "without a suffix" for kind in kinds):
        advice.append("--list takes files of any name")
    return f" ({'; '.join(advice)})" if advice else ""


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


def files(root: Path, suffixes: Collection[str]) -> tuple[list[str], list[Failure]]:
    """The files under `root` with such a suffix, as `look` finds pictures, sorted; and the folders
    that cannot be listed."""
    walked = _walk(root, None, ())
    return sorted(n for n in walked.files if _suffix(n) in suffixes), sorted(walked.unreadable)


def _check_folder(root: Path) -> None:
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; name a folder of pictures with --images")


class _Walked(NamedTuple):
    files: list[str]
    unreadable: list[Failure]
    excluded: Counter[str]
    again: int


def _walk(root: Path, skip: Path | None, exclude: Collection[str]) -> _Walked:
    """All files below a folder that are not left out.

    Links to folders wait until all real folders are done, so that these keep their own names.
    """
    seen = {_place(root)}
    ours = None
    if skip is not None and skip.is_dir() and _place(skip) not in seen:
        ours = _place(skip)
    found: list[str] = []
    unreadable: list[Failure] = []
    excluded, again = Counter[str](), 0
    folders, links = [""], deque[str]()
    while folders or links:
        linked = not folders
        prefix = links.popleft() if linked else folders.pop()
        try:
            if linked:
                place = _place(root / prefix)
                if place in seen or place == ours:
                    again += place in seen
                    continue
                seen.add(place)
            entries = list(os.scandir(root / prefix))
        except OSError as error:
            if not prefix:
                raise UserError(
                    f"cannot list {root}: {error.strerror}; give yourself access or move it away"
                ) from error
            unreadable.append(_unlisted(prefix.rstrip("/"), error))
            continue
        for entry in sorted(entries, key=lambda entry: entry.name):
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if fitting := _excluding(entry.name, name, exclude):
                excluded[fitting] += 1
            elif not _is_folder(entry):
                found.append(name)
            elif entry.is_symlink():
                links.append(f"{name}/")
            else:
                try:
                    place = _place(Path(entry.path))
                except OSError as error:  # its path is too long, or not to be looked at
                    unreadable.append(_unlisted(name, error))
                    continue
                if place != ours and place not in seen:
                    seen.add(place)
                    folders.append(f"{name}/")
    return _Walked(found, unreadable, excluded, again)


def _unlisted(folder: str, error: OSError) -> Failure:
    return Failure(readable(folder), f"the folder cannot be listed ({error.strerror})")


def _place(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _excluding(name: str, path: str, patterns: Collection[str]) -> str:
    """What a file or folder is left out for, or ""."""
    if name in BESIDE:
        return name
    for pattern in patterns:
        if fnmatchcase(name, pattern.rstrip("/")) or fnmatchcase(path, pattern.rstrip("/")):
            return pattern
    return ""


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
