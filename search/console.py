"""What `cqr index` and `cqr search` print: results on stdout, the rest on stderr."""

import contextlib
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from rich.columns import Columns
from rich.console import Console, Group
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from cqr.progress import bar
from cqr.search.answer import Answer
from cqr.search.engine import Engine
from cqr.search.question import Question

if TYPE_CHECKING:
    from cqr.search.build import Built

results = Console(highlight=False, markup=False)
notes = Console(stderr=True, highlight=False, markup=False)

THUMB = 28
"""Characters across a picture in the terminal, and its pixels at most either way."""


@contextlib.contextmanager
def bars(visible: bool = True, spoken: bool = False) -> Iterator[Any]:
    """A function of (what, done, total) that draws a bar for each thing that is counted.

    Args:
        spoken: where no bar is drawn, as in a pipe, say a line now and then instead.
    """
    if spoken and not notes.is_terminal:
        yield _Spoken()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with bar(*columns, console=notes, visible=visible, transient=True) as shown:
        tasks: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            task = tasks.setdefault(what, None)
            if task is None:
                task = tasks[what] = shown.add_task(what, total=total)
            shown.update(task, completed=done, total=total)

        yield progress


@dataclass
class _Spoken:
    """Says at once what is begun, then every tenth of it, a second apart at least."""

    said: tuple[str, int] = ("", 0)
    time: float = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // max(total, 1)
        if total == 0 or (what, tenth) == self.said:
            return
        if what == self.said[0] and done < total and monotonic() - self.time < 1:
            return
        self.said, self.time = (what, tenth), monotonic()
        say(f"{what} {done:,} of {total:,}")


def say(line: str) -> None:
    notes.print(line, soft_wrap=True)


def print_built(built: "Built", index: str, first: tuple[str, str]) -> None:
    """What became of the gallery, the name of its index, and a first question.

    Args:
        first: a picture and a text; see `suggestions.first`.
    """
    g = built.gallery
    if built.anew:
        notes.print(f"Encoded all anew: {built.anew}", style="yellow", soft_wrap=True)
    if built.absent:
        said = f"Left out {built.absent:,} pictures that have regions but whose files are gone"
        notes.print(said, style="yellow", soft_wrap=True)
    print(f"{g.folder}: {len(g):,} vectors of {g.vectors.shape[1]}, {index} index")
    print(f"Encoded {built.computed:,} pictures, kept {built.kept:,}, dropped {built.dropped:,}")
    for note in built.notes:
        print(f"Metadata: {note}")
    path, text = first
    asked = f" --text {quoted(text)}" if text else ""
    print(f"Next: cqr search --image {shlex.quote(path)}{asked}")


def print_answer(answer: Answer, engine: Engine) -> None:
    """What was not understood, a table of ranked paths and scores, and how long it took."""
    for note in answer.notes:
        notes.print(note, style="yellow", soft_wrap=True)
    table = Table()
    for name in ("rank", "score"):
        table.add_column(name, justify="right")
    table.add_column("picture", overflow="fold")
    for rank, hit in enumerate(answer.hits, start=1):
        table.add_row(str(rank), f"{hit.score:.4f}", hit.path)
    results.print(table)
    if not answer.hits:
        notes.print("Nothing was found: no picture of the gallery meets the conditions")
    elif draws():
        results.print(_thumbnails(answer, engine))
    parts = ", ".join(f"{part} {1000 * spent:.1f} ms" for part, spent in answer.seconds.items())
    notes.print(
        f"{len(engine.gallery):,} pictures, {engine.index.name} index: {parts}", soft_wrap=True
    )


def draws() -> bool:
    """Whether pictures can be drawn: in a terminal of true colours, unless NO_COLOR is set."""
    return results.is_terminal and results.color_system == "truecolor" and not results.no_color


def quoted(text: str) -> str:
    """A text as a shell takes it, in the quotes that a reader expects."""
    return f'"{text}"' if re.fullmatch(r"[\w ,.'-]+", text) else shlex.quote(text)


def _thumbnails(answer: Answer, engine: Engine) -> Columns:
    """The pictures in coloured half characters, side by side, each under its rank."""
    from PIL import Image
    from rich_pixels import Pixels

    from cqr.pipeline import images

    shown: list[Group] = []
    for rank, hit in enumerate(answer.hits, start=1):
        try:
            image = Image.fromarray(images.decode(engine.file(hit.row)))
        except images.Refused as error:
            shown.append(Group(str(rank), str(error)))
            continue
        image.thumbnail((THUMB, THUMB))
        even = image.width, image.height + image.height % 2  # two pixels to a character
        shown.append(Group(str(rank), Pixels.from_image(image.resize(even))))
    return Columns(shown, width=THUMB)


def print_json(answer: Answer, question: Question, engine: Engine) -> None:
    """The same as one JSON object; a file is where the picture lies on this machine."""
    said = {
        "run": str(engine.run.path),
        "index": engine.index.name,
        "references": [r.name for r in question.references],
        "texts": [{"text": t.text, "weight": t.weight} for t in question.texts],
        "not": list(question.nots),
        "where": question.where,
        "notes": list(answer.notes),
        "understood": [
            {"text": t.text, "unknown": t.unknown, "cut": t.cut} for t in answer.understood.texts
        ],
        "new_pictures": [
            {
                "name": r.name,
                "objects": r.sight.objects,
                "boxes": r.sight.boxes.astype(float).round(5).tolist(),
                "unlike_the_gallery": r.sight.outside,
                "nearest": r.sight.nearest,
                "usual": r.sight.usual,
            }
            for r in question.references
            if r.sight is not None
        ],
        "hits": [
            {"rank": rank, "path": hit.path, "score": hit.score, "file": str(engine.file(hit.row))}
            for rank, hit in enumerate(answer.hits, start=1)
        ],
        "seconds": answer.seconds,
    }
    print(json.dumps(said, ensure_ascii=False, indent=1))
