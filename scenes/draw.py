"""Two-dimensional drawings of scenes, 64 x 64, as in the CSS data set's 2D part."""

from PIL import Image, ImageDraw

from cqr.scenes import render
from cqr.scenes.arrange import OFFSET, Placed, View

SIZE = 64
HALF = {"small": 4, "large": 8}
COLORS = {**render.COLORS, "red": (244, 35, 35), "green": (29, 205, 20)}
"""Brighter than in 3D where flat colour would look too dark."""
OFFSET_PIXELS = 2
"""What the largest offset in the scene comes to; keeps objects apart and inside."""


def box(placed: Placed) -> tuple[int, int, int, int]:
    """Where an object is drawn: (x1, y1, x2, y2) in pixels, of the edges."""
    row, column = divmod(placed.object.cell, 3)
    step = OFFSET_PIXELS / OFFSET
    x = round((column + 0.5) * SIZE / 3 + placed.offset[0] * step)
    y = round((row + 0.5) * SIZE / 3 - placed.offset[1] * step)
    half = HALF[placed.object.size]
    return x - half, y - half, x + half, y + half


def draw(view: View[Placed]) -> Image.Image:
    """A white square with a flat rectangle, circle or triangle for each object."""
    picture = Image.new("RGB", (SIZE, SIZE), "white")
    pen = ImageDraw.Draw(picture)
    for placed in view.objects:
        x1, y1, x2, y2 = box(placed)
        last = (x1, y1, x2 - 1, y2 - 1)  # PIL's corners are pixels that are still drawn
        color = COLORS[placed.object.color]
        if placed.object.shape == "rectangle":
            pen.rectangle(last, fill=color)
        elif placed.object.shape == "circle":
            pen.ellipse(last, fill=color)
        else:
            pen.polygon([((x1 + x2 - 1) / 2, y1), (x2 - 1, y2 - 1), (x1, y2 - 1)], fill=color)
    return picture
