"""The texts of changes that a table of attributes or captions holds: templates, filled in."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cqr.errors import UserError
from cqr.trainer.datasets.layout import lines_of

OF_COLUMNS = ("in {new}", "make it {new}", "{new} instead of {old}", "change {column} to {new}")
OF_WORDS = ("replace {old} with {new}", "{new} instead of {old}", "make it {new}")
_GAP = re.compile(r"\{([^{}]*)\}")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True)
class Change:
    """What is to be different.

    Attributes:
        column: whose value it is; "" for words of a caption.
        old, new: the values, or the words.
    """

    column: str
    old: str
    new: str


@dataclass(frozen=True)
class Templates:
    """Texts with {new}, {old} and {column} to be filled in.

    Attributes:
        common: for every change; the first is the test's.
        own: for changes of one column, in place of the common ones, by the column.
    """

    common: tuple[str, ...]
    own: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def of(self, change: Change) -> tuple[str, ...]:
        return self.own.get(change.column, self.common)

    def drawn(self, change: Change, at: float) -> str:
        """The text by one of them: the first where `at`, in [0, 1), is least."""
        templates = self.of(change)
        return filled(templates[int(at * len(templates))], change)

    def words(self, columns: Sequence[str]) -> Iterator[str]:
        """Texts that hold every word of them but those of values."""
        for column in columns or [""]:
            nothing = Change(column, "", "")
            yield from (filled(template, nothing) for template in self.of(nothing))


def filled(template: str, change: Change) -> str:
    """A template with a change filled in."""
    said = {"new": change.new, "old": change.old, "column": spoken(change.column)}
    return _GAP.sub(lambda gap: said[gap[1]], template)


def spoken(column: str) -> str:
    """The name of a column as a text has it: "base colour" of baseColour or base_colour."""
    return " ".join(re.split(r"[\s_-]+", _CAMEL.sub(" ", column))).strip().lower()


def read(path: Path, columns: Sequence[str]) -> Templates:
    """Templates from a file, one a line.

    A line that begins with the name of a column and a colon is for that column alone.

    Args:
        columns: that can change; none where words of captions do.

    Raises:
        UserError: it cannot be read, has a gap that is none of these, or a line without {new}; or
            a column has no template.
    """
    common: list[str] = []
    own: dict[str, list[str]] = {}
    gaps = {"new", "old"} | ({"column"} if columns else set())
    for number, line in lines_of(path):
        name, colon, rest = line.partition(":")
        mine = colon and name.strip() in columns
        template = (rest if mine else line).strip()
        found = set(_GAP.findall(template))
        if "new" not in found or found - gaps:
            known = " or ".join(f"{{{gap}}}" for gap in sorted(gaps - {"new"}))
            raise UserError(
                f"{path} line {number} is no template ({template!r}): it needs {{new}} and may "
                f"have {known}"
            )
        (own.setdefault(name.strip(), []) if mine else common).append(template)
    lacking = [column for column in columns or [""] if not common and column not in own]
    if lacking:
        raise UserError(
            f"{path} has no template" + (f" for {lacking[0]}: add one" if lacking[0] else "")
        )
    return Templates(tuple(common), {column: tuple(some) for column, some in own.items()})
