"""Find picture files, and turn any of them into upright 8-bit RGB, or say why not."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from cqr.errors import UserError
from cqr.pipeline.shards import Failure

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif", ".jp2")
_OTHERS = (
    ".png",
    ".webp",
    ".avif",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
)
SUFFIXES = frozenset(_JPEG + _OTHERS)
MAX_PIXELS = 100_000_000
"""A larger picture is refused: 100 million pixels are 300 MB once decoded."""

_ORIENTATION = 0x0112
_WHITE = (255, 255, 255, 255)


class Refused(Exception):
    """A picture that cannot be used; the message says why, without its name."""


# --- finding -----------------------------------------------------------------------------------


def find(root: Path, skip: Path | None = None) -> tuple[list[str], list[Failure]]:
    """The picture files under `root`, and those whose name cannot be stored.

    Paths are relative to `root`, "/" separated, sorted.  A picture is known by
    its suffix, in any case.  Hidden files and folders are left out, and so is
    the folder `skip` (where the program itself writes).  Links are followed,
    except to a folder that the link lies in.

    Raises:
        UserError: `root` is not a folder, one in it cannot be listed, or there is no picture.
    """
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; name a folder of pictures with --images")
    left_out = None if skip is None or skip.resolve() == root.resolve() else skip.resolve()
    names = sorted(_walk(root, "", (root.resolve(),), left_out))
    paths = [name for name in names if is_utf8(name)]
    refused = [Failure(readable(n), "name is not valid UTF-8") for n in names if not is_utf8(n)]
    if not names:
        raise UserError(
            f"no pictures in {root} (looked for {' '.join(sorted(SUFFIXES))}, in any case,"
            f" in all folders below it); name another folder with --images"
        )
    return paths, refused


def _walk(folder: Path, prefix: str, above: tuple[Path, ...], skip: Path | None) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        raise UserError(
            f"cannot list {folder}: {error.strerror}; give yourself access or move it away"
        ) from error
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            real = Path(entry.path).resolve()
            if real != skip and real not in above:
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, real), skip)
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(name: str) -> str:
    """A file name as valid text: bytes that are not UTF-8 become `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# --- decoding ----------------------------------------------------------------------------------


def size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, from its header alone; (0, 0) if unknown.

    It is for sorting: a header may promise what the pixels do not keep, or
    leave the orientation to the end of the file.
    """
    try:
        with _opened(path) as image:
            width, height = image.size
            # PNG may keep its EXIF block after the pixels: asking for it would decode them.
            # For TIFF, Pillow gives the upright size from the start.
            apart = "exif" in image.info if image.format == "PNG" else image.format != "TIFF"
            turned = apart and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except MemoryError:
        raise
    except Exception:
        return 0, 0
    return (height, width) if turned else (width, height)


def decode(path: Path) -> NDArray[np.uint8]:
    """The upright picture, H x W x 3, RGB.

    EXIF orientation is applied, transparency lies on white, 16 bits are scaled
    to 8, CMYK is converted, an animation gives its first frame.

    Raises:
        Refused: not a regular file, empty, no picture, damaged, more than
            MAX_PIXELS, or of pixels whose range is not known.
    """
    with _opened(path) as image:
        try:
            image.load()
            _turn(image)
            return np.array(_rgb(image))
        except (MemoryError, Refused):
            raise
        except Exception as error:  # decoders raise nearly anything on damaged data
            raise Refused(f"is truncated or damaged ({sentence(error)})") from error


def _opened(path: Path) -> Image.Image:
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("is not a regular file")
        if status.st_size == 0:
            raise Refused("is empty")
        image = Image.open(path)
    except UnidentifiedImageError:
        raise Refused("is not a picture of a known format") from None
    except Image.DecompressionBombError:
        raise Refused(f"has more than {MAX_PIXELS:,} pixels") from None
    except (Refused, MemoryError):
        raise
    except Exception as error:
        known = isinstance(error, OSError) and error.errno is not None
        what = "cannot be opened" if known else "is truncated or damaged"
        raise Refused(f"{what} ({sentence(error)})") from error
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Refused(
            f"has {image.width} x {image.height} pixels, more than the limit of {MAX_PIXELS:,}"
        )
    return image


def _turn(image: Image.Image) -> None:
    """Turn a picture upright in place."""
    with contextlib.suppress(ValueError, SyntaxError, KeyError, TypeError, OSError):
        ImageOps.exif_transpose(image, in_place=True)  # a block that cannot be read says nothing


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _eight_bits(image)
    if image.mode == "F":
        raise Refused("has floating-point pixels; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, _WHITE)
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit RGB: 0 to 0, 65535 to 255, the rest to the nearest."""
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise Refused("has 32-bit pixels; save it with 8 or 16 bits a channel")
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
