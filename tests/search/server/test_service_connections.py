"""The service at its socket: callers who say nothing or half, its end, and its log."""

import contextlib
import json
import socket
import threading
import time
from functools import partial

import pytest
import uvicorn

from cqr.search.engine import Engine
from cqr.search.server.application import application
from cqr.search.server.connections import Connection
from cqr.search.server.journal import Journal
from cqr.search.server.limits import Limits
from cqr.search.server.serve import listening
from cqr.search.server.suggestions import Suggestions
from drawn_gallery import opened

SEARCH = b'{"images": [0]}'
WHOLE = b"GET /api/health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def engine(drawn_run):
    return opened(drawn_run)


@contextlib.contextmanager
def served(engine, journal=None, **limits):
    """A service in a thread; yields its server and what opens a connection to it."""
    limit = Limits(**limits)
    server = uvicorn.Server(
        uvicorn.Config(
            application(engine, Suggestions(), limit, None, journal=journal),
            http=partial(Connection, limits=limit, journal=journal),
            lifespan="off",
            log_level="critical",
            timeout_graceful_shutdown=round(limit.ending_seconds),
        )
    )
    with listening("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield server, lambda: socket.create_connection(address, timeout=20)
        finally:
            server.should_exit = True
            thread.join(30)


def answered(connection):
    """All that comes, until the service closes."""
    said = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            said += part
    return said.decode()


def ask(connect, request=WHOLE):
    with connect() as connection:
        connection.sendall(request)
        return answered(connection)


def post(body, length=None, path="/api/search"):
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    head += "Content-Type: application/json\r\nContent-Length: "
    return f"{head}{len(body) if length is None else length}\r\n\r\n".encode() + body


def test_half_heads_keep_nobody_out(engine):
    with served(engine, connections=5, head_seconds=30) as (_, connect):
        half = [connect() for _ in range(12)]
        for connection in half:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: ")
        for _ in range(3):
            assert ask(connect).startswith("HTTP/1.1 200")
        for connection in half:
            connection.close()


def test_a_head_that_does_not_end_is_not_waited_for(engine):
    limited = served(engine, head_seconds=0.3)
    with limited as (_, connect), connect() as silent, connect() as half:
        half.sendall(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        said = answered(half)
        assert answered(silent) == ""
        assert time.monotonic() - began < 10
    assert said.startswith("HTTP/1.1 408")
    assert "content-security-policy: default-src 'self'" in said
    assert said.endswith('{"detail": "the request did not arrive in time: send it again"}')


def test_a_second_head_has_its_time_too(engine):
    with served(engine, head_seconds=0.3) as (_, connect), connect() as connection:
        connection.sendall(WHOLE.replace(b"Connection: close\r\n", b"") + b"GET")
        connection.sendall(b" / ")
        said = answered(connection)
    assert said.startswith("HTTP/1.1 200")


def test_half_bodies_hold_no_place_of_those_that_ask(engine):
    with served(engine, asking=2) as (_, connect):
        half = [connect() for _ in range(6)]
        for connection in half:
            connection.sendall(post(b"{", 200))
        time.sleep(0.2)
        assert ask(connect, post(SEARCH)).startswith("HTTP/1.1 200")
        for connection in half:
            connection.close()


def test_where_every_connection_is_answered_another_is_told_to_come_again(engine, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    original = Engine.ask

    def slow(self, question):
        begun.set()
        assert go_on.wait(20)
        return original(self, question)

    monkeypatch.setattr(Engine, "ask", slow)
    with served(engine, connections=1) as (_, connect), connect() as first:
        first.sendall(post(SEARCH))
        assert begun.wait(20)
        said = ask(connect, b"")
        go_on.set()
        assert answered(first).startswith("HTTP/1.1 200")
    assert said.startswith("HTTP/1.1 503")
    assert "\r\nretry-after: 1\r\n" in said
    assert "content-security-policy: default-src 'self'" in said


def test_what_is_not_http_is_said_to_be_so(engine):
    with served(engine) as (_, connect):
        said = ask(connect, b"\x16\x03\x01 not HTTP\r\n\r\n")
    assert said.startswith("HTTP/1.1 400")
    assert "x-content-type-options: nosniff" in said
    assert said.endswith('{"detail": "this is not HTTP"}')


@pytest.mark.parametrize(("works", "status"), [(0.5, 200), (4.0, 503)])
def test_work_in_hand_is_waited_for_at_the_end_and_else_told(engine, monkeypatch, works, status):
    begun, go_on = threading.Event(), threading.Event()
    original = Engine.ask

    def slow(self, question):
        begun.set()
        go_on.wait(works)
        return original(self, question)

    monkeypatch.setattr(Engine, "ask", slow)
    with served(engine, ending_seconds=1) as (server, connect), connect() as first:
        first.sendall(post(SEARCH))
        assert begun.wait(20)
        server.should_exit = True
        said = answered(first)
        go_on.set()
    assert said.startswith(f"HTTP/1.1 {status}")
    assert "content-security-policy: default-src 'self'" in said
    assert ("retry-after: 1" in said) == (status == 503)


def test_the_log_has_a_line_for_each_request(engine, tmp_path):
    journal = Journal.at(tmp_path / "log.jsonl")
    with served(engine, journal) as (_, connect):
        ask(connect)
        ask(connect, post(SEARCH))
        ask(connect, post(b"{"))
        ask(connect, b"nothing\r\n\r\n")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [
        ("GET", "/api/health", 200),
        ("POST", "/api/search", 200),
        ("POST", "/api/search", 400),
        (None, None, 400),
    ]
    assert [line["received"] for line in lines[:3]] == [0, 15, 1]
    assert all(line["client"] == "127.0.0.1" for line in lines)
    assert all(0 < line["seconds"] < 60 for line in lines[:3])
    assert lines[0]["sent"] == len('{"status":"ok"}')


def test_a_log_that_cannot_be_written_stops_no_answer(engine, capsys):
    with open("/dev/full", "w") as full, served(engine, Journal(full)) as (_, connect):
        assert ask(connect).startswith("HTTP/1.1 200")
        assert ask(connect).startswith("HTTP/1.1 200")
        full.close = lambda: None
    assert capsys.readouterr().err.count("cannot write the log") == 1
