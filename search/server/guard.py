"""What stands before the service: who is answered, how much is read, and how long it may take."""

import asyncio
import json
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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


class Refusal(Exception):
    """A request that is not answered: its HTTP status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Guard:
    """Refuse what must not reach the service; send `HEADERS` with every answer.

    A request is read whole before it is passed on, so no parser sees more than is allowed.

    Args:
        hosts: names that the Host header may have, which keeps out a page of another site
            whose name was pointed at this machine; None for any.
        large: the paths whose requests may have `limits.upload_bytes`.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, hosts: frozenset[str] | None, large: frozenset[str]
    ) -> None:
        self.app, self.limits, self.hosts, self.large = app, limits, hosts, large
        self.busy = {True: 0, False: 0}  # requests at a time; True: that ask for work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)

        async def armed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        asks = scope["method"] == "POST"
        counted = False
        try:
            self._check_origin(Headers(scope=scope), asks)
            if self.busy[asks] >= (self.limits.asking if asks else self.limits.showing):
                raise Refusal(503, "the service is busy: try again in a second")
            self.busy[asks] += 1
            counted = True
            body = await self._body(scope, receive)
            return await self.app(scope, _replayed(body, receive), armed)
        except Refusal as refusal:
            return await refuse(refusal, armed)
        finally:
            self.busy[asks] -= counted

    def _check_origin(self, headers: Headers, asks: bool) -> None:
        host = headers.get("host", "")
        if self.hosts is not None and _name(f"//{host}") not in self.hosts:
            raise Refusal(421, f"this service does not answer for the host {host[:100]!r}")
        origin = headers.get("origin")
        if asks and origin is not None and urlsplit(origin).netloc != host:
            raise Refusal(403, "another site's page may not ask this service")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        large = scope["path"] in self.large
        most = self.limits.upload_bytes if large else self.limits.body_bytes
        too_large = Refusal(413, f"the request has more than the {most:,} bytes that are read")
        length = Headers(scope=scope).get("content-length", "0")
        if length.isdecimal() and int(length) > most:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.seconds):
                while True:
                    message = await receive()
                    body += message.get("body", b"")
                    if len(body) > most:
                        raise too_large
                    if not message.get("more_body"):
                        return bytes(body)
        except TimeoutError:
            raise Refusal(408, "the request did not arrive in time: send it again") from None


async def refuse(refusal: Refusal, send: Send) -> None:
    """Answer with a status and {"detail": why}."""
    body = json.dumps({"detail": str(refusal)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if refusal.status == 503:
        headers.append((b"retry-after", b"1"))
    if refusal.status in (408, 413):  # what is still on its way would be read as a new request
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body as one message, then what else is received: that the caller went away."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _name(url: str) -> str | None:
    """The host name in a URL, without its port; None where there is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
