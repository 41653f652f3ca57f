"""What the routes share: an engine, the pictures that are shown, and the threads that work."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np
from fastapi import Response
from numpy.typing import NDArray

from cqr.pipeline import images
from cqr.search.alike import leaders
from cqr.search.engine import Engine
from cqr.search.order import by, ordered
from cqr.search.question import Question, Reference, WeightedText
from cqr.search.server import messages as say
from cqr.search.server.collected import Collected
from cqr.search.server.columns import columns, known
from cqr.search.server.guard import Refusal
from cqr.search.server.limits import Limits
from cqr.search.server.marking import Marking
from cqr.search.server.suggestions import Suggestions
from cqr.search.shown import LARGE, Shown, Upload, Uploads, jpeg
from cqr.search.understood import notes_of
from cqr.trainer.features import RegionBatch

T = TypeVar("T")

ORDERS = 16
"""Orders of the gallery that are kept."""


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
        beside: another run over the same pictures; None where there is none.
        marking: what is marked of the results.
        columns: what is known of the pictures.
        asking, showing: the threads for questions, and for small pictures.
    """

    def __init__(
        self,
        engine: Engine,
        suggestions: Suggestions,
        limits: Limits,
        collected: Collected | None = None,
        beside: Engine | None = None,
    ) -> None:
        self.engine, self.suggestions, self.limits = engine, suggestions, limits
        self.beside = beside
        self.marking = Marking(engine, collected)
        self.columns = columns(engine.gallery)
        self._orders: dict[tuple[str | None, bool, str | None], NDArray[np.int64]] = {}
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

    def reference(self, image: int | str | say.Part, beside: bool = False) -> Reference:
        """The picture of a row or of an upload, or one region of it, as one of the runs sees it."""
        if isinstance(image, say.Part):
            whole = self.reference(image.image, beside)
            if whole.parts is None and whole.row is not None:
                parts = self._asked(beside).parts(whole.row)
                whole = replace(whole, parts=parts)
            return whole.only(image.region)
        if isinstance(image, str):
            upload = self.upload(image)
            return (upload.beside if beside else None) or upload.reference
        row = self.check_row(image)
        return self._asked(True).row(self._row_beside(row)) if beside else self.engine.row(row)

    def _asked(self, beside: bool) -> Engine:
        if beside and self.beside is None:
            raise Refusal(404, "this service has one run: start it with --beside RUN")
        return self.beside if beside and self.beside is not None else self.engine

    def _row_beside(self, row: int) -> int:
        """The row of a picture in the other run's gallery."""
        path = self.engine.gallery.paths[row]
        found = self._asked(True).gallery.rows.get(path)
        if found is None:
            raise Refusal(404, f"the other run's gallery has no {path}")
        return found

    def detector(self) -> say.DetectorState:
        """Whether new pictures can be asked about by now."""
        pictures = self.engine.new_pictures
        seconds = pictures.loading
        if pictures.absent and seconds is None:
            return say.DetectorState(state="absent", why=pictures.absent)
        if seconds is None:
            return say.DetectorState(state="ready")
        return say.DetectorState(state="loading", seconds=seconds)

    def receive(self, body: bytes) -> say.Upload:
        """Take in a picture that a caller gave."""
        began = time.perf_counter()
        try:
            pixels = images.decode(body, self.limits.upload_pixels)
        except images.Refused as error:
            raise Refusal(422, f"this file {error}") from None
        decoded = time.perf_counter() - began
        loading = self.engine.new_pictures.loading
        if loading is not None:
            raise Refusal(
                503, f"the detector is being loaded ({loading:.0f} s so far): try again in a second"
            )
        reference = self.engine.picture(pixels, source=body)
        other = None if self.beside is None else self.beside.picture(pixels, source=body)
        seconds = {**reference.seconds, "decode": decoded}
        height, width = pixels.shape[:2]
        kept = Upload(reference, jpeg(pixels, LARGE), width, height, other)
        return say.Upload(
            id=self.uploads.add(kept),
            width=width,
            height=height,
            seconds=seconds,
            objects=None if reference.sight is None else reference.sight.objects,
            notes=notes_of([reference]),
        )

    def search(self, asked: say.SearchQuestion) -> say.SearchAnswer:
        engine, end = self._asked(asked.beside), asked.start + asked.k
        answer = engine.ask(self._question(asked))
        hits, gallery = answer.hits, engine.gallery
        if asked.sort:
            score = {hit.row: hit for hit in hits}
            rows = by(gallery, np.array(sorted(score), np.int64), asked.sort, asked.descending)
            hits = [score[row] for row in rows.tolist()]
        first = leaders(gallery.vectors[[hit.row for hit in hits[:end]]])
        page = []
        for hit, same in zip(hits[asked.start : end], first[asked.start :].tolist(), strict=True):
            like = None if hits[same] is hit else self._row_of(hits[same].path)
            if (row := self._row_of(hit.path)) is not None:
                page.append(say.Found(row=row, path=hit.path, score=hit.score, like=like))
        return say.SearchAnswer(
            hits=page,
            more=len(hits) > end,
            seconds=answer.seconds,
            notes=list(answer.notes),
            texts=[
                [say.TextPart(text=text, how=how) for text, how in one.parts]
                for one in answer.understood.texts
            ],
        )

    def _row_of(self, path: str) -> int | None:
        """The row of a path; None where the other run has it alone."""
        return self.engine.gallery.rows.get(path)

    def shares(self, asked: say.SharesQuestion) -> say.SharesAnswer:
        engine = self._asked(asked.beside)
        row = self.check_row(asked.row)
        if asked.beside:
            row = self._row_beside(row)
        found = engine.shares(self._question(asked), row)
        boxes, shares = (array.round(5).tolist() for array in (found.boxes, found.shares))
        return say.SharesAnswer(score=found.score, boxes=boxes, shares=shares)

    def _question(self, asked: say.SearchQuestion) -> Question:
        reference = partial(self.reference, beside=asked.beside)
        end = asked.start + asked.k
        return Question(
            references=tuple(map(reference, asked.images)),
            texts=tuple(WeightedText(text.text, text.weight) for text in asked.texts),
            nots=tuple(asked.nots),
            k=asked.most if asked.sort else min(end + 1, asked.most),
            keep_references=asked.keep_references,
            where=asked.where,
            more=tuple(map(reference, asked.more)),
            less=tuple(map(reference, asked.less)),
        )

    def attention(self, asked: say.AttentionQuestion) -> say.AttentionAnswer:
        found = self.engine.attended(self.reference(asked.image), asked.text)
        boxes, weights = (array.round(5).tolist() for array in (found.boxes, found.weights))
        shown = self.engine.shown
        assert shown.way is not None
        return say.AttentionAnswer(
            way=shown.way, said=shown.said, words=found.words, boxes=boxes, weights=weights
        )

    def listed(
        self, start: int, count: int, sort: str | None, descending: bool, where: str | None
    ) -> say.GalleryPart:
        """Some of the gallery's pictures, in an order."""
        rows = self._order(sort, descending, where)
        pictures = []
        for row in rows[start : start + count].tolist():
            width, height = self.engine.size(row)
            path = self.engine.gallery.paths[row]
            pictures.append(say.Picture(row=row, path=path, width=width, height=height))
        return say.GalleryPart(total=len(rows), pictures=pictures)

    def place(self, name: str, sort: str | None, descending: bool, where: str | None) -> say.Place:
        """Where the first picture is listed whose path has a name in it."""
        paths, wanted = self.engine.gallery.paths, name.casefold()
        for place, row in enumerate(self._order(sort, descending, where).tolist()):
            if wanted in paths[row].casefold():
                return say.Place(place=place)
        raise Refusal(404, f"no picture here has {name!r} in its name")

    def _order(self, sort: str | None, descending: bool, where: str | None) -> NDArray[np.int64]:
        asked = sort, descending, where
        found = self._orders.get(asked)
        if found is None:
            found = ordered(self.engine.gallery, sort, descending, where)
            if len(self._orders) >= ORDERS:
                self._orders.clear()
            self._orders[asked] = found
        return found

    def about(self, row: int) -> say.About:
        """What is known of a picture of the gallery."""
        width, height = self.engine.size(self.check_row(row))
        return say.About(
            path=self.engine.gallery.paths[row],
            width=width,
            height=height,
            boxes=_boxes(self.engine.parts(row)),
            known=known(self.engine.gallery, row),
        )

    def about_upload(self, name: str) -> say.About:
        """What is known of an uploaded picture."""
        given = self.upload(name)
        parts = given.reference.parts
        boxes = [] if parts is None else _boxes(parts)
        return say.About(path="", width=given.width, height=given.height, boxes=boxes, known={})

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


def _boxes(parts: RegionBatch) -> list[list[float]]:
    """Of the real regions of a batch of one."""
    boxes: list[list[float]] = parts.boxes[0][parts.mask[0]].double().numpy().round(5).tolist()
    return boxes
