"""Feature files on storage that a URL names: s3://BUCKET/NAME.h5, and whatever fsspec reaches.

A location is a `pathlib.Path`, or for a URL the `UPath` of universal_pathlib, which behaves as one
but for what only a file system of this machine has: locks, renames, memory maps.
"""

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from cqr.errors import UserError, reason

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)")
"""With any number of slashes: a `Path` that was made of a URL has lost one."""


def located(place: str | Path) -> Path:
    """The location that a path or a URL names; file:// is a path.

    Raises:
        UserError: what reaches such a URL is not installed.
    """
    if is_remote(place):
        return cast(Path, place)
    url = _URL.fullmatch(str(place))
    if url is None or Path(place).exists():
        return Path(place)
    scheme, rest = url.groups()
    if scheme == "file":
        return Path("/", rest)
    whole = f"{scheme}://{rest}"
    try:
        from upath import UPath

        path = UPath(whole, use_listings_cache=False)  # other processes write there, too
        path.fs  # noqa: B018  loads its driver
    except ImportError as error:
        raise UserError(
            f"{whole} cannot be reached ({reason(error)}): pip install 'cqr[remote]', which"
            f" brings s3://, or the package named for another kind"
        ) from None
    except Exception as error:  # of any driver
        raise UserError(f"{whole} cannot be reached ({reason(error)}): mend the URL") from error
    return cast(Path, path)


def is_remote(place: Any) -> bool:
    """Whether a location is none of this machine's file system."""
    return hasattr(place, "fs")


def source(path: Path) -> Any:
    """What h5py opens for reading: a path, or an open file of what is remote."""
    return path.open("rb") if is_remote(path) else path


def check(path: Path) -> None:
    """Ask the storage of a remote location, whether there is anything or not.

    Raises:
        UserError: it does not answer, or not to us.
    """
    if is_remote(path):
        with contextlib.suppress(FileNotFoundError), _reached(path):
            path.stat()


@contextlib.contextmanager
def putting(path: Path) -> Iterator[Path]:
    """Yield a temporary file of this machine; once the block ends well, it is put to `path`.

    An object store shows an object when all of it has come, so `path` has the old or the new.

    Raises:
        UserError: it cannot be put there.
    """
    with tempfile.TemporaryDirectory(prefix="cqr-") as folder:
        temporary = Path(folder, path.name)
        yield temporary
        try:
            with _reached(path):
                cast(Any, path).fs.put_file(str(temporary), cast(Any, path).path)
        except FileNotFoundError as error:
            raise UserError(
                f"cannot write {path} ({reason(error)}): make its bucket, or name another place"
            ) from error


@contextlib.contextmanager
def _reached(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:  # of any driver
        raise UserError(
            f"{path} cannot be reached ({reason(error)}): see that its address is right, its"
            f" server runs, and the credentials in the environment may read and write there"
        ) from error
