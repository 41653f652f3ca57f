"""What `cqr serve` does."""

import contextlib
import ipaddress
import socket
import threading
import webbrowser
from collections.abc import Callable, Iterator

import uvicorn

from cqr.errors import UserError
from cqr.search.application import application
from cqr.search.engine import Engine
from cqr.search.guard import Limits
from cqr.search.suggestions import Suggestions

NAMES = frozenset({"127.0.0.1", "::1", "localhost"})
"""What this machine calls itself."""

CONNECTIONS = 200


def serve(
    engine: Engine,
    suggestions: Suggestions,
    host: str,
    port: int,
    announce: Callable[[str], None],
    limits: Limits = Limits(),
) -> None:
    """Answer until interrupted.

    Args:
        host: a name or an address of this machine; a loopback one also keeps out requests
            whose Host header is another (see `Guard`).
        port: 0 for any that is free.
        announce: called with the page's address once it is answered there.

    Raises:
        UserError: nobody may listen there, or somebody does already.
    """
    hosts = NAMES | {host.lower()} if loopback(host) else None
    with listening(host, port) as listener:
        server = uvicorn.Server(
            uvicorn.Config(
                application(engine, suggestions, limits, hosts),
                lifespan="off",
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=10,
                timeout_graceful_shutdown=2,
            )
        )
        shown = f"[{host}]" if ":" in host else host
        announce(f"http://{shown}:{listener.getsockname()[1]}/")
        server.run(sockets=[listener])


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
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        raise UserError(
            f"cannot listen at {host}, port {port} ({error.strerror or error}): choose another "
            "with --host or --port"
        ) from None
    with listener:
        yield listener


def open_soon(address: str) -> None:
    """Show the page in the user's browser, without waiting for it."""
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
