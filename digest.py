"""The sha256 of files: which weights these are, and whether they are those that were meant."""

import hashlib
from pathlib import Path

from cqr.errors import UserError


def sha256(path: Path) -> str:
    """In hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_packaged(path: Path, expected: str, package: str) -> None:
    """Whether a file that came with a package is the one that cqr was measured with.

    Args:
        expected: its sha256, in hexadecimal.
        package: by the name that pip knows.

    Raises:
        UserError: it is absent, or another.
    """
    found = sha256(path) if path.is_file() else "absent"
    if found != expected:
        raise UserError(
            f"{path} is not the file that cqr knows of {package} (sha256 {found[:16]}, not "
            f"{expected[:16]}): pip install --force-reinstall --no-deps {package}"
        )
