"""What the service promises of its safety, one test a promise."""

import asyncio
import io
import re
import socket
import threading
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from cqr.errors import UserError
from cqr.search.engine import Engine
from cqr.search.server import application as pages
from cqr.search.server import serve as serving
from cqr.search.server.guard import Guard
from cqr.search.server.limits import Limits
from cqr.search.shown import Shown
from drawn_gallery import client, opened

HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
PAGE = Path(pages.__file__).parent / "page"


@pytest.fixture(scope="module")
def engine(drawn_run):
    return opened(drawn_run)


@pytest.fixture(scope="module")
def asked(engine):
    return client(engine)


def encoded(format, size=(8, 8), mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, size).save(out, format)
    return out.getvalue()


# --- What is served ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "/api/images/../../etc/passwd",
        "/api/images/..%2f..%2f..%2fetc%2fpasswd",
        "/api/images/0000.png",
        "/api/images/%2fetc%2fpasswd/thumb",
        "/api/uploads/..%2f..%2fetc%2fpasswd",
        "/..%2fservice.py",
        "/page/../service.py",
        "/%2e%2e/service.py",
        "/service.py",
        "/index.html",
        "//etc/passwd",
    ],
)
def test_nothing_is_served_by_its_path(asked, address):
    answer = asked.get(address)
    assert answer.status_code in (404, 422)
    assert list(answer.json()) == ["detail"]


def test_a_feature_file_that_points_elsewhere_is_not_followed(drawn_run, tmp_path):
    engine = opened(drawn_run)
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    for path in (str(tmp_path / "secret.png"), f"{'../' * 20}{tmp_path}/secret.png"):
        object.__setattr__(engine.gallery, "paths", [path])
        answer = client(engine).get("/api/images/0")
        assert (answer.status_code, answer.json()) == (
            404,
            {"detail": "picture 0 does not lie in the folder of the pictures"},
        )


def test_every_answer_carries_the_headers(asked, engine, monkeypatch):
    answers = [
        asked.get("/"),
        asked.get("/app.js"),
        asked.get("/api/info"),
        asked.get("/api/images/0/thumb"),
        asked.get("/nothing"),
        asked.post("/api/search", json={}),
        asked.post("/api/search", content=b" " * 70_000),
        asked.post("/api/search", json={}, headers={"Origin": "http://evil.example"}),
        client(engine, hosts=frozenset({"localhost"})).get("/"),
    ]
    monkeypatch.setattr(Engine, "ask", lambda *_: 1 / 0)
    answers.append(asked.post("/api/search", json={"images": [0]}))
    codes = [answer.status_code for answer in answers]
    assert codes == [200, 200, 200, 200, 404, 422, 413, 403, 421, 500]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_another_site_is_not_told_that_it_may_ask(asked):
    headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = asked.options("/api/search", headers=headers)
    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


class Parts(HTMLParser):
    """What a page loads, and what is written into it that a policy forbids."""

    def __init__(self):
        super().__init__()
        self.loaded, self.inline = [], []

    def handle_starttag(self, tag, attrs):
        names = dict(attrs)
        self.loaded += [names[n] for n in ("src", "href") if n in names]
        if tag == "style" or (tag == "script" and "src" not in names):
            self.inline.append(tag)
        self.inline += [n for n in names if n == "style" or n.startswith("on")]


def test_the_page_has_nothing_inline_and_nothing_from_elsewhere(asked):
    parts = Parts()
    parts.feed(asked.get("/").text)
    assert parts.inline == []
    assert all(re.match(r"[/#](?!/)", address) for address in parts.loaded)
    for address in {a for a in parts.loaded if a.startswith("/")}:
        assert asked.get(address).status_code == 200
    namespace = "http://www.w3.org/2000/svg"
    for file in PAGE.iterdir():
        assert not re.findall(r"(?:https?:)?//[a-z]", file.read_text().replace(namespace, ""))


def test_every_file_of_the_page_is_served_and_no_other():
    missing = {"missing.html"}  # for every other address
    served = {name for name, _ in pages.PAGE.values()}
    assert served | missing == {file.name for file in PAGE.iterdir()}


# --- Who is answered -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost@evil.example", 421),
        ("[::1", 421),
        ("", 421),
    ],
)
def test_a_loopback_service_answers_to_its_own_names(engine, host, status):
    asked = client(engine, hosts=serving.NAMES)
    answer = asked.get("/api/health", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        assert answer.json()["detail"] == f"this service does not answer for the host {host!r}"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://127.0.0.1:8000", 200),
        ("http://127.0.0.1:9000", 403),
        ("http://[", 403),
        ("http://[::1", 403),
        ("http://evil.example", 403),
        ("null", 403),
    ],
)
def test_another_sites_page_may_not_ask(asked, origin, status):
    headers = {"Origin": origin} if origin else {}
    answer = asked.post("/api/search", json={"images": [0]}, headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize(
    ("host", "private"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.4", False),
        ("localhost.evil.example", False),
    ],
)
def test_what_only_this_machine_reaches_is_known(host, private):
    assert serving.loopback(host) is private


def test_the_service_says_when_others_can_reach_it(engine, monkeypatch, capsys):
    class Server:
        def __init__(self, config):
            self.config = config

        def run(self, sockets):
            addresses.append(sockets[0].getsockname()[0])
            allowed.append(self.config.app.hosts)

    addresses, allowed = [], []
    monkeypatch.setattr("uvicorn.Server", Server)
    serving.serve(engine, None, "127.0.0.1", 0)
    private = capsys.readouterr().out
    serving.serve(engine, None, "0.0.0.0", 0)
    public = capsys.readouterr().out
    assert addresses == ["127.0.0.1", "0.0.0.0"]
    assert allowed == [{"127.0.0.1", "::1", "localhost"}, None]
    warning = "Whoever reaches 0.0.0.0 can search and see these pictures: nobody is asked who\n"
    assert warning in public
    assert "Whoever" not in private
    assert re.search(r"^Open http://127\.0\.0\.1:\d+/  \(Ctrl-C ends it\)$", private, re.MULTILINE)


def test_a_port_that_is_taken_is_said(engine):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        why = f"cannot listen at 127.0.0.1, port {port} .*: choose another with --host or --port"
        with pytest.raises(UserError, match=why):
            serving.serve(engine, None, "127.0.0.1", port)


def test_an_answer_is_sent_at_once():
    with serving.listening("127.0.0.1", 0) as listener:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# --- How much, how many, how long ----------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False], ids=["length said", "length not said"])
def test_a_request_is_read_up_to_its_limit(engine, known):
    asked = client(engine, upload_bytes=5000, body_bytes=300)
    for address, most in (("/api/uploads", 5000), ("/api/search", 300)):
        for length in (most, most + 1):
            body = b" " * length
            answer = asked.post(address, content=body if known else iter([body[:99], body[99:]]))
            assert answer.status_code == (422 if length == most else 413)
    assert answer.json()["detail"] == "the request has more than the 300 bytes that are read"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "this file is empty"),
        (b"not a picture", "this file is not a picture of a known format"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "this file is not a picture of a known"),
        (encoded("EPS"), "this file is not a picture of a known format"),
        (encoded("PNG", (64, 64))[:60], "this file is truncated or damaged"),
        (
            encoded("PNG", (1000, 101), "1"),  # some hundred bytes, 101,000 pixels
            "this file has 1000 x 101 pixels, more than the limit of 100,000",
        ),
    ],
    ids=["empty", "text", "svg", "eps", "truncated", "bomb"],
)
def test_what_is_uploaded_is_a_picture_within_limits(engine, content, sentence):
    answer = client(engine, upload_pixels=100_000).post("/api/uploads", content=content)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(sentence)


def test_more_requests_than_are_answered_are_asked_to_come_again(engine, monkeypatch):
    begun, go_on = threading.Semaphore(0), threading.Event()
    ask = Engine.ask

    def slow(self, question):
        begun.release()
        assert go_on.wait(20)
        return ask(self, question)

    monkeypatch.setattr(Engine, "ask", slow)
    asked = client(engine, asking=2)
    answers = []

    def search():
        answers.append(asked.post("/api/search", json={"images": [0]}).status_code)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert begun.acquire(timeout=20)
    assert begun.acquire(timeout=20)
    refused = asked.post("/api/search", json={"images": [0]})
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"
    assert asked.get("/api/health").status_code == 200  # what asks for no work is counted apart
    go_on.set()
    for thread in threads:
        thread.join()
    assert answers == [200, 200]
    assert asked.post("/api/search", json={"images": [0]}).status_code == 200


def test_work_that_takes_too_long_is_not_waited_for(engine, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(Engine, "attended", lambda *_: go_on.wait(20))
    asked = client(engine, seconds=0.05)
    answer = asked.post("/api/attention", json={"image": 0, "text": "red"})
    go_on.set()
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["detail"] == "this took longer than 0.05 s: try again"


def test_a_request_that_does_not_arrive_is_not_waited_for():
    sent = []

    async def receive():
        await asyncio.sleep(20)

    async def send(message):
        sent.append(message)

    async def never(*_):
        raise AssertionError("the request was passed on")

    guard = Guard(never, Limits(seconds=0.05), None, frozenset())
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"9")]}
    began = time.monotonic()
    asyncio.run(guard(scope, receive, send))
    assert time.monotonic() - began < 10
    assert sent[0]["status"] == 408
    assert guard.busy == {True: 0, False: 0}
    assert guard.arriving.held == 0


def test_bodies_that_do_not_end_give_way_to_those_that_do():
    async def whole():
        return {"type": "http.request", "body": b"9", "more_body": False}

    async def half():
        await asyncio.sleep(0.01 if sent["half"] else 0)
        sent["half"] += 1
        if sent["half"] > 1:
            await asyncio.sleep(20)
        return {"type": "http.request", "body": b"1", "more_body": True}

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"done"})

    def ask(receive):
        async def send(message):
            answers.append(message)

        answers = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/",
            "headers": [(b"content-length", b"9")],
        }
        return answers, asyncio.create_task(guard(scope, receive, send))

    async def all_of_it():
        slow = [ask(half) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert guard.busy == {True: 0, False: 0}
        soon, task = ask(whole)
        await task
        assert soon[0]["status"] == 503  # both came just now
        await asyncio.sleep(0.2)
        later, task = ask(whole)
        await task
        assert later[0]["status"] == 200
        await slow[0][1]
        assert slow[0][0][0]["status"] == 408
        assert not slow[1][1].done()
        slow[1][1].cancel()
        await slow[1][1]

    sent = {"half": 0}
    guard = Guard(app, Limits(arriving=2, patience=0.2), None, frozenset())
    asyncio.run(all_of_it())
    assert guard.arriving.held == 0


def test_no_more_bytes_are_held_than_may_be():
    async def receive():
        return {"type": "http.request", "body": b"1" * 6, "more_body": False}

    async def send(message):
        statuses.append(message.get("status"))

    async def app(scope, receive, send):
        await guard(scope, receive, send)  # a second, while the first is held

    statuses = []
    guard = Guard(app, Limits(held_bytes=10), None, frozenset())
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-length", b"6")]}
    asyncio.run(guard(scope, receive, send))
    assert statuses[0] == 503
    assert guard.arriving.held == 0


def test_how_it_is_can_be_asked_however_busy_it_is(engine):
    asked = client(engine, asking=0, showing=0)
    assert asked.get("/api/health").json() == {"status": "ok"}
    ready = asked.get("/api/ready")
    assert (ready.status_code, ready.headers["retry-after"]) == (503, "1")
    assert asked.get("/api/info").status_code == 503
    assert client(engine).get("/api/ready").json() == {"status": "ready"}


def test_small_pictures_take_no_more_memory_than_they_may(tmp_path):
    for i in range(9):
        Image.new("RGB", (64, 64), (20 * i, 0, 0)).save(tmp_path / f"{i}.png")
    one = len(Shown(0).picture(tmp_path / "0.png", 256))
    shown = Shown(4 * one)
    for i in [*range(9), *range(9)]:
        shown.picture(tmp_path / f"{i}.png", 256)
        assert sum(map(len, shown._kept.values())) == shown._held <= 4 * one
    assert len(shown._kept) >= 3
