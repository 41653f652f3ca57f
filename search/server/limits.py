"""How much the service does for whoever asks; known without the packages that it runs on."""

from dataclasses import dataclass, field

from cqr.machine import cores


@dataclass(frozen=True)
class Limits:
    """What one service does at most.

    Attributes:
        upload_bytes: of an uploaded file.
        upload_pixels: of the picture in it.
        uploads: that are kept; the oldest goes first.
        body_bytes: of any other request.
        connections: at a time.
        head_seconds: for the head of a request.
        arriving: requests at a time whose body is on its way.
        patience: seconds before such a one gives way to another, where they are too many.
        held_bytes: of the bodies of all requests.
        asking: requests at a time that ask for work (POST), waiting for a thread or at it.
        showing: of the others.
        seconds: for reading a request, again for answering it, and for the caller to take it.
        ending_seconds: that work in hand is waited for when the service is told to end.
        threads: that do the work of POST; as many others make small pictures.
        cache_bytes: of small pictures that are kept.
    """

    upload_bytes: int = 20 * 2**20
    upload_pixels: int = 40_000_000
    uploads: int = 100
    body_bytes: int = 64 * 2**10
    connections: int = 200
    head_seconds: float = 10.0
    arriving: int = 64
    patience: float = 1.0
    held_bytes: int = 256 * 2**20
    asking: int = field(default_factory=lambda: 16 * max(2, cores()))
    showing: int = 64
    seconds: float = 30.0
    ending_seconds: float = 8.0
    threads: int = field(default_factory=lambda: max(2, cores()))
    cache_bytes: int = 64 * 2**20
