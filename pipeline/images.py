"""Turn any picture file into upright 8-bit RGB, or say why not."""

import contextlib
import io
import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

MAX_PIXELS = 100_000_000
"""A larger picture is refused: 100 million pixels are 300 MB once decoded."""

FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM")
"""Pillow reads more: EPS among it, whose file is a program that it lets Ghostscript run."""

_ORIENTATION = 0x0112
_WHITE = (255, 255, 255, 255)


class Refused(Exception):
    """A picture that cannot be used; the message says why, without its name."""


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


def decode(source: Path | bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The upright picture, H x W x 3, RGB.

    EXIF orientation is applied, transparency lies on white, 16 bits are scaled
    to 8, CMYK is converted, an animation gives its first frame.

    Args:
        source: a file, or what is in one.

    Raises:
        Refused: not a regular file, empty, no picture of FORMATS, damaged, more than
            `max_pixels`, or of pixels whose range is not known.
    """
    with _opened(source, max_pixels) as image:
        try:
            image.load()
            _turn(image)
            return np.array(_rgb(image))
        except (MemoryError, Refused):
            raise
        except Exception as error:  # decoders raise nearly anything on damaged data
            raise Refused(f"is truncated or damaged ({sentence(error)})") from error


def _opened(source: Path | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    try:
        if isinstance(source, bytes):
            length = len(source)
        else:
            status = os.stat(source)
            if not stat.S_ISREG(status.st_mode):
                raise Refused("is not a regular file")
            length = status.st_size
        if length == 0:
            raise Refused("is empty")
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        image = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise Refused("is not a picture of a known format") from None
    except Image.DecompressionBombError:
        raise Refused(f"has more than {max_pixels:,} pixels") from None
    except (Refused, MemoryError):
        raise
    except Exception as error:
        known = isinstance(error, OSError) and error.errno is not None
        what = "cannot be opened" if known else "is truncated or damaged"
        raise Refused(f"{what} ({sentence(error)})") from error
    if image.width * image.height > max_pixels:
        image.close()
        raise Refused(
            f"has {image.width} x {image.height} pixels, more than the limit of {max_pixels:,}"
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
