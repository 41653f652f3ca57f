"""What the routes share: an engine, the pictures that are shown, and the threads that work."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TypeVar

from fastapi import Response

from cqr.listing import is_utf8
from cqr.pipeline import images
from cqr.search.engine import Engine
from cqr.search.question import Question, Reference, WeightedText
from cqr.search.server import messages as say
from cqr.search.server.collected import Collected, Row
from cqr.search.server.guard import Refusal
from cqr.search.server.limits import Limits
from cqr.search.server.suggestions import Suggestions
from cqr.search.shown import LARGE, Shown, Upload, Uploads, jpeg

T = TypeVar("T")


class Threads:
    """Work in a few threads, of which each piece is waited for so long and no longer.

    A piece that has begun goes on to its end and keeps its thread; one that waits is dropped.
    """

    def __init__(self, number: int, seconds: float) -> None:
        self._pool = ThreadPoolExecutor(number)
        self._seconds = seconds

    async def do(self, work: Callable[[], T]) -> T:
        waiting = asyncio.get_running_loop().run_in_executor(self._pool, work)
        try:
            return await asyncio.wait_for(waiting, self._seconds)
        except TimeoutError:
            raise Refusal(503, f"this took longer than {self._seconds:g} s: try again") from None


class Service:
    """All that the routes do, but for HTTP.

    Attributes:
        engine: what is asked.
        suggestions: texts to try.
        limits: on what callers may ask.
        collected: the table of answers that are kept; None where none are.
        asking, showing: the threads for questions, and for small pictures.
    """

    def __init__(
        self,
        engine: Engine,
        suggestions: Suggestions,
        limits: Limits,
        collected: Collected | None = None,
    ) -> None:
        self.engine, self.suggestions, self.limits = engine, suggestions, limits
        self.collected = collected
        self.uploads = Uploads(limits.uploads)
        self.shown = Shown(limits.cache_bytes)
        self.asking = Threads(limits.threads, limits.seconds)
        self.showing = Threads(limits.threads, limits.seconds)

    def check_row(self, row: int) -> int:
        """Raises Refusal where the gallery has no such row."""
        if row >= len(self.engine.gallery):
            raise Refusal(404, f"the gallery has no picture {row}")
        return row

    def upload(self, name: str) -> Upload:
        """Raises Refusal where there is none of that name."""
        found = self.uploads.get(name)
        if found is None:
            raise Refusal(404, "this uploaded picture is no longer kept: upload it again")
        return found

    def reference(self, image: int | str) -> Reference:
        """The picture of a row or of an upload."""
        if isinstance(image, str):
            return self.upload(image).reference
        return self.engine.row(self.check_row(image))

    def receive(self, body: bytes) -> say.Upload:
        """Take in a picture that a caller gave."""
        began = time.perf_counter()
        try:
            pixels = images.decode(body, self.limits.upload_pixels)
        except images.Refused as error:
            raise Refusal(422, f"this file {error}") from None
        decoded = time.perf_counter() - began
        reference = self.engine.picture(pixels)
        seconds = {**reference.seconds, "decode": decoded}
        height, width = pixels.shape[:2]
        name = self.uploads.add(Upload(reference, jpeg(pixels, LARGE), width, height))
        return say.Upload(id=name, width=width, height=height, seconds=seconds)

    def search(self, asked: say.SearchQuestion) -> say.SearchAnswer:
        answer = self.engine.ask(self._question(asked))
        hits = [say.Found(row=hit.row, path=hit.path, score=hit.score) for hit in answer.hits]
        return say.SearchAnswer(hits=hits, seconds=answer.seconds)

    def shares(self, asked: say.SharesQuestion) -> say.SharesAnswer:
        found = self.engine.shares(self._question(asked), self.check_row(asked.row))
        boxes, shares = (array.round(5).tolist() for array in (found.boxes, found.shares))
        return say.SharesAnswer(score=found.score, boxes=boxes, shares=shares)

    def _question(self, asked: say.SearchQuestion) -> Question:
        return Question(
            references=tuple(map(self.reference, asked.images)),
            texts=tuple(WeightedText(text.text, text.weight) for text in asked.texts),
            nots=tuple(asked.nots),
            k=asked.k,
            keep_references=asked.keep_references,
            where=asked.where,
        )

    def attention(self, asked: say.AttentionQuestion) -> say.AttentionAnswer:
        found = self.engine.attended(self.reference(asked.image), asked.text)
        boxes, weights = (array.round(5).tolist() for array in (found.boxes, found.weights))
        shown = self.engine.shown
        assert shown.way is not None
        return say.AttentionAnswer(
            way=shown.way, said=shown.said, words=found.words, boxes=boxes, weights=weights
        )

    def mark(self, answer: say.Answer) -> say.Answers:
        """Keep an answer; it is on the disk when this returns."""
        if self.collected is None:
            raise Refusal(404, "this service keeps no answers: start it with --collect FILE.csv")
        if isinstance(answer.reference, str):
            raise Refusal(
                422,
                "an uploaded picture cannot be learned from, since its regions are not kept: mark "
                "answers to a picture of the gallery",
            )
        self.collected.add(self._rows(answer, answer.reference))
        return self.answers()

    def _rows(self, answer: say.Answer, reference: int) -> list[Row]:
        """An answer as rows of the table.  Raises Refusal where it contradicts itself."""
        marked = [*answer.right, *answer.wrong]
        why = {
            "an answer marks pictures as right or wrong, or says that none is right": not (
                marked or answer.none
            ),
            "none is right, and some are marked as right: leave one out": answer.none
            and bool(answer.right),
            "a picture is marked twice": len(set(marked)) < len(marked),
            "the picture that was asked about is marked too": reference in marked,
            "the text cannot be kept in a table": "\0" in answer.text or not is_utf8(answer.text),
        }
        for what, so in why.items():
            if so:
                raise Refusal(422, what)
        path = [self.engine.gallery.paths[self.check_row(row)] for row in (reference, *marked)]
        right, wrong = path[1 : 1 + len(answer.right)], path[1 + len(answer.right) :]
        time = datetime.now(UTC).isoformat(timespec="seconds")
        text = answer.text.strip()
        rows = [Row(path[0], text, one, "right", "", time) for one in right]
        rows += [Row(path[0], text, "", "none", "", time)] if answer.none else []
        return rows + [Row(path[0], text, "", "wrong", one, time) for one in wrong]

    def answers(self) -> say.Answers:
        """How many rows the table has."""
        if self.collected is None:
            return say.Answers(file=None, right=0, wrong=0, none=0)
        counts = self.collected.counts()
        kinds = {kind: counts[kind] for kind in ("right", "wrong", "none")}
        return say.Answers(file=self.collected.path.name, **kinds)

    def small(self, row: int, edge: int, known: str) -> Response:
        """A gallery's picture; only its tag, where the caller has it already."""
        path = PurePosixPath(self.engine.gallery.paths[self.check_row(row)])
        if path.is_absolute() or ".." in path.parts:  # `cqr extract` writes no such path
            raise Refusal(404, f"picture {row} does not lie in the folder of the pictures")
        file = self.engine.file(row)
        try:
            tag = f'"{self.shown.tag(file, edge)}"'
            if tag in known:
                return tagged(tag, Response(status_code=304))
            made = self.shown.picture(file, edge)
        except images.Refused as error:
            raise Refusal(404, f"picture {row} {error}") from None
        return tagged(tag, Response(made, media_type="image/jpeg"))


def tagged(tag: str, response: Response) -> Response:
    # A row may be another picture once the service was started anew: always ask.
    response.headers.update({"ETag": tag, "Cache-Control": "private, no-cache"})
    return response
