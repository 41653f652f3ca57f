"""Pictures as the page shows them: small JPEGs, made when they are asked for."""

import hashlib
import io
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cqr.pipeline import images
from cqr.pipeline.detectors import Picture
from cqr.search.question import Reference

THUMB, LARGE = 256, 1024
"""Pixels of the longer edge of a small picture and of a large one; none is enlarged."""


def jpeg(picture: Picture, edge: int) -> bytes:
    """A picture, no longer than `edge`, with nothing of its file but pixels: no place, no owner."""
    image = Image.fromarray(picture)
    image.thumbnail((edge, edge), reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88, subsampling=0)
    return out.getvalue()


class Shown:
    """Small pictures of files, the last used kept in memory; may be used by several threads."""

    def __init__(self, cache_bytes: int) -> None:
        self._most = cache_bytes
        self._held = 0
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def tag(self, file: Path, edge: int) -> str:
        """Another one whenever the file is.

        Raises:
            Refused: it is not there.
        """
        try:
            status = file.stat()
        except OSError as error:
            raise images.Refused(f"cannot be opened ({images.sentence(error)})") from None
        about = f"{file}\n{status.st_mtime_ns}\n{status.st_size}\n{edge}"
        return hashlib.sha256(about.encode(errors="surrogateescape")).hexdigest()[:32]

    def picture(self, file: Path, edge: int) -> bytes:
        """A JPEG of a picture file.

        Raises:
            Refused: as `images.decode`.
        """
        tag = self.tag(file, edge)
        with self._lock:
            if tag in self._kept:
                self._kept.move_to_end(tag)
                return self._kept[tag]
        made = jpeg(images.decode(file), edge)
        with self._lock:
            if tag not in self._kept:
                self._kept[tag] = made
                self._held += len(made)
            while self._held > self._most:
                self._held -= len(self._kept.popitem(last=False)[1])
        return made


@dataclass(frozen=True, eq=False)
class Upload:
    """A picture that a caller gave.

    Attributes:
        reference: its regions.
        large: a JPEG of it.
        width, height: of the upright original.
        beside: its regions as another run sees them, where one was asked for.
    """

    reference: Reference
    large: bytes
    width: int
    height: int
    beside: Reference | None = None


class Uploads:
    """The last pictures that callers gave, by an id that nobody can guess; in memory alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, upload: Upload) -> str:
        name = secrets.token_hex(16)
        with self._lock:
            self._kept[name] = upload
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return name

    def get(self, name: str) -> Upload | None:
        with self._lock:
            return self._kept.get(name)
