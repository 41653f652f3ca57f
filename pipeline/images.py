"""Turn any picture file into upright 8-bit RGB, or say why not."""

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError, features
from PIL.JpegImagePlugin import JpegImageFile

from cqr.errors import UserError, scarcity

MAX_PIXELS = 100_000_000
"""A larger picture is refused: 100 million pixels are 300 MB once decoded."""

Image.MAX_IMAGE_PIXELS = None
"""Pillow's own limit, whose words do not say the size; ours is held in its place."""

FORMATS = ("JPEG", "JPEG2000", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "PPM", "HEIF")
"""Pillow reads more: EPS among it, whose file is a program that it lets Ghostscript run."""

if find_spec("pillow_heif"):
    import pillow_heif

    pillow_heif.register_heif_opener()

_ORIENTATION = 0x0112
_MAX_SAMPLE_VALUE = 281
_BITS = (8, 10, 12, 14, 16)
"""Of grey values that cameras and scanners write into 16."""
_WHITE = (255, 255, 255, 255)


class Decoded(NamedTuple):
    """An upright picture.

    Attributes:
        pixels: H x W x 3 uint8, RGB.
        guessed: whether its range was taken from its largest value, since the file says none.
        size: (width, height) of the picture as it is in the file, upright; the pixels are fewer
            where a JPEG was decoded at a fraction of it.
    """

    pixels: NDArray[np.uint8]
    guessed: bool
    size: tuple[int, int]


Fraction = Callable[[int, int], int]
"""(width, height) of an upright JPEG to n, 1 or of DIVISORS: it may be decoded at 1/n of it."""

DIVISORS = (8, 4, 2)
"""libjpeg leaves out the finer part of each block of 8 x 8 while it decodes, and so is faster."""


class Refused(Exception):
    """A picture that cannot be used; the message says why, without its name."""


class TooLarge(Refused):
    """It has more pixels than are allowed."""


def size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, from its header alone; (0, 0) if unknown.

    It is for sorting: a header may promise what the pixels do not keep, or
    leave the orientation to the end of the file.

    Raises:
        UserError: the machine has no descriptor or no memory left for it.
    """
    try:
        with _opened(path) as image:
            width, height = image.size
            # PNG may keep its EXIF block after the pixels: asking for it would decode them.
            # For TIFF, Pillow gives the upright size from the start.
            apart = "exif" in image.info if image.format == "PNG" else image.format != "TIFF"
            turned = apart and _is_turned(image)
    except (MemoryError, UserError):
        raise
    except Exception:
        return 0, 0
    return (height, width) if turned else (width, height)


def decode(source: Path | bytes, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The pixels of `decoded`."""
    return decoded(source, max_pixels).pixels


def reduced(size: tuple[int, int], divisor: int) -> tuple[int, int]:
    """What libjpeg makes of a (width, height) at 1/divisor of it."""
    return -(-size[0] // divisor), -(-size[1] // divisor)


def decoded(
    source: Path | bytes, max_pixels: int = MAX_PIXELS, fraction: Fraction | None = None
) -> Decoded:
    """The upright picture, H x W x 3, RGB.

    EXIF orientation is applied, transparency lies on white, CMYK is converted, an animation
    gives its first frame.  Grey of 16 bits is scaled to 8 by the range that the file states (sBIT
    of PNG, MaxSampleValue of TIFF), else by the fewest of 8, 10, 12, 14 and 16 bits that hold it.

    Args:
        source: a file, or what is in one.
        max_pixels: of the picture as it is in the file.
        fraction: at what fraction of its size a JPEG may be decoded; None: none, as it is.

    Raises:
        Refused: not a regular file, empty, no picture of FORMATS, damaged, more than
            `max_pixels`, or of pixels whose range is not known.
        UserError: the machine has no descriptor or no memory left for it.
    """
    with _opened(source, max_pixels) as image:
        try:
            deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))
            stated = _stated(image, source)
            whole = image.size
            if fraction is not None:
                _draft(image, fraction)
            drafted = image.size
            image.load()
            _turn(image)
            size = whole if image.size == drafted else whole[::-1]
            if image.mode.startswith("I"):
                return _eight_bits(image, stated)
            pixels = np.array(_rgb(image))
            if deep and pixels.max() < 16:  # Pillow keeps the upper eight of 16 bits
                raise Refused(
                    "has 16 bits a channel that hold 12 or fewer, and would be black; save it"
                    " with 8"
                )
            return Decoded(pixels, False, size)
        except (MemoryError, Refused):
            raise
        except Exception as error:  # decoders raise nearly anything on damaged data
            _check_scarce(error, source)
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
        image = _header(file)
    except UnidentifiedImageError:
        raise Refused(f"is not a picture of a known format{_codec(source)}") from None
    except (Refused, MemoryError):
        raise
    except Exception as error:
        _check_scarce(error, source)
        known = isinstance(error, OSError) and error.errno is not None
        what = "cannot be opened" if known else "is truncated or damaged"
        raise Refused(f"{what} ({sentence(error)})") from error
    if image.width * image.height > max_pixels:
        image.close()
        raise TooLarge(
            f"has {image.width} x {image.height} pixels, more than the limit of {max_pixels:,}"
        )
    return image


def _header(file: Path | io.BytesIO) -> Image.Image:
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    try:
        return Image.open(file, formats=formats)
    except MemoryError:
        if isinstance(file, io.BytesIO):
            raise
        # A file makes room for whatever a damaged header asks for; a buffer, for what it holds.
        return Image.open(io.BytesIO(file.read_bytes()), formats=formats)


def _check_scarce(error: Exception, source: Path | bytes) -> None:
    """Raises UserError where the machine is at fault: then the picture is not to be passed over."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        what = "a picture" if isinstance(source, bytes) else source
        raise UserError(f"cannot read {what}: {scarcity(error)}") from error


def _codec(source: Path | bytes) -> str:
    """What is to be installed for a picture that begins as HEIF or AVIF does, or ""."""
    try:
        with _bytes_of(source) as file:
            head = file.read(32)
    except OSError:
        return ""
    if head[4:8] != b"ftyp":
        return ""
    if b"avif" in head or b"avis" in head:
        return "" if features.check("avif") else " (AVIF needs a Pillow that was built with it)"
    heic = any(brand in head for brand in (b"heic", b"heix", b"mif1", b"hevc"))
    return " (HEIC needs `pip install 'cqr[heic]'`)" if heic and "HEIF" not in Image.OPEN else ""


def _is_turned(image: Image.Image) -> bool:
    """Whether its width is the upright picture's height."""
    return image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)


def _draft(image: Image.Image, fraction: Fraction) -> None:
    """Have a JPEG decoded at a fraction of its size, which `image.size` then is."""
    if not isinstance(image, JpegImageFile):
        return
    try:
        turned = _is_turned(image)
    except (ValueError, SyntaxError, KeyError, TypeError, OSError):
        turned = False  # as `_turn` takes a block that cannot be read
    width, height = image.size
    divisor = fraction(height, width) if turned else fraction(width, height)
    less = reduced(image.size, divisor)
    # One that becomes a square would not show whether it was turned.
    if divisor > 1 and (less[0] == less[1]) == (width == height):
        image.draft(None, (width // divisor, height // divisor))


def _turn(image: Image.Image) -> None:
    """Turn a picture upright in place."""
    with contextlib.suppress(ValueError, SyntaxError, KeyError, TypeError, OSError):
        ImageOps.exif_transpose(image, in_place=True)  # a block that cannot be read says nothing


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise Refused("has floating-point pixels; save it with 8 or 16 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, _WHITE)
        image = Image.alpha_composite(white, image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image, stated: int) -> Decoded:
    """Grey of more than 8 bits as 8-bit RGB: 0 to 0, the end of the range to 255, to the nearest.

    Args:
        stated: the largest value that the file says there may be; 0 for none.
    """
    values = np.asarray(image)
    largest = int(values.max())
    if values.min() < 0 or largest > 65535:
        raise Refused("has 32-bit pixels; save it with 8 or 16 bits a channel")
    fitting = next(2**bits - 1 for bits in _BITS if largest < 2**bits)
    states = stated > 0 and stated >= largest
    end = stated if states else fitting
    scaled = (values.astype(np.uint32) * 510 + end) // (2 * end)
    grey = Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).convert("RGB")
    guessed = not states and largest > 0 and end < 65535
    return Decoded(np.array(grey), guessed, grey.size)


def _stated(image: Image.Image, source: Path | bytes) -> int:
    """The largest grey value that the file says there may be; 0 where it says none."""
    if image.format == "TIFF":
        value = getattr(image, "tag_v2", {}).get(_MAX_SAMPLE_VALUE, 0)
        value = value[0] if isinstance(value, tuple) and value else value
        return int(value) if isinstance(value, int) and 0 < value < 65535 else 0
    if image.format == "PNG":
        with _bytes_of(source) as file:
            bits = _significant_bits(file)
        return 2**bits - 1 if 0 < bits < 16 else 0
    return 65535 if image.format == "PPM" else 0  # scaled by Pillow


def _bytes_of(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")


def _significant_bits(file: IO[bytes]) -> int:
    """What the chunk sBIT of a PNG says of its first channel; 0 where there is none."""
    file.seek(8)
    for _ in range(100):
        head = file.read(8)
        if len(head) < 8 or head[4:] == b"IDAT":
            return 0
        if head[4:] == b"sBIT":
            return file.read(1)[0]
        file.seek(int.from_bytes(head[:4], "big") + 4, os.SEEK_CUR)
    return 0


def sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
