"""How much the service does for whoever asks; known without the packages that it runs on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one service does at most.

    Attributes:
        upload_bytes: of an uploaded file.
        upload_pixels: of the picture in it.
        uploads: that are kept; the oldest goes first.
        body_bytes: of any other request.
        asking: requests at a time that ask for work (POST).
        showing: of the others.
        seconds: for reading a request, and again for answering it.
        threads: that do the work of POST; as many others make small pictures.
        cache_bytes: of small pictures that are kept.
    """

    upload_bytes: int = 20 * 2**20
    upload_pixels: int = 40_000_000
    uploads: int = 100
    body_bytes: int = 64 * 2**10
    asking: int = 8
    showing: int = 64
    seconds: float = 30.0
    threads: int = 2
    cache_bytes: int = 64 * 2**20
