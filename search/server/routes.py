"""The JSON API, route by route."""

from functools import partial
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi import Path as InPath

from cqr.search.server import messages as say
from cqr.search.server.guard import BUSY, Guard, Refusal
from cqr.search.server.service import Service
from cqr.search.shown import LARGE, THUMB
from cqr.search.understood import SCENES

UPLOADS = "/api/uploads"


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI says of answers that are no success."""
    why = {
        400: "Not JSON.",
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
    service: Service = request.app.state.service
    return service


Serving = Annotated[Service, Depends(_service)]
RowInPath = Annotated[int, InPath(ge=0, lt=say.ROWS)]
Sort = Annotated[str | None, Query(max_length=500)]
Where = Annotated[str | None, Query(max_length=500, pattern=r"\S")]
router = APIRouter(prefix="/api")
asked = problems(403, 404, 408, 413, 422)
"""What may become of a request that asks for work."""


@router.get("/health")
async def health() -> say.Health:
    """That the service answers."""
    return say.Health(status="ok")


@router.get("/ready")
async def ready(request: Request) -> say.Health:
    """That a question would be taken now; 503 where it would be asked to come again."""
    guard: Guard = request.app.state.guard
    if not guard.ready:
        raise Refusal(503, BUSY)
    return say.Health(status="ready")


@router.get("/info")
async def info(service: Serving) -> say.Info:
    """What is asked, and what may be asked of it."""
    engine, limits, beside = service.engine, service.limits, service.beside
    return say.Info(
        version=version("cqr"),
        run=engine.run.path.name,
        model=engine.run.settings.model,
        dataset=engine.run.dataset,
        pictures=len(engine.gallery),
        index=engine.index.name,
        attends=engine.attends,
        words=SCENES if engine.run.dataset == "css" else "",
        answers_text=engine.model.answers_text,
        reads=not engine.run.reads_nothing,
        columns=service.columns,
        beside=None
        if beside is None
        else say.Beside(
            run=beside.run.path.name,
            model=beside.run.settings.model,
            divides=beside.model.divides,
        ),
        detector=service.detector(),
        collects=service.marking.collects(),
        divides=engine.model.divides,
        limits=say.Limits(
            upload_bytes=limits.upload_bytes,
            upload_pixels=limits.upload_pixels,
            uploads=limits.uploads,
            seconds=limits.seconds,
        ),
    )


@router.get("/gallery", responses=problems(422))
async def gallery(
    service: Serving,
    start: Annotated[int, Query(ge=0, lt=say.ROWS)] = 0,
    count: Annotated[int, Query(ge=1, le=500)] = 100,
    sort: Sort = None,
    descending: bool = False,
    where: Where = None,
) -> say.GalleryPart:
    """Some of the gallery's pictures, in its order, or sorted by `path` or a column."""
    work = partial(service.listed, start, count, sort, descending, where)
    return await service.showing.do(work)


@router.get("/gallery/place", responses=problems(404, 422))
async def place(
    service: Serving,
    name: Annotated[str, Query(min_length=1, max_length=500)],
    sort: Sort = None,
    descending: bool = False,
    where: Where = None,
) -> say.Place:
    """Where the gallery lists the first picture whose path has this in it."""
    return await service.showing.do(partial(service.place, name, sort, descending, where))


@router.get("/images/{row}", responses=_JPEG | problems(404, 422), response_class=Response)
async def image(row: RowInPath, request: Request, service: Serving) -> Response:
    """A picture of the gallery, at most 1024 pixels long, as JPEG."""
    known = request.headers.get("if-none-match", "")
    return await service.showing.do(partial(service.small, row, LARGE, known))


@router.get("/images/{row}/thumb", responses=_JPEG | problems(404, 422), response_class=Response)
async def thumb(row: RowInPath, request: Request, service: Serving) -> Response:
    """A picture of the gallery, at most 256 pixels long, as JPEG."""
    known = request.headers.get("if-none-match", "")
    return await service.showing.do(partial(service.small, row, THUMB, known))


@router.get("/images/{row}/about", responses=problems(404, 422))
async def about(row: RowInPath, service: Serving) -> say.About:
    """What is known of a picture of the gallery, and where its regions are."""
    return await service.showing.do(partial(service.about, row))


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


@router.get("/uploads/{name}", responses=_JPEG | problems(404, 422), response_class=Response)
async def uploaded(
    name: Annotated[str, InPath(pattern=say.UPLOAD_ID)], service: Serving
) -> Response:
    """An uploaded picture, at most 1024 pixels long, as JPEG."""
    large = service.upload(name).large
    return Response(large, media_type="image/jpeg", headers={"Cache-Control": "private, no-cache"})


@router.get("/uploads/{name}/about", responses=problems(404, 422))
async def about_upload(
    name: Annotated[str, InPath(pattern=say.UPLOAD_ID)], service: Serving
) -> say.About:
    """Where the regions of an uploaded picture are."""
    return service.about_upload(name)


@router.post("/search", responses=asked | problems(400))
async def search(question: say.SearchQuestion, service: Serving) -> say.SearchAnswer:
    """The pictures that are like these, but changed as the texts say."""
    return await service.asking.do(partial(service.search, question))


@router.post("/attention", responses=asked | problems(400))
async def attention(question: say.AttentionQuestion, service: Serving) -> say.AttentionAnswer:
    """Which regions of the picture each word of the text looks at; also of one that was found."""
    return await service.asking.do(partial(service.attention, question))


@router.post("/shares", responses=asked | problems(400))
async def shares(question: say.SharesQuestion, service: Serving) -> say.SharesAnswer:
    """What each region of a result adds to its score with the question."""
    return await service.asking.do(partial(service.shares, question))


@router.get("/answers", responses=problems(422))
async def answers(service: Serving) -> say.Answers:
    """How many answers are kept, to be learned from."""
    return await service.showing.do(service.marking.counts)


@router.get("/marks", responses=problems(404, 422))
async def marks(
    service: Serving,
    reference: Annotated[int, Query(ge=0, lt=say.ROWS)],
    text: Annotated[str, Query(pattern=r"\S", max_length=500)],
) -> say.Marks:
    """What is marked of the results of a picture of the gallery with a text."""
    return await service.showing.do(partial(service.marking.marks, reference, text))


@router.post("/answers", status_code=201, responses=asked | problems(400))
async def mark(answer: say.Answer, service: Serving) -> say.Answers:
    """Keep which pictures are right for a picture of the gallery with a text, and which not."""
    return await service.asking.do(partial(service.marking.mark, answer))


@router.get("/suggestions", responses=problems(404, 422))
async def suggest(
    service: Serving,
    row: Annotated[int | None, Query(ge=0, lt=say.ROWS)] = None,
    upload: Annotated[str | None, Query(pattern=say.UPLOAD_ID)] = None,
) -> say.SuggestionsAnswer:
    """Texts to try with a picture of the gallery, with an upload, or with any other."""
    if upload is not None:
        sight = service.upload(upload).reference.sight
        return say.SuggestionsAnswer(texts=service.suggestions.of_new(sight))
    path = None if row is None else service.engine.gallery.paths[service.check_row(row)]
    return say.SuggestionsAnswer(texts=service.suggestions.of(path))
