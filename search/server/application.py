"""The service put together: routes, page, errors, and the guard before them."""

import hashlib
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.exceptions import HTTPException

from cqr.errors import UserError
from cqr.search.engine import Engine
from cqr.search.server.collected import Collected
from cqr.search.server.guard import Guard, Refusal
from cqr.search.server.journal import Journal
from cqr.search.server.limits import Limits
from cqr.search.server.routes import UPLOADS, problems, router
from cqr.search.server.service import Service, tagged
from cqr.search.server.suggestions import Suggestions

_MODULES = (
    "acts address app beside copy dom export favourites fields found gallery grid label large "
    "listing looked marks notes objects picker question reference results service state tools "
    "trail words"
)

PAGE = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    **{
        f"/{name}.css": (f"{name}.css", "text/css; charset=utf-8")
        for name in ("style", "parts", "noscript")
    },
    **{
        f"/{name}.js": (f"{name}.js", "text/javascript; charset=utf-8") for name in _MODULES.split()
    },
}
"""All that the page is made of, by its address: nothing else on disk can be asked for."""

MISSING = "missing.html"
"""Shown where a browser asks for what is not there."""

NOT_JSON = "the body is not JSON in UTF-8"


def application(
    engine: Engine,
    suggestions: Suggestions,
    limits: Limits,
    hosts: frozenset[str] | None,
    collected: Collected | None = None,
    *,
    beside: Engine | None = None,
    journal: Journal | None = None,
) -> Guard:
    """The service, as an ASGI application.

    Args:
        hosts: see `Guard`.
        collected: the table of answers that are kept; None keeps none.
        beside: another run over the same pictures, whose answers can be seen beside.
        journal: is told of each request.
    """
    app = FastAPI(
        title="cqr",
        version=version("cqr"),
        description="Find an image with an image and a sentence.",
        openapi_url="/api/openapi.json",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        responses=problems(421, 503),
    )
    app.state.service = Service(engine, suggestions, limits, collected, beside)
    app.include_router(router)
    _serve_page(app)
    _speak_in_sentences(app)
    guard = Guard(app, limits, hosts, frozenset({UPLOADS}), journal)
    app.state.guard = guard
    return guard


def _serve_page(app: FastAPI) -> None:
    def add(address: str, content: bytes, kind: str) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'

        @app.get(address, include_in_schema=False)
        async def part(request: Request) -> Response:
            known = request.headers.get("if-none-match", "")
            fresh = Response(status_code=304) if tag in known else Response(content)
            fresh.headers["Content-Type"] = kind
            return tagged(tag, fresh)

    folder = files("cqr.search.server") / "page"
    for address, (name, kind) in PAGE.items():
        add(address, (folder / name).read_bytes(), kind)


def _speak_in_sentences(app: FastAPI) -> None:
    """Every error is {"detail": one sentence}; but who reads pages is shown one."""
    missing = (files("cqr.search.server") / "page" / MISSING).read_text(encoding="utf-8")

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
        if first["type"] == "json_invalid":
            return answer(400, NOT_JSON)
        where = ".".join(str(part) for part in first["loc"][1:]) or first["loc"][0]
        return answer(422, f"{where}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        if error.status_code == 404 and _is_read_by_somebody(request):
            return HTMLResponse(missing, 404)
        why = {
            400: NOT_JSON,  # FastAPI's, where the body is not even text
            404: f"there is nothing at {request.url.path}",
            405: f"{request.url.path} does not take {request.method}",
        }
        return answer(error.status_code, why.get(error.status_code, error.detail), error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return answer(500, "the service failed; what it printed says why")


def _is_read_by_somebody(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return "text/html" in accepted and not request.url.path.startswith("/api/")
