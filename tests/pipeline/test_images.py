"""Every kind of picture file: upright RGB, or a reason."""

import errno
import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cqr import listing
from cqr.errors import UserError
from cqr.pipeline import images

pytestmark = pytest.mark.filterwarnings("ignore")  # Pillow's, of damaged metadata

PIXELS = np.random.default_rng(0).integers(0, 255, (12, 8, 3), np.uint8)


def encoded(format: str, image: Image.Image | None = None, **options) -> bytes:
    stream = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(stream, format, **options)
    return stream.getvalue()


def reason(path: Path) -> str:
    with pytest.raises(images.Refused) as caught:
        images.decode(path)
    return str(caught.value)


# --- pictures that can be used -----------------------------------------------------------------


def test_plain(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    assert np.array_equal(images.decode(tmp_path / "a.png"), PIXELS)
    assert images.decode(tmp_path / "a.png").flags.writeable
    assert images.size(tmp_path / "a.png") == (8, 12)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns(tmp_path, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if format == "WEBP" else {}
    (tmp_path / "a").write_bytes(encoded(format, exif=exif, **lossless))
    turned = {  # EXIF 2.32, table 9: what row 0 and column 0 of the file are
        1: PIXELS,
        2: PIXELS[:, ::-1],
        3: PIXELS[::-1, ::-1],
        4: PIXELS[::-1],
        5: PIXELS.swapaxes(0, 1),
        6: PIXELS[::-1].swapaxes(0, 1),
        7: PIXELS[::-1, ::-1].swapaxes(0, 1),
        8: PIXELS[:, ::-1].swapaxes(0, 1),
    }[orientation]
    found = images.decode(tmp_path / "a")
    assert found.shape == turned.shape
    if format != "JPEG":
        assert np.array_equal(found, turned)
    assert images.size(tmp_path / "a") == (turned.shape[1], turned.shape[0])


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 65535), min_size=1, max_size=40))
def test_sixteen_bits_are_scaled_not_clipped(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("grey")
    grey = np.array([values], np.uint16)
    bits = next(b for b in (8, 10, 12, 14, 16) if max(values) < 2**b)
    expected = np.round(grey / (2**bits - 1) * 255)
    (folder / "a.png").write_bytes(encoded("PNG", Image.fromarray(grey)))
    (folder / "a.tif").write_bytes(encoded("TIFF", Image.fromarray(grey)))
    raw = grey.astype(">u2").tobytes()
    (folder / "a.pgm").write_bytes(b"P5 %d 1 65535\n" % len(values) + raw)
    for name in ("a.png", "a.tif"):
        found, guessed, _ = images.decoded(folder / name)
        assert (found == expected[..., None]).all()
        assert guessed == (max(values) > 0 and bits < 16)
    full = np.round(grey / 65535 * 255)  # a PGM says its range
    assert (images.decode(folder / "a.pgm") == full[..., None]).all()


def with_sbit(content, bits):
    """A PNG with a chunk sBIT after its header."""
    chunk = b"sBIT" + bytes([bits])
    return content[:33] + b"\0\0\0\1" + chunk + zlib.crc32(chunk).to_bytes(4, "big") + content[33:]


def test_the_range_that_a_file_states(tmp_path):
    grey = Image.fromarray(np.array([[0, 100, 1000]], np.uint16))
    (tmp_path / "a.png").write_bytes(with_sbit(encoded("PNG", grey), 12))
    grey.save(tmp_path / "b.tif", tiffinfo={281: 2000})
    for name, expected in (("a.png", [0, 6, 62]), ("b.tif", [0, 13, 128])):
        found, guessed, _ = images.decoded(tmp_path / name)
        assert found[0, :, 0].tolist() == expected
        assert not guessed


@pytest.mark.parametrize("largest", [200, 900, 4000, 9000])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_grey_of_few_bits_is_never_black(tmp_path, largest, dtype):
    """8 bits in 16, 12 bits, depth in millimetres, 32-bit integers."""
    ramp = np.linspace(0, largest, 64).astype(dtype).reshape(8, 8)
    (tmp_path / "a.tif").write_bytes(encoded("TIFF", Image.fromarray(ramp)))
    found, guessed, _ = images.decoded(tmp_path / "a.tif")
    assert found.max() > 127
    assert guessed


def test_colour_of_16_bits_that_hold_8_is_refused(tmp_path):
    """Pillow keeps the upper eight bits, which are all 0."""
    rows = b"".join(b"\0" + (b"\0\xff\0\x80\0\x01" * 4) for _ in range(4))
    head = (4).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    content = b"\x89PNG\r\n\x1a\n"
    for kind, data in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        crc = zlib.crc32(kind + data).to_bytes(4, "big")
        content += len(data).to_bytes(4, "big") + kind + data + crc
    with pytest.raises(images.Refused, match="would be black"):
        images.decode(content)


def test_heic_is_read_where_its_codec_is(tmp_path):
    pytest.importorskip("pillow_heif", reason="the next test shows what is said without it")
    red = Image.fromarray(np.full((20, 30, 3), (200, 30, 40), np.uint8))
    red.save(tmp_path / "a.heic", "HEIF")
    found = images.decode(tmp_path / "a.heic")
    assert found.shape == (20, 30, 3)
    assert np.abs(found.astype(int) - (200, 30, 40)).max() < 12
    assert listing.find(tmp_path)[0] == ["a.heic"]


def test_avif_is_read_and_listed(tmp_path):
    red = np.full((20, 30, 3), (200, 30, 40), np.uint8)
    red[:, 15:] = (20, 40, 190)
    (tmp_path / "a.AVIF").write_bytes(encoded("AVIF", Image.fromarray(red), quality=90))
    found = images.decode(tmp_path / "a.AVIF")
    assert found.shape == (20, 30, 3)
    assert np.abs(found.astype(int) - red)[:, [0, 5, 25, 29]].max() < 12
    assert images.size(tmp_path / "a.AVIF") == (30, 20)
    assert listing.find(tmp_path)[0] == ["a.AVIF"]


def test_transparency_of_avif_lies_on_white(tmp_path):
    (tmp_path / "a.avif").write_bytes(encoded("AVIF", Image.new("RGBA", (30, 20), (255, 0, 0, 0))))
    found = images.decode(tmp_path / "a.avif")
    assert found.shape == (20, 30, 3)
    assert found.min() > 250


def test_the_codec_that_is_missing_is_named(monkeypatch):
    heic = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)
    avif = b"\0\0\0\x18ftypavif\0\0\0\0mif1avif" + bytes(40)
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    monkeypatch.delitem(Image.OPEN, "AVIF", raising=False)
    monkeypatch.setattr(images.features, "check", lambda name: False)
    with pytest.raises(images.Refused, match=r"HEIC needs `pip install 'cqr\[heic\]'`"):
        images.decode(heic)
    with pytest.raises(images.Refused, match="AVIF needs a Pillow that was built with it"):
        images.decode(avif)


def test_the_size_of_the_largest_pictures_is_said(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded("PNG", Image.new("1", (20_000, 20_000))))
    with pytest.raises(images.TooLarge, match="has 20000 x 20000 pixels"):
        images.decode(tmp_path / "a.png")


def test_transparency_lies_on_white(tmp_path):
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (255, 0, 0, 128))
    (tmp_path / "a.png").write_bytes(encoded("PNG", clear))
    assert images.decode(tmp_path / "a.png").tolist() == [[[255, 255, 255], [255, 127, 127]]]

    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 255, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    (tmp_path / "p.png").write_bytes(encoded("PNG", palette, transparency=0))
    assert images.decode(tmp_path / "p.png").tolist() == [[[255, 255, 255], [0, 255, 0]]]

    grey = Image.fromarray(np.array([[0, 7]], np.uint8))
    (tmp_path / "g.png").write_bytes(encoded("PNG", grey, transparency=7))
    assert images.decode(tmp_path / "g.png")[0].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_other_modes(tmp_path):
    for mode in ("1", "L", "P", "CMYK", "YCbCr"):
        image = Image.new("RGB", (3, 2), (255, 255, 255)).convert(mode)
        format = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
        (tmp_path / mode).write_bytes(encoded(format, image))
        found = images.decode(tmp_path / mode)
        assert found.shape == (2, 3, 3), mode
        assert (found > 250).all(), mode


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    options = {"save_all": True, "append_images": frames[1:]}
    (tmp_path / "a.gif").write_bytes(encoded("GIF", frames[0], **options))
    assert (images.decode(tmp_path / "a.gif") == (255, 0, 0)).all()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 3)])
def test_extreme_sizes(tmp_path, size):
    (tmp_path / "a.png").write_bytes(encoded("PNG", Image.new("RGB", size)))
    assert images.decode(tmp_path / "a.png").shape == (size[1], size[0], 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "AVIF"])
def test_bytes_are_decoded_as_their_file(tmp_path, format):
    (tmp_path / "a").write_bytes(encoded(format))
    assert np.array_equal(images.decode(encoded(format)), images.decode(tmp_path / "a"))


# --- JPEGs at a fraction of their size ----------------------------------------------------------


def slopes(width: int, height: int) -> np.ndarray:
    """Each corner has its own colour, and there is none twice: which way is up can be seen."""
    y, x = np.mgrid[:height, :width]
    red, green = 255 * x / (width - 1), 255 * y / (height - 1)
    return np.stack([red, green, (red + green) / 4], axis=2).astype(np.uint8)


def shrunk(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By Pillow, of the whole picture."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX)).astype(int)


@pytest.mark.parametrize("divisor", [2, 4, 8])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_jpeg_at_a_fraction_is_the_picture(divisor, options):
    whole = slopes(203, 100)
    source = encoded("JPEG", Image.fromarray(whole), quality=95, **options)
    asked = []

    def fraction(width, height):
        asked.append((width, height))
        return divisor

    found = images.decoded(source, fraction=fraction)
    assert asked == [(203, 100)]
    assert found.size == (203, 100)
    size = images.reduced((203, 100), divisor)
    assert found.pixels.shape == (size[1], size[0], 3)
    assert np.abs(found.pixels - shrunk(whole, size)).max() <= 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_jpeg_at_a_fraction_is_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = encoded("JPEG", Image.fromarray(slopes(203, 100)), quality=95, exif=exif)
    upright = images.decode(source)
    height, width = upright.shape[:2]
    asked = []
    found = images.decoded(source, fraction=lambda *size: asked.append(size) or 4)
    assert asked == [(width, height)]
    assert found.size == (width, height)
    size = found.pixels.shape[1::-1]
    assert size == images.reduced((width, height), 4)
    assert np.abs(found.pixels - shrunk(upright, size)).max() <= 12


@pytest.mark.parametrize("orientation", [1, 6])
def test_a_fraction_that_would_hide_a_turn_is_not_taken(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    source = encoded("JPEG", Image.fromarray(slopes(101, 104)), exif=exif)  # both 13 at an eighth
    found = images.decoded(source, fraction=lambda width, height: 8)
    assert (
        found.size == found.pixels.shape[1::-1] == ((101, 104) if orientation == 1 else (104, 101))
    )


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_at_a_fraction(mode):
    source = encoded("JPEG", Image.fromarray(slopes(160, 96)).convert(mode), quality=95)
    found = images.decoded(source, fraction=lambda width, height: 4)
    assert found.size == (160, 96)
    assert np.abs(found.pixels - shrunk(images.decode(source), (40, 24))).max() <= 12


def test_a_camera_s_jpeg_of_two_pictures_at_a_fraction():
    pair = [Image.fromarray(slopes(160, 96)), Image.new("RGB", (160, 96))]
    source = encoded("MPO", pair[0], quality=95, save_all=True, append_images=pair[1:])
    found = images.decoded(source, fraction=lambda width, height: 4)
    assert found.size == (160, 96)
    assert np.abs(found.pixels - shrunk(slopes(160, 96), (40, 24))).max() <= 12


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM"])
def test_only_jpegs_are_decoded_at_a_fraction(format):
    found = images.decoded(encoded(format), fraction=lambda width, height: 8)
    assert found.size == (8, 12)
    assert np.array_equal(found.pixels, images.decode(encoded(format)))


def test_the_limit_of_pixels_is_of_the_whole():
    source = encoded("JPEG", Image.fromarray(slopes(160, 96)))
    with pytest.raises(images.TooLarge):
        images.decoded(source, 160 * 96 - 1, fraction=lambda width, height: 8)


# --- pictures that cannot ----------------------------------------------------------------------


def test_reasons(tmp_path):
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "bomb.png").write_bytes(encoded("PNG", Image.new("1", (20_000, 5_001))))
    (tmp_path / "float.tif").write_bytes(encoded("TIFF", Image.new("F", (2, 2))))
    large = Image.fromarray(np.array([[70_000]], np.int32))
    (tmp_path / "int.tif").write_bytes(encoded("TIFF", large))
    (tmp_path / "broken.png").symlink_to("nowhere")
    (tmp_path / "self.png").symlink_to("self.png")
    for name, expected in {
        "empty.jpg": "is empty",
        "text.jpg": "is not a picture of a known format",
        "folder.jpg": "is not a regular file",
        "pipe.jpg": "is not a regular file",
        "bomb.png": "has 20000 x 5001 pixels, more than the limit of 100,000,000",
        "float.tif": "has floating-point pixels; save it with 8 or 16 bits a channel",
        "broken.png": "cannot be opened (No such file or directory)",
        "self.png": "cannot be opened (Too many levels of symbolic links)",
        "int.tif": "has 32-bit pixels; save it with 8 or 16 bits a channel",
    }.items():
        assert reason(tmp_path / name) == expected
    assert images.size(tmp_path / "empty.jpg") == (0, 0)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM])
def test_what_the_machine_lacks_is_no_fault_of_a_picture(tmp_path, monkeypatch, number):
    """Else it would be listed as a failure, and not looked at again."""
    (tmp_path / "a.png").write_bytes(encoded("PNG"))

    def refusing(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Image, "open", refusing)
    for read in (images.decode, images.size):
        with pytest.raises(UserError, match=r"cannot read .*a\.png: (too many|there is not en)"):
            read(tmp_path / "a.png")


def test_reasons_for_bytes():
    for content, limit, expected in (
        (b"", 96, "is empty"),
        (b"not a picture", 96, "is not a picture of a known format"),
        (encoded("PNG"), 95, "has 8 x 12 pixels, more than the limit of 95"),
        (encoded("EPS"), 96, "is not a picture of a known format"),  # Ghostscript would run it
    ):
        with pytest.raises(images.Refused, match=expected):
            images.decode(content, limit)
    assert images.decode(encoded("PNG"), 96).shape == (12, 8, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF"])
def test_truncated_anywhere_is_refused_or_whole(tmp_path, format):
    whole = encoded(format)
    (tmp_path / "a").write_bytes(whole)
    expected = images.decode(tmp_path / "a")
    refused = 0
    for length in range(1, len(whole), 7):
        (tmp_path / "a").write_bytes(whole[:length])
        try:  # what a decoder accepts must be the picture: trailing bytes may be none of it
            assert np.array_equal(images.decode(tmp_path / "a"), expected)
        except images.Refused:
            refused += 1
    assert refused > len(whole) // 7 // 2


@settings(derandomize=True, deadline=None)
@given(data=st.data())
def test_damage_never_raises_anything_else(tmp_path_factory, data):
    whole = bytearray(
        encoded(data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "WEBP", "AVIF"])))
    )
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a"
    path.write_bytes(whole)
    images.size(path)
    try:
        found = images.decode(path)
    except images.Refused:
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from cqr.pipeline import images
pages = int(Path("/proc/self/statm").read_text().split()[0])
room = pages * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
try:
    images.decode(Path(sys.argv[1]))
except images.Refused as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits its memory as Linux does")
def test_a_header_that_asks_for_all_memory_is_damage_and_no_scarcity():
    case = Path(__file__).parents[1] / "cases" / "jpeg2000-359.bin"  # asks for 4 GiB, has 1 KiB
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, case], capture_output=True, text=True
    )
    assert "is truncated or damaged" in done.stdout, done.stderr
