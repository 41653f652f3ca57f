"""Files that are either whole or not there."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cqr.errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; once the block ends well, it becomes `path`.

    The content is flushed to disk before the rename, and the rename before the
    return, so a kill or a power cut at any instant leaves the old file or the
    new one.  If the block raises, the temporary file is removed.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"cannot write {path}: {reason}; make room or choose another place"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
