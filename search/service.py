"""The HTTP service: an engine, asked in JSON, and the one page that asks it."""

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from cqr.errors import UserError
from cqr.pipeline import images
from cqr.search import messages as say
from cqr.search.engine import Engine
from cqr.search.guard import Guard, Limits, Refusal
from cqr.search.question import Question, Reference, WeightedText
from cqr.search.shown import LARGE, THUMB, Shown, Upload, Uploads, jpeg
from cqr.search.suggestions import Suggestions

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/parts.js": ("parts.js", "text/javascript; charset=utf-8"),
    "/grid.js": ("grid.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
"""All that the page is made of, by its address: nothing else on disk can be asked for."""

UPLOADS = "/api/uploads"

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
    """What the routes share.

    Attributes:
        engine: what is asked.
        suggestions: texts to try.
        limits: on what callers may ask.
    """

    def __init__(self, engine: Engine, suggestions: Suggestions, limits: Limits) -> None:
        self.engine, self.suggestions, self.limits = engine, suggestions, limits
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
        try:
            pixels = images.decode(body, self.limits.upload_pixels)
        except images.Refused as error:
            raise Refusal(422, f"the picture {error}") from None
        reference = self.engine.picture(pixels)
        height, width = pixels.shape[:2]
        name = self.uploads.add(Upload(reference, jpeg(pixels, LARGE), width, height))
        return say.Upload(id=name, width=width, height=height, seconds=reference.seconds)

    def search(self, asked: say.SearchQuestion) -> say.SearchAnswer:
        answer = self.engine.ask(
            Question(
                references=tuple(map(self.reference, asked.images)),
                texts=tuple(WeightedText(text.text, text.weight) for text in asked.texts),
                nots=tuple(asked.nots),
                k=asked.k,
                keep_references=asked.keep_references,
                where=asked.where,
            )
        )
        hits = [say.Found(row=hit.row, path=hit.path, score=hit.score) for hit in answer.hits]
        return say.SearchAnswer(hits=hits, seconds=answer.seconds)

    def attention(self, asked: say.AttentionQuestion) -> say.AttentionAnswer:
        found = self.engine.attended(self.reference(asked.image), asked.text)
        boxes, weights = (array.round(5).tolist() for array in (found.boxes, found.weights))
        return say.AttentionAnswer(words=found.words, boxes=boxes, weights=weights)

    def small(self, row: int, edge: int, known: str) -> Response:
        """A gallery's picture; only its tag, where the caller has it already."""
        file = self.engine.file(self.check_row(row))
        try:
            tag = f'"{self.shown.tag(file, edge)}"'
            if tag in known:
                return _tagged(tag, Response(status_code=304))
            made = self.shown.picture(file, edge)
        except images.Refused as error:
            raise Refusal(404, f"picture {row} {error}") from None
        return _tagged(tag, Response(made, media_type="image/jpeg"))


def _tagged(tag: str, response: Response) -> Response:
    # A row may be another picture once the service was started anew: always ask.
    response.headers.update({"ETag": tag, "Cache-Control": "private, no-cache"})
    return response


def application(
    engine: Engine,
    suggestions: Suggestions = Suggestions(),
    limits: Limits = Limits(),
    hosts: frozenset[str] | None = None,
) -> Guard:
    """The service, as an ASGI application.

    Args:
        hosts: see `Guard`.
    """
    app = FastAPI(
        title="cqr",
        version=version("cqr"),
        description="Find an image with an image and a sentence.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        responses=_problems(421, 503),
    )
    app.state.service = Service(engine, suggestions, limits)
    app.include_router(router)
    _serve_page(app)
    _speak_in_sentences(app)
    return Guard(app, limits, hosts, frozenset({UPLOADS}))


def _serve_page(app: FastAPI) -> None:
    folder = files("cqr.search") / "page"

    def add(address: str, content: bytes, kind: str) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

        @app.get(address, include_in_schema=False)
        async def part(request: Request) -> Response:
            known = request.headers.get("if-none-match", "")
            fresh = Response(status_code=304) if tag in known else Response(content)
            fresh.headers["Content-Type"] = kind
            return _tagged(tag, fresh)

    for address, (name, kind) in PAGE.items():
        add(address, (folder / name).read_bytes(), kind)


def _speak_in_sentences(app: FastAPI) -> None:
    """Every error is {"detail": one sentence}."""

    def answer(status: int, why: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"detail": why}, status, headers)

    @app.exception_handler(Refusal)
    async def refused(_: Request, error: Refusal) -> JSONResponse:
        return answer(error.status, str(error), {"Retry-After": "1"} if error.status == 503 else {})

    @app.exception_handler(UserError)
    async def caused(_: Request, error: UserError) -> JSONResponse:
        return answer(422, str(error))

    @app.exception_handler(RequestValidationError)
    async def malformed(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or first["loc"][0]
        return answer(422, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> JSONResponse:
        why = {
            404: f"there is nothing at {request.url.path}",
            405: f"{request.url.path} does not take {request.method}",
        }
        return answer(error.status_code, why.get(error.status_code, error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return answer(500, "the service failed; what it printed says why")


def _problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of answers that are no success."""
    why = {
        403: "Asked by a page of another site.",
        404: "No such picture.",
        408: "The request did not arrive in time.",
        413: "The request is too large.",
        421: "Not a name of this service.",
        422: "Not a question that can be answered.",
        503: "Busy, or it took too long; Retry-After says when to try again.",
    }
    return {status: {"model": say.Problem, "description": why[status]} for status in statuses}


_JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
    304: {"description": "As the caller has it."},
}


def _service(request: Request) -> Service:
    return request.app.state.service


Serving = Annotated[Service, Depends(_service)]
RowInPath = Annotated[int, InPath(ge=0, lt=say.ROWS)]
router = APIRouter(prefix="/api")
asked = _problems(403, 404, 408, 413, 422)
"""What may become of a request that asks for work."""


@router.get("/health")
async def health() -> say.Health:
    """That the service answers."""
    return say.Health(status="ok")


@router.get("/info")
async def info(service: Serving) -> say.Info:
    """What is asked, and what may be asked of it."""
    engine, limits = service.engine, service.limits
    return say.Info(
        version=version("cqr"),
        run=engine.run.path.name,
        model=engine.run.settings.model,
        dataset=engine.run.dataset,
        pictures=len(engine.gallery),
        index=engine.index.name,
        attends=engine.attends,
        limits=say.Limits(
            upload_bytes=limits.upload_bytes,
            upload_pixels=limits.upload_pixels,
            uploads=limits.uploads,
            seconds=limits.seconds,
        ),
    )


@router.get("/gallery", responses=_problems(422))
async def gallery(
    service: Serving,
    start: Annotated[int, Query(ge=0, lt=say.ROWS)] = 0,
    count: Annotated[int, Query(ge=1, le=500)] = 100,
) -> say.GalleryPart:
    """Some of the gallery's pictures, in its order."""
    engine = service.engine
    rows = range(start, min(start + count, len(engine.gallery)))
    pictures = []
    for row in rows:
        width, height = engine.size(row)
        pictures.append(
            say.Picture(row=row, path=engine.gallery.paths[row], width=width, height=height)
        )
    return say.GalleryPart(total=len(engine.gallery), pictures=pictures)


@router.get("/images/{row}", responses=_JPEG | _problems(404, 422), response_class=Response)
async def image(row: RowInPath, request: Request, service: Serving) -> Response:
    """A picture of the gallery, at most 1024 pixels long, as JPEG."""
    known = request.headers.get("if-none-match", "")
    return await service.showing.do(partial(service.small, row, LARGE, known))


@router.get("/images/{row}/thumb", responses=_JPEG | _problems(404, 422), response_class=Response)
async def thumb(row: RowInPath, request: Request, service: Serving) -> Response:
    """A picture of the gallery, at most 256 pixels long, as JPEG."""
    known = request.headers.get("if-none-match", "")
    return await service.showing.do(partial(service.small, row, THUMB, known))


@router.post(
    "/uploads",
    status_code=201,
    responses=asked,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
async def upload(request: Request, service: Serving) -> say.Upload:
    """Give a picture file as the body; its id stands for it in questions, while it is kept."""
    body = await request.body()
    return await service.asking.do(partial(service.receive, body))


@router.get("/uploads/{name}", responses=_JPEG | _problems(404, 422), response_class=Response)
async def uploaded(
    name: Annotated[str, InPath(pattern=say.UPLOAD_ID)], service: Serving
) -> Response:
    """An uploaded picture, at most 1024 pixels long, as JPEG."""
    large = service.upload(name).large
    return Response(large, media_type="image/jpeg", headers={"Cache-Control": "private, no-cache"})


@router.post("/search", responses=asked)
async def search(question: say.SearchQuestion, service: Serving) -> say.SearchAnswer:
    """The pictures that are like these, but changed as the texts say."""
    return await service.asking.do(partial(service.search, question))


@router.post("/attention", responses=asked)
async def attention(question: say.AttentionQuestion, service: Serving) -> say.AttentionAnswer:
    """Which regions of the picture each word of the text looks at."""
    return await service.asking.do(partial(service.attention, question))


@router.get("/suggestions", responses=_problems(404, 422))
async def suggest(
    service: Serving, row: Annotated[int | None, Query(ge=0, lt=say.ROWS)] = None
) -> say.SuggestionsAnswer:
    """Texts to try with a picture of the gallery, or with any other."""
    path = None if row is None else service.engine.gallery.paths[service.check_row(row)]
    return say.SuggestionsAnswer(texts=service.suggestions.of(path))
