"""Files that are either whole or not there, and folders that one process writes at a time."""

import contextlib
import hashlib
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from cqr.errors import UserError
from cqr.remote import is_remote, putting

LONGEST = 255
"""Bytes of a file name, on every file system of today."""


def begun(name: str) -> str:
    """How the temporary names of a file begin; a long name is cut, and then told by its hash."""
    if len(os.fsencode(name)) <= LONGEST - len("..12345678.partial"):
        return f".{name}."
    return f".{hashlib.sha256(os.fsencode(name)).hexdigest()[:32]}."


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; once the block ends well, it becomes `path`.

    The content is flushed to disk before the rename, and the rename before the
    return, so a kill or a power cut at any instant leaves the old file or the
    new one.  If the block raises, the temporary file is removed.  For what is remote, see
    `remote.putting`.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    if is_remote(path):
        with putting(path) as temporary:
            yield temporary
        return
    path = Path(path)
    temporary = path.with_name(f"{begun(path.name)}{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, path)
            _flush(path.parent)
        finally:
            with contextlib.suppress(OSError):  # what was raised before counts
                temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {path}: {reason}; make room or choose another place"
        ) from error


@contextlib.contextmanager
def alone(folder: Path, doing: str, otherwise: str = "") -> Iterator[None]:
    """Keep other processes of ours from a folder, which is made if it is not there.

    Args:
        doing: what another process is at that is there already, for the message.
        otherwise: what its reader can do instead of waiting.

    Raises:
        UserError: another is at it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        advice = otherwise or "make room or choose another place"
        raise UserError(f"cannot write {folder}: {error.strerror}; {advice}") from error
    with lock:
        try:
            _lock(lock)
        except OSError:
            advice = f", or {otherwise}" if otherwise else ""
            raise UserError(f"another cqr is {doing}; wait for it{advice}") from None
        yield


@contextlib.contextmanager
def alone_at(path: Path, doing: str) -> Iterator[None]:
    """Keep other processes of ours from a file, by a lock beside it that is gone afterwards.

    Raises:
        UserError: another is at it, or the folder cannot be written.
    """
    try:
        lock = _locked(path, _lock)
    except BlockingIOError:
        raise UserError(f"another cqr is {doing}; wait for it") from None
    with _gone_afterwards(lock):
        yield


@contextlib.contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Wait until nobody else of ours, thread or process, is at a file; then keep them waiting.

    The lock is a file of its own beside it, since `replacing` puts another file in its place, and
    is gone afterwards.

    Raises:
        UserError: the folder cannot be written.
    """
    with _gone_afterwards(_locked(path, _wait_for)):
        yield


def _locked(path: Path, take: Callable[[IO[str]], None]) -> IO[str]:
    """The file beside `path` that its lock is on.

    Who had it before may have removed it between our opening and our taking it: then the lock
    that we have is on no file that another could open, and another is made.

    Raises:
        BlockingIOError: `take` cannot have it.
        UserError: it cannot be made.
    """
    whole = path.absolute()  # "." has no name
    name = whole.with_name(f"{begun(whole.name)}lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            lock = name.open("w")
            try:
                take(lock)
                if os.path.samestat(os.fstat(lock.fileno()), name.stat()):
                    return lock
            except FileNotFoundError:  # of stat
                pass
            except BaseException:
                lock.close()
                raise
            lock.close()
    except BlockingIOError:
        raise
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; make room or choose another place"
        ) from error


@contextlib.contextmanager
def _gone_afterwards(lock: IO[str]) -> Iterator[None]:
    with lock:
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # of Windows, where an open file stays
                os.unlink(lock.name)


if sys.platform == "win32":  # by reading: it was not run there
    import msvcrt

    def _lock(file: IO[str]) -> None:
        """Take the lock of a file, which goes with its handle; BlockingIOError: another has it."""
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError from error

    def _wait_for(file: IO[str]) -> None:
        while True:
            try:
                return _lock(file)
            except BlockingIOError:  # there is no call that waits without an end
                time.sleep(0.05)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        """Take the lock of a file, which goes with its handle; BlockingIOError: another has it."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _wait_for(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


def _flush(path: Path) -> None:
    if sys.platform == "win32" and path.is_dir():
        return  # folders have no handle there
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
