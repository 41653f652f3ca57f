"""The guard before the service, as a server would call it, without a service behind it."""

import asyncio
import json

import pytest

from cqr.machine import cores
from cqr.search.server.guard import Guard
from cqr.search.server.limits import Limits

HEADERS = {
    "content-security-policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
GONE = {"type": "http.disconnect"}


class Echo:
    """A service that answers with the body; `received` is all that it was told."""

    def __init__(self):
        self.received = []

    async def __call__(self, scope, receive, send):
        request = await receive()
        self.received += [request, await receive()]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": request["body"]})


def scope(method="GET", path="/", **headers):
    listed = [
        (name.replace("_", "-").encode(), value.encode("latin-1"))
        for name, value in headers.items()
    ]
    return {"type": "http", "method": method, "path": path, "headers": listed}


def parted(*parts):
    """The messages of a body that arrives in parts."""
    last = len(parts) - 1
    return [
        {"type": "http.request", "body": part, "more_body": i < last}
        for i, part in enumerate(parts)
    ]


async def answered(guard, asked, messages=None):
    """Status, headers and body of the answer; the messages that were not read stay."""
    messages, sent = parted(b"") if messages is None else messages, []

    async def receive():
        return messages.pop(0) if messages else GONE

    async def send(message):
        sent.append(message)

    await guard(asked, receive, send)
    start, body = sent
    assert (start["type"], body["type"]) == ("http.response.start", "http.response.body")
    pairs = [(name.decode(), value.decode()) for name, value in start["headers"]]
    assert len(dict(pairs)) == len(pairs)
    return start["status"], dict(pairs), body["body"]


def ask(guard, asked, messages=None):
    return asyncio.run(answered(guard, asked, messages))


def guarded(app=None, hosts=None, large=(), **limits):
    return Guard(app or Echo(), Limits(**limits), hosts, frozenset(large))


def refusal(detail, **more):
    body = json.dumps({"detail": detail}).encode()
    own = {"content-type": "application/json", "content-length": str(len(body))}
    return HEADERS | own | more, body


def test_what_is_passed_on_is_whole_and_the_answer_carries_the_headers():
    app = Echo()
    guard = guarded(app)
    assert ask(guard, scope("POST"), parted(b"ab", b"", b"cd")) == (
        200, HEADERS | {"a": "b"}, b"abcd",
    )  # fmt: skip
    whole = {"type": "http.request", "body": b"abcd", "more_body": False}
    assert app.received == [whole, GONE]
    assert guard.busy == {True: 0, False: 0}


def test_a_message_without_a_body_is_the_end_of_an_empty_one():
    assert ask(guarded(), scope(), [{"type": "http.request"}])[2] == b""


def test_what_is_no_request_is_passed_on_as_it_is():
    passed = []

    async def app(*what):
        passed.append(what)

    what = ({"type": "lifespan"}, object(), object())
    asyncio.run(guarded(app)(*what))
    assert passed == [what]


def test_the_limits_unless_others_are_said():
    many = max(2, cores())
    assert Limits() == Limits(
        upload_bytes=20_971_520, upload_pixels=40_000_000, uploads=100, body_bytes=65_536,
        connections=200, head_seconds=10.0, arriving=64, patience=1.0, held_bytes=268_435_456,
        asking=16 * many, showing=64, seconds=30.0, ending_seconds=8.0, threads=many,
        cache_bytes=67_108_864,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("host", "status"),
    [("here", 200), ("here:80", 200), ("HERE", 200), ("there", 421), ("[::1", 421), ("", 421)],
)
def test_only_its_own_names_are_answered(host, status):
    app = Echo()
    status_, *rest = ask(guarded(app, frozenset({"here"})), scope(host=host))
    assert status_ == status
    if status == 421:
        why = f"this service does not answer for the host {host!r}"
        assert (*rest,) == refusal(why)
        assert app.received == []
    assert ask(guarded(), scope(host=host))[0] == 200  # where any name will do


def test_a_request_without_a_host_is_for_none():
    named = guarded(hosts=frozenset({"here"}))
    assert ask(named, scope())[1:] == refusal("this service does not answer for the host ''")
    assert ask(guarded(), scope())[0] == 200


@pytest.mark.parametrize(
    ("origin", "status"), [("http://here:1", 200), ("http://here", 403), ("null", 403)]
)
def test_a_page_of_another_origin_may_look_but_not_ask(origin, status):
    guard = guarded()
    answer = ask(guard, scope("POST", host="here:1", origin=origin))
    assert answer[0] == status
    if status == 403:
        assert answer[1:] == refusal("another site's page may not ask this service")
    assert ask(guard, scope("GET", host="here:1", origin=origin))[0] == 200
    assert ask(guard, scope("POST", host="here:1"))[0] == 200
    assert guard.busy == {True: 0, False: 0}


def too_large(most):
    why = f"the request has more than the {most} bytes that are read"
    return (413, *refusal(why, connection="close"))


def test_a_body_is_read_up_to_its_limit():
    app = Echo()
    guard = guarded(app, large={"/up"}, body_bytes=4, upload_bytes=6)
    for path, most in (("/", 4), ("/up", 6), ("/up/", 4)):
        said = scope("POST", path, content_length=str(most))
        assert ask(guard, said, parted(b"x" * most))[2] == b"x" * most
        assert ask(guard, scope("POST", path), parted(b"xx", b"x" * (most - 2)))[0] == 200
        messages = parted(b"xx", b"x" * (most - 1), b"never read")
        assert ask(guard, scope("POST", path), messages) == too_large(most)
        assert len(messages) == 1
        messages = parted(b"never read")
        said = scope("POST", path, content_length=str(most + 1))
        assert ask(guard, said, messages) == too_large(most)
        assert len(messages) == 1
    assert len(app.received) == 2 * 2 * 3
    assert guard.busy == {True: 0, False: 0}


def test_a_length_that_is_no_number_is_not_believed():
    guard = guarded(body_bytes=4)
    for length in ("", "-9", "many", "²"):
        assert ask(guard, scope(content_length=length), parted(b"1234"))[0] == 200
        assert ask(guard, scope(content_length=length), parted(b"12345"))[0] == 413


def test_a_body_that_does_not_arrive_is_not_waited_for():
    async def late():
        sent = []

        async def send(message):
            sent.append(message)

        await guarded(seconds=0.01)(scope("POST"), lambda: asyncio.sleep(20), send)
        return sent

    start, body = asyncio.run(late())
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    expected = refusal("the request did not arrive in time: send it again", connection="close")
    assert (start["status"], headers, body["body"]) == (408, *expected)


def test_more_requests_at_a_time_than_are_answered_are_asked_to_come_again():
    async def crowd():
        go_on = asyncio.Event()

        async def waits(scope, receive, send):
            await go_on.wait()
            await Echo()(scope, receive, send)

        guard = guarded(waits, asking=2, showing=3)
        waiting = []
        for method, most, others in (("POST", 2, 0), ("GET", 3, 2), ("HEAD", 0, 5)):
            for _ in range(most):
                waiting.append(asyncio.create_task(answered(guard, scope(method))))
                await asyncio.sleep(0)
            assert sum(guard.busy.values()) == most + others
            assert await answered(guard, scope(method)) == (503, *busy)
        assert guard.busy == {True: 2, False: 3}
        go_on.set()
        codes = [status for status, *_ in await asyncio.gather(*waiting)]
        assert guard.busy == {True: 0, False: 0}
        return codes, (await answered(guard, scope("POST")))[0]

    busy = refusal("the service is busy: try again in a second", **{"retry-after": "1"})
    assert asyncio.run(crowd()) == ([200] * 5, 200)


def test_a_service_that_fails_is_no_longer_busy():
    async def fails(*_):
        raise ZeroDivisionError

    guard = guarded(fails)
    for method in ("GET", "POST"):
        with pytest.raises(ZeroDivisionError):
            ask(guard, scope(method))
    assert guard.busy == {True: 0, False: 0}


def test_a_body_that_its_caller_broke_off_is_not_passed_on():
    app = Echo()
    messages = [{"type": "http.request", "body": b"ab", "more_body": True}, GONE]
    status, *rest = ask(guarded(app), scope("POST", content_length="4"), messages)
    assert (status, *rest) == (400, *refusal("the request ended before its body did"))
    assert app.received == []
