"""The service's connections: those that say nothing, or too slowly, keep nobody else out.

What comes before a request is whole is no business of an ASGI application, so it is settled here.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cqr.search.server.guard import BUSY, HEADERS, refusal
from cqr.search.server.journal import Journal
from cqr.search.server.limits import Limits


class Connection(H11Protocol):
    """One connection of a caller.

    The head of a request has `limits.head_seconds`.  Where there are `limits.connections`
    already, the one that has gone longest without a request being answered is closed for a new
    one; where all are being answered, the new one is told to come again.
    """

    def __init__(
        self, *args: Any, limits: Limits, journal: Journal | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.limits, self.journal = limits, journal
        self._late: asyncio.TimerHandle | None = None
        self._since = self.loop.time()

    @property
    def idle(self) -> bool:
        """Whether no request of it is being answered."""
        closing = self.transport.is_closing()  # what its caller does not take may be still there
        return self.cycle is None or self.cycle.response_complete or closing

    def connection_made(self, transport: Any) -> None:
        full = len(self.connections) >= self.limits.connections
        super().connection_made(transport)
        if full and not self._make_room():
            self._end(503, BUSY)
        else:
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def send_400_response(self, msg: str) -> None:
        self._end(400, "this is not HTTP")

    def on_response_complete(self) -> None:
        self._since = self.loop.time()
        super().on_response_complete()

    def _watch(self) -> None:
        """Give the next head its time, once, while one is awaited."""
        if not self.idle or self.transport.is_closing():
            self._rest()
        elif self._late is None:
            self._late = self.loop.call_later(self.limits.head_seconds, self._too_late)

    def _rest(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        if self.conn.trailing_data[0]:
            self._end(408, "the request did not arrive in time: send it again")
        else:
            self.transport.abort()

    def _make_room(self) -> bool:
        """Close the connection that has been idle longest."""
        others = [
            one
            for one in self.connections
            if isinstance(one, Connection) and one is not self and one.idle
        ]
        if not others:
            return False
        oldest = min(others, key=lambda one: one._since)
        self.connections.discard(oldest)
        oldest.transport.abort()  # a caller who takes no bytes would keep a polite end waiting
        return True

    def _end(self, status: int, why: str) -> None:
        """Say why, and close."""
        self._rest()
        headers, body = refusal(status, why)
        headers += [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        headers = [*headers, (b"connection", b"close")] if status not in (408, 413) else headers
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            answer = h11.Response(status_code=status, headers=headers)
            for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        if self.journal:
            client = self.client[0] if self.client else None
            self.journal.line(client=client, method=None, path=None, status=status)
