"""Small copies of pictures, to be kept in a page: each once, however often it is shown."""

import base64
import io
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from cqr.pipeline import images
from cqr.pipeline.feature_file import FeatureFile

SMALL, LARGE = 176, 320
"""Longer edge in pixels of a picture among others, and of one that boxes are drawn on."""

BUDGET = 2_000_000
"""Bytes that the pictures of a page may take, 4/3 of which its base64 does."""

QUALITY = 75


@dataclass(frozen=True)
class Picture:
    """A picture in a page.

    Attributes:
        name: its id there.
        path: as the feature file names it.
        width, height: of the coordinates in which it is drawn.
        webp: the small copy; None where the picture cannot be read.
    """

    name: str
    path: str
    width: int
    height: int
    webp: bytes | None


class Album:
    """The pictures of a page, by path.  One that cannot be read is an empty frame of its shape."""

    def __init__(self, pictures: Mapping[str, Picture]) -> None:
        self.pictures = pictures

    def __getitem__(self, path: str) -> Picture:
        return self.pictures[path]

    @property
    def missing(self) -> list[str]:
        return [path for path, picture in self.pictures.items() if picture.webp is None]

    @property
    def shape(self) -> float:
        """Width over height of the picture in the middle, when sorted by it; 0.6 to 1.6."""
        shapes = sorted(p.width / p.height for p in self.pictures.values())
        return min(max(shapes[len(shapes) // 2], 0.6), 1.6) if shapes else 1.0

    def definitions(self) -> str:
        """The element that holds every picture; `use` shows one."""
        symbols = "".join(_symbol(picture) for picture in self.pictures.values())
        return f'<svg width="0" height="0" class="album" aria-hidden="true">{symbols}</svg>'


def use(picture: Picture, drawn: str = "", more: str = "") -> str:
    """An element that shows a picture, and what is drawn over it in its coordinates.

    Args:
        more: of its title, after the path.
    """
    title = escape(picture.path[-200:] + more)
    return (
        f'<svg class="picture" role="img" viewBox="0 0 {picture.width} {picture.height}">'
        f'<title>{title}</title><use href="#{picture.name}"/>{drawn}</svg>'
    )


def _symbol(picture: Picture) -> str:
    """A group, not a `symbol`: it needs no size of its own where it is used."""
    size = f'width="{picture.width}" height="{picture.height}"'
    if picture.webp is None:
        x, y = picture.width / 2, picture.height / 2
        return (
            f'<g id="{picture.name}"><rect {size} class="frame"/>'
            f'<text x="{x:g}" y="{y:g}" class="gone">no picture</text></g>'
        )
    data = base64.b64encode(picture.webp).decode()
    return f'<image id="{picture.name}" {size} href="data:image/webp;base64,{data}"/>'


def album(file: FeatureFile, large: Iterable[str], small: Iterable[str]) -> Album:
    """Read pictures and make small copies, smaller ones still where they are many.

    Args:
        file: whose `image_root` the paths are below.
    """
    edges = dict.fromkeys(small, SMALL) | dict.fromkeys(large, LARGE)
    rows = {path: row for row, path in enumerate(file.paths)}
    copies: dict[str, Image.Image | None] = {}
    for path, edge in edges.items():
        copies[path] = _read(Path(file.image_root) / path, edge)
    packed = _packed(copies)
    pictures = {}
    for i, (path, copy) in enumerate(copies.items()):
        if copy is not None:
            size = copy.size
        elif path in rows:
            size = _fitted((int(file.sizes[rows[path]][0]), int(file.sizes[rows[path]][1])), LARGE)
        else:
            size = (LARGE, LARGE * 3 // 4)
        pictures[path] = Picture(f"p{i}", path, *size, packed[path])
    return Album(pictures)


def _read(path: Path, edge: int) -> Image.Image | None:
    """A copy whose longer edge is `edge` at most; None where the picture cannot be used."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of large pictures and damaged metadata
            picture = Image.fromarray(images.decode(path))
    except (images.Refused, MemoryError):
        return None
    return picture.resize(_fitted(picture.size, edge), Image.Resampling.LANCZOS)


def _fitted(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """The size with the longer edge cut to `edge`, in whole pixels, 1 at least."""
    scale = min(1.0, edge / max(*size, 1))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _packed(copies: Mapping[str, Image.Image | None]) -> dict[str, bytes | None]:
    """WebP files, BUDGET bytes at most together; what is too much makes all of them smaller."""
    scale = 1.0
    while True:
        packed = {
            path: None if copy is None else _webp(copy, scale) for path, copy in copies.items()
        }
        total = sum(len(data) for data in packed.values() if data)
        if total <= BUDGET or scale < 0.05:
            return packed
        scale *= 0.9 * (BUDGET / total) ** 0.5


def _webp(picture: Image.Image, scale: float) -> bytes:
    if scale < 1:
        picture = picture.resize(
            (max(1, round(picture.width * scale)), max(1, round(picture.height * scale))),
            Image.Resampling.LANCZOS,
        )
    out = io.BytesIO()
    picture.save(out, "WEBP", quality=QUALITY, method=4)
    return out.getvalue()
