"""Draw boxes on pictures, for a person to look at."""

import math
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.listing import readable
from cqr.pipeline import images
from cqr.pipeline.feature_file import FeatureFile

CELL = 420  # pixels, longer edge of a picture on the sheet
GAP = 20
CAPTION = 44
PAPER, INK, FAINT = "#ffffff", "#1a1a1a", "#6b7280"

# Okabe and Ito's palette, which colour-blind readers can tell apart; then grey.
FIRST = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
REST = "#9ca3af"


def draw(file: FeatureFile, number: int, save: Path) -> None:
    """Write a sheet of `number` pictures, evenly spread over the file, with their boxes.

    The first six regions of each are drawn bold and numbered in the order of
    their rows; the others thin and grey, behind them.

    Raises:
        UserError: `save` has no suffix of a picture, or cannot be written.
    """
    if save.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise UserError(f"{save} is no name for a picture; give --save a name that ends in .png")
    number = min(number, len(file.paths))
    chosen = np.linspace(0, len(file.paths) - 1, number).round().astype(int)
    columns = math.ceil(math.sqrt(number))
    lines = math.ceil(number / columns)
    pitch = (CELL + GAP, CELL + CAPTION + GAP)
    sheet = Image.new("RGB", (columns * pitch[0] + GAP, lines * pitch[1] + GAP), PAPER)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of large pictures and damaged metadata
        for i, row in enumerate(chosen):
            corner = (GAP + i % columns * pitch[0], GAP + i // columns * pitch[1])
            sheet.paste(drawn(file, file.paths[row]), corner)
    with replacing(save) as temporary:
        sheet.save(temporary, format=Image.registered_extensions()[save.suffix.lower()])


def drawn(file: FeatureFile, path: str) -> Image.Image:
    """A picture with its boxes and a caption, CELL wide.

    Raises:
        UserError: the file has no such picture.
    """
    cell = Image.new("RGB", (CELL, CELL + CAPTION), PAPER)
    pen = ImageDraw.Draw(cell)
    regions = file.regions(path)
    boxes, width, height = regions.boxes[: regions.count], regions.width, regions.height
    try:
        picture = Image.fromarray(images.decode(Path(file.image_root) / path))
        note = f"{width} × {height}, {len(boxes)} regions, first {regions.scores[0]:.2f}"
    except images.Refused as error:
        picture = Image.new("RGB", (width, height), "#e5e7eb")
        note = f"the picture {error}"
    scale = CELL / max(width, height)
    small = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))))
    _draw_boxes(small, boxes * scale)
    cell.paste(small, ((CELL - small.width) // 2, CELL - small.height))
    font = _font(15)
    pen.text((0, CELL + 5), _fitting(readable(path), font), INK, font)
    pen.text(
        (0, CELL + 24),
        _fitting(note, _font(13)),
        FAINT,
        _font(13),
    )
    return cell


def _draw_boxes(picture: Image.Image, boxes: NDArray[np.float32]) -> None:
    pen = ImageDraw.Draw(picture)
    font = _font(13)
    for i in reversed(range(len(boxes))):
        x1, y1, x2, y2 = (int(v) for v in boxes[i].round())
        x2, y2 = max(x1, min(x2, picture.width - 1)), max(y1, min(y2, picture.height - 1))
        if i >= len(FIRST):
            pen.rectangle((x1, y1, x2, y2), outline=REST, width=1)
            continue
        pen.rectangle((x1, y1, x2, y2), outline=FIRST[i], width=3)
        label = str(i + 1)
        room = font.getlength(label) + 10
        x, y = min(x1, picture.width - int(room) - 1), min(y1, picture.height - 18)
        pen.rectangle((x, y, x + room, y + 17), fill=FIRST[i])
        pen.text((x + 5, y + 1), label, "#ffffff", font)


def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of most file names."""
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def _fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """On one line, without the start if it is too long: the end tells pictures apart."""
    text = " ".join(text.split())
    if font.getlength(text) <= CELL:
        return text
    while text and font.getlength("…" + text) > CELL:
        text = text[1:]
    return "…" + text
