"""What a question found, as it is handed on and as a notebook shows it."""

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import NamedTuple

from cqr.pipeline import images
from cqr.search.shown import THUMB, jpeg
from cqr.search.understood import Understood
from cqr.trainer.evaluation.attended import Attended


class Hit(NamedTuple):
    """One result.

    Attributes:
        row: in the gallery.
        path: below the image folder.
        score: the dot product of two unit vectors, -1 to 1.
        file: where the picture is on this machine.
    """

    row: int
    path: str
    score: float
    file: Path

    def _repr_html_(self) -> str:
        """The picture, small, above its path and score."""
        try:
            data = b64encode(jpeg(images.decode(self.file), THUMB)).decode()
            shown = f'<img src="data:image/jpeg;base64,{data}" alt="" style="max-width:100%">'
        except images.Refused as error:
            shown = f"<i>the picture {escape(str(error))}</i>"
        return (
            '<figure style="display:inline-block;vertical-align:top;width:150px;margin:4px">'
            f'{shown}<figcaption style="font-size:11px;overflow-wrap:anywhere">'
            f"{self.score:.3f} {escape(self.path)}</figcaption></figure>"
        )


@dataclass(frozen=True)
class Answer:
    """What was found; as a sequence, its hits.

    Attributes:
        hits: best first.
        seconds: what it took, by part: "encode", "search", and those of the references.
        attended: which regions of the reference each word looks at, where that was asked for.
        understood: what became of the question's texts and pictures, and what to say of it.
    """

    hits: list[Hit]
    seconds: dict[str, float]
    attended: Attended | None = None
    understood: Understood = field(default_factory=Understood)

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know before the results, in sentences; none where all was understood."""
        return self.understood.notes

    @property
    def paths(self) -> list[str]:
        return [hit.path for hit in self.hits]

    @property
    def scores(self) -> list[float]:
        return [hit.score for hit in self.hits]

    def __len__(self) -> int:
        return len(self.hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    def __getitem__(self, place: int) -> Hit:
        return self.hits[place]

    def _repr_html_(self) -> str:
        """What is to be said first, and the pictures in a row, best first."""
        said = "".join(f"<p>{escape(note)}</p>" for note in self.notes)
        found = "".join(hit._repr_html_() for hit in self.hits)
        return said + (found or "<i>nothing was found</i>")
