"""What callers marked as right or wrong, kept as a table of queries that `cqr train` takes."""

import csv
import io
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from cqr.atomic import in_turn, replacing
from cqr.errors import UserError, reason


class Row(NamedTuple):
    """A row of the table; its fields are the columns.

    Attributes:
        reference, text: what was asked; a path of the gallery, and a sentence.
        target: the picture that is right; "" for none.
        kind: "right"; "wrong", a picture that is not; or "none", no picture of the gallery is.
        wrong: that picture, else "".
        time: ISO 8601, UTC.
    """

    reference: str
    text: str
    target: str
    kind: Literal["right", "wrong", "none"]
    wrong: str
    time: str

    @property
    def picture(self) -> str:
        """What is marked; "" where it is that none is right."""
        return self.target or self.wrong


@dataclass(frozen=True)
class Collected:
    """A table that several processes add to, and take back from, at a time."""

    path: Path

    @classmethod
    def at(cls, path: Path) -> "Collected":
        """The table at a path, made if there is none.

        Raises:
            UserError: another table is there, or it cannot be read or written.
        """
        kept = cls(path.resolve())
        kept.add([])
        return kept

    def add(
        self, rows: Iterable[Row], forget: Collection[tuple[str, str, str]] = ()
    ) -> Counter[str]:
        """Append rows, all or none: a kill at any instant leaves the old table or the new one.

        Args:
            forget: (reference, text, picture) of older rows to be dropped first, in the same
                instant; a picture of "" is that none is right.

        Returns:
            The rows that there are now, by kind.

        Raises:
            UserError: another table is there by now, or it cannot be read or written.
        """
        rows = list(rows)
        with in_turn(self.path):
            old = self._read()
            kept = self._rows(old)
            if dropped := [row for row in kept if (*row[:2], row.picture) in forget]:
                kept = [row for row in kept if row not in dropped]
                old = _lines(kept, b"")
            if rows or dropped or not old:
                with replacing(self.path) as temporary:
                    temporary.write_bytes(old + _lines(rows, old))
        return Counter(row.kind for row in [*kept, *rows])

    def rows(self) -> list[Row]:
        """All rows, oldest first.  Raises UserError when the table cannot be read."""
        return self._rows(self._read())

    def counts(self) -> Counter[str]:
        """Rows by kind.  Raises UserError when the table cannot be read."""
        return Counter(row.kind for row in self.rows())

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror}") from error

    def _rows(self, content: bytes) -> list[Row]:
        if not content:
            return []
        try:
            text = io.StringIO(content.decode("utf-8-sig"), newline="")
            header, *rows = (tuple(row) for row in csv.reader(text, strict=True) if row)
        except (ValueError, csv.Error) as error:
            raise UserError(
                f"{self.path} is no table of answers ({reason(error)}): give --collect a file of "
                "its own"
            ) from error
        if header != Row._fields:
            raise UserError(
                f"{self.path} is another table, of {', '.join(header)}: give --collect a file of "
                f"its own, of {', '.join(Row._fields)}"
            )
        return [Row(*row) for row in rows if len(row) == len(header)]  # type: ignore[arg-type]


def _lines(rows: Iterable[Row], old: bytes) -> bytes:
    """The rows as CSV, to come after what is there: after a header, where there is nothing."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerows(rows if old else [Row._fields, *rows])
    between = b"" if not old or old.endswith(b"\n") else b"\n"
    return between + text.getvalue().encode()
