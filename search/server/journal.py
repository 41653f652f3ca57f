"""A line of JSON for each request, as `cqr serve --log` keeps them."""

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from starlette.types import Scope

from cqr.errors import UserError


class Journal:
    """Adds lines to a text file that is open; that one cannot be written stops no answer."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._failed = False

    @classmethod
    def at(cls, path: Path) -> "Journal":
        """Add to a file, or print, where the path is "-".

        Raises:
            UserError: it cannot be written.
        """
        if str(path) == "-":
            return cls(sys.stdout)
        try:
            return cls(path.open("a", encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"cannot write {path}: {error.strerror}; choose another --log"
            ) from error

    def add(self, scope: Scope, status: int, began: float, received: int, sent: int) -> None:
        """A request: what came of it, in seconds since `began` (`perf_counter`), and its bytes."""
        self.line(
            client=(scope.get("client") or [None])[0],
            method=scope["method"],
            path=scope["path"],
            status=status,
            seconds=round(time.perf_counter() - began, 6),
            received=received,
            sent=sent,
        )

    def line(self, **said: object) -> None:
        """A line of what is said, with the time."""
        when = datetime.now(UTC).isoformat(timespec="milliseconds")
        try:
            self._file.write(json.dumps({"time": when, **said}) + "\n")
            self._file.flush()
        except OSError as error:
            if not self._failed:
                print(f"cannot write the log: {error.strerror}; going on", file=sys.stderr)
            self._failed = True
