"""What `cqr serve` does."""

import contextlib
import ipaddress
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NoReturn

from cqr.errors import UserError
from cqr.search.engine import Engine
from cqr.search.server.collected import Collected
from cqr.search.server.limits import Limits
from cqr.search.server.suggestions import Suggestions

if TYPE_CHECKING:  # known without the packages that the service runs on
    from cqr.search.server.journal import Journal

NAMES = frozenset({"127.0.0.1", "::1", "localhost"})
"""What this machine calls itself."""


def needed() -> None:
    """Raises UserError where the packages of the service are not installed."""
    if not (find_spec("fastapi") and find_spec("uvicorn")):
        raise UserError("the service needs FastAPI and uvicorn: pip install 'cqr[serve]'")


def serve(
    engine: Engine,
    suggestions: Suggestions,
    host: str,
    port: int,
    *,
    show: bool = False,
    collected: Collected | None = None,
    beside: Engine | None = None,
    journal: "Journal | None" = None,
    limits: Limits | None = None,
) -> None:
    """Answer until interrupted.

    Args:
        host: a name or an address of this machine; a loopback one also keeps out requests
            whose Host header is another (see `Guard`).
        port: 0 for any that is free.
        show: also open the page in the user's browser.
        collected: the table that answers are kept in; None keeps none.
        beside: another run over the same pictures, to be asked beside; None for none.
        journal: gets a line for each request; None keeps none.
        limits: on what callers may ask; None is those that a service has.

    Raises:
        UserError: nobody may listen there, or somebody does already.
    """
    import uvicorn

    from cqr.search.server.application import application
    from cqr.search.server.connections import Connection

    limits = limits or Limits()
    connection: Any = partial(Connection, limits=limits, journal=journal)
    private = loopback(host)
    hosts = NAMES | {host.lower()} if private else None
    server = uvicorn.Server(
        uvicorn.Config(
            application(
                engine, suggestions, limits, hosts, collected, beside=beside, journal=journal
            ),
            http=connection,
            lifespan="off",
            ws="none",
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=round(limits.ending_seconds),
        )
    )
    with listening(host, port) as listener:
        name = f"[{host}]" if ":" in host else host
        address = f"http://{name}:{listener.getsockname()[1]}/"
        print(f"{engine.run.path}: {len(engine.gallery):,} pictures, {engine.index.name} index")
        if not private:
            print(f"Whoever reaches {host} can search and see these pictures: nobody is asked who")
        if collected is not None:
            print(f"Answers are kept in {collected.path}")
        if beside is not None:
            print(f"Beside it: {beside.run.path}")
        print(f"Open {address}  (Ctrl-C ends it)", flush=True)
        threading.Thread(target=load, args=([engine, beside],), daemon=True).start()
        if show:  # it may take seconds, and waits for the first answer
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):  # which uvicorn raises again when it has ended
            server.run(sockets=[listener])


def leave() -> NoReturn:
    """End the process at once.

    To take an interpreter with torch down takes a second and more, and a thread that works for a
    caller who was told that it took too long would be waited for.  Nothing is left to be written.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def load(engines: Iterable[Engine | None]) -> None:
    """Load the detectors, so that the first picture does not wait; what is absent says so then."""
    for engine in engines:
        with contextlib.suppress(UserError):
            if engine is not None:
                engine.new_pictures.load()


def loopback(host: str) -> bool:
    """Whether only this machine can reach that address of it."""
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that listens there.

    Raises:
        UserError: nobody may, or somebody does already.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        listener = socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}, port {port} ({error.strerror or error}): choose another "
            "with --host or --port"
        ) from None
    with listener:
        # Passed on to each connection.  asyncio sets it only for sockets that say their protocol,
        # which these do not; without it the end of an answer waits 40 ms for a packet to fill.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield listener
