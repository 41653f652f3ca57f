"""What callers mark of the results: from rows of the gallery to rows of a table, and back."""

import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime

from cqr.listing import is_utf8
from cqr.search.engine import Engine
from cqr.search.server import messages as say
from cqr.search.server.collected import Collected, Row
from cqr.search.server.guard import Refusal


@dataclass(frozen=True)
class Marking:
    """Marks on the pictures of a gallery, kept in a table; or none, where `table` is None."""

    engine: Engine
    table: Collected | None

    def mark(self, answer: say.Answer) -> say.Answers:
        """Keep an answer; it is on the disk when this returns.

        Raises:
            Refusal: nothing is kept, or it cannot be learned from.
        """
        table = self._table()
        if isinstance(answer.reference, str):
            raise Refusal(
                422,
                "an uploaded picture cannot be learned from, since its regions are not kept: mark "
                "answers to a picture of the gallery",
            )
        self._check(answer)
        reference = self._path(answer.reference)
        text = answer.text.strip()
        time = datetime.now(UTC).isoformat(timespec="seconds")
        right, wrong, back = (
            [self._path(row) for row in rows]
            for rows in (answer.right, answer.wrong, answer.taken_back)
        )
        rows = [Row(reference, text, one, "right", "", time) for one in right]
        rows += [Row(reference, text, "", "none", "", time)] if answer.none else []
        rows += [Row(reference, text, "", "wrong", one, time) for one in wrong]
        forget = {(reference, text, one) for one in back}
        if answer.none_taken_back:
            forget.add((reference, text, ""))
        return self._said(table.add(rows, forget))

    def marks(self, reference: int, text: str) -> say.Marks:
        """What is marked now of the results of a picture with a text."""
        rows = self.engine.gallery.rows
        asked = self._path(reference), text.strip()
        kept = [] if self.table is None else self.table.rows()
        mine = [row for row in kept if row[:2] == asked]
        right, wrong = (
            sorted({rows[row.picture] for row in mine if row.kind == kind and row.picture in rows})
            for kind in ("right", "wrong")
        )
        none = any(row.kind == "none" for row in mine)
        return say.Marks(right=right, wrong=wrong, none=none)

    def counts(self) -> say.Answers:
        """How many rows the table has."""
        if self.table is None:
            return say.Answers(file=None, right=0, wrong=0, none=0)
        return self._said(self.table.counts())

    def collects(self) -> say.Collects | None:
        """The table, and the command that learns from it."""
        if self.table is None:
            return None
        features = shlex.quote(str(self.engine.reader.file.path))
        table = shlex.quote(str(self.table.path))
        return say.Collects(
            file=self.table.path.name, train=f"cqr train --features {features} --data {table}"
        )

    def _said(self, counts: Counter[str]) -> say.Answers:
        assert self.table is not None
        kinds = {kind: counts[kind] for kind in ("right", "wrong", "none")}
        return say.Answers(file=self.table.path.name, **kinds)

    def _table(self) -> Collected:
        if self.table is None:
            raise Refusal(404, "this service keeps no answers: start it with --collect FILE.csv")
        return self.table

    def _path(self, row: int) -> str:
        if row >= len(self.engine.gallery):
            raise Refusal(404, f"the gallery has no picture {row}")
        return self.engine.gallery.paths[row]

    def _check(self, answer: say.Answer) -> None:
        """Raises Refusal where an answer contradicts itself."""
        marked = [*answer.right, *answer.wrong]
        why = {
            "an answer marks pictures as right or wrong, or says that none is right": not (
                marked or answer.none or answer.taken_back or answer.none_taken_back
            ),
            "none is right, and some are marked as right: leave one out": answer.none
            and bool(answer.right),
            "a picture is marked twice": len(set(marked)) < len(marked),
            "the picture that was asked about is marked too": answer.reference in marked,
            "the text cannot be kept in a table": "\0" in answer.text or not is_utf8(answer.text),
        }
        for what, so in why.items():
            if so:
                raise Refusal(422, what)
