"""What stands before the service: who is answered, how much is read, and how long it may take."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cqr.search.server.journal import Journal
from cqr.search.server.limits import Limits

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""On every answer: nothing from elsewhere, nothing inline, nothing for other sites to embed."""

PROBES = frozenset({"/api/health", "/api/ready"})
"""Answered however busy the service is, since they ask how it is."""

BUSY = "the service is busy: try again in a second"
ENDING = "the service is ending: try again when it is there anew"


class Refusal(Exception):
    """A request that is not answered: its HTTP status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Guard:
    """Refuse what must not reach the service; send `HEADERS` with every answer.

    A request is read whole before it is passed on, so no parser sees more than is allowed, and
    one whose body is still on its way takes no place of those that are answered.

    Args:
        hosts: names that the Host header may have, which keeps out a page of another site
            whose name was pointed at this machine; None for any.
        large: the paths whose requests may have `limits.upload_bytes`.
        journal: is told of each request.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        hosts: frozenset[str] | None,
        large: frozenset[str],
        journal: Journal | None = None,
    ) -> None:
        self.app, self.limits, self.hosts, self.large = app, limits, hosts, large
        self.journal = journal
        self.busy = {True: 0, False: 0}  # requests at a time; True: that ask for work
        self.arriving = Arriving(limits)

    @property
    def ready(self) -> bool:
        """Whether a question would be taken now."""
        return self.busy[True] < self.limits.asking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, answer, body = time.perf_counter(), _Answer(send, self.limits.seconds), b""
        try:
            self._check_origin(Headers(scope=scope), scope["method"] == "POST")
            with self._place(scope):
                pass  # what would be refused for want of one need not be read
            async with self._body(scope, receive) as body:
                with self._place(scope):
                    await self.app(scope, _replayed(body, receive), answer)
        except Refusal as refusal:
            await refuse(refusal, answer)
        except asyncio.CancelledError:  # the service ends, and this took longer than it waits
            if not answer.status:
                await refuse(Refusal(503, ENDING), answer)
        finally:
            if self.journal:
                self.journal.add(scope, answer.status, began, len(body), answer.bytes)

    @contextlib.contextmanager
    def _place(self, scope: Scope) -> Iterator[None]:
        """One of the places of those that are answered at a time; Refusal where all are taken."""
        asks = scope["method"] == "POST"
        if scope["path"] in PROBES:
            yield
            return
        if self.busy[asks] >= (self.limits.asking if asks else self.limits.showing):
            raise Refusal(503, BUSY)
        self.busy[asks] += 1
        try:
            yield
        finally:
            self.busy[asks] -= 1

    def _check_origin(self, headers: Headers, asks: bool) -> None:
        host = headers.get("host", "")
        if self.hosts is not None and _parts(f"//{host}")[1] not in self.hosts:
            raise Refusal(421, f"this service does not answer for the host {host[:100]!r}")
        origin = headers.get("origin")
        if asks and origin is not None and _parts(origin)[0] != host:
            raise Refusal(403, "another site's page may not ask this service")

    @contextlib.asynccontextmanager
    async def _body(self, scope: Scope, receive: Receive) -> AsyncIterator[bytes]:
        """The body of a request, read whole.  Raises Refusal: too large, too slow, no room."""
        headers = Headers(scope=scope)
        most = self.limits.upload_bytes if scope["path"] in self.large else self.limits.body_bytes
        too_large = Refusal(413, f"the request has more than the {most:,} bytes that are read")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise too_large
        awaited = length != "0" or "transfer-encoding" in headers
        body = bytearray()
        try:
            async with self.arriving.one(awaited):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the request ended before its body did")
                    part = message.get("body", b"")
                    self.arriving.hold(len(part))
                    body += part
                    if len(body) > most:
                        raise too_large
                    more = message.get("more_body", False)
            yield bytes(body)
        finally:
            self.arriving.hold(-len(body))


class Arriving:
    """The requests whose bodies are on their way, and the bytes that are held of all.

    Where they are too many, the one that came first gives way, unless it came just now: bodies
    that never end keep nobody out.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0
        self._began: dict[asyncio.Timeout, float] = {}  # the oldest first

    @contextlib.asynccontextmanager
    async def one(self, awaited: bool) -> AsyncIterator[None]:
        """The time that a request has to arrive.

        Args:
            awaited: whether it has said that there is a body, so that it is one of them.

        Raises:
            Refusal: there is no room, or the block was not done in time.
        """
        if awaited and len(self._began) >= self.limits.arriving and not self._give_way():
            raise Refusal(503, BUSY)
        try:
            async with asyncio.timeout(self.limits.seconds) as limit:
                if awaited:
                    self._began[limit] = asyncio.get_running_loop().time()
                try:
                    yield
                finally:
                    self._began.pop(limit, None)
        except TimeoutError:
            raise Refusal(408, "the request did not arrive in time: send it again") from None

    def hold(self, more: int) -> None:
        """Raises Refusal where more would be held than may be."""
        self.held += more
        if more > 0 and self.held > self.limits.held_bytes:
            self._give_way()
            self.held -= more
            raise Refusal(503, BUSY)

    def _give_way(self) -> bool:
        now = asyncio.get_running_loop().time()
        for limit, began in self._began.items():
            if now - began < self.limits.patience:
                return False
            del self._began[limit]
            limit.reschedule(now)
            return True
        return False


class _Answer:
    """Sends an answer with `HEADERS`; the caller must take it in so many seconds.

    Attributes:
        status: what was sent; 0 before.
        bytes: of the body so far.
    """

    def __init__(self, send: Send, seconds: float) -> None:
        self._send, self._seconds = send, seconds
        self.status = self.bytes = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
            self.status = message["status"]
        self.bytes += len(message.get("body", b""))
        with contextlib.suppress(TimeoutError):  # the server then ends the connection
            async with asyncio.timeout(self._seconds):
                await self._send(message)


def refusal(status: int, why: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """The headers, but for `HEADERS`, and the body of an answer that says why there is none."""
    body = json.dumps({"detail": why}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 503:
        headers.append((b"retry-after", b"1"))
    if status in (408, 413):  # what is still on its way would be read as a new request
        headers.append((b"connection", b"close"))
    return headers, body


async def refuse(error: Refusal, send: Send) -> None:
    """Answer with a status and {"detail": why}."""
    headers, body = refusal(error.status, str(error))
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then what else is received: that the caller went away."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _parts(url: str) -> tuple[str | None, str | None]:
    """The host with its port, and without, in a URL; None where it is none."""
    try:
        parts = urlsplit(url)
        return parts.netloc, parts.hostname
    except ValueError:
        return None, None
