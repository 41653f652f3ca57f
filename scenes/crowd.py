"""Crowded scenes: 12 to 40 things on free places, which hide one another in part.

What they are, where they may stand, how a picture of them is arranged, and what of each thing a
picture shows.  How they are spoken of is in `crowd_phrases`, what is changed in `crowd_queries`.

Here things have their own names: cube, sphere, cylinder, cone, pyramid, prism, disk.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from cqr.scenes import camera
from cqr.scenes.arrange import Point, View
from cqr.scenes.protocol import COLORS, HELD_OUT, SIZES, Pair, absent

SHAPES = ("cube", "sphere", "cylinder", "cone", "pyramid", "prism", "disk")
MESHES = {"cube": "rectangle", "sphere": "circle", "cylinder": "triangle"}
"""The mesh of a shape where it has not its name."""
LEAST, MOST = 12, 40
"""Things of a scene."""
SIZE = 448, 336
"""Pixels of a picture, across and down."""
RADIUS = {"small": 0.22, "large": 0.38}
REACH = 310, 300
"""Things stand so far from the middle at most, along x and y, in hundredths."""
GAP = 6
"""Between any two things at least, in hundredths, however they are turned."""
JITTER = 0.025
"""Two pictures of one scene differ in a thing's place by up to this, along x and y."""
ROUND = 1.15
"""No mesh of radius 1 reaches farther from its axis."""
SHOWN = 0.25
"""The visible share of a thing below which nothing is asked about it."""


@dataclass(frozen=True, order=True)
class Thing:
    """x to the right and y away from the camera, in hundredths, from the middle."""

    x: int
    y: int
    size: str
    color: str
    shape: str

    @property
    def name(self) -> str:
        return f"{self.size} {self.color} {self.shape}"


Crowd = tuple[Thing, ...]
"""In the order of `Thing`."""


@dataclass(frozen=True)
class Standing:
    """A thing in a picture; see `arrange.Solid`."""

    thing: Thing
    position: tuple[float, float]
    turn: float
    metal: bool

    @property
    def radius(self) -> float:
        return RADIUS[self.thing.size]

    @property
    def mesh(self) -> str:
        return MESHES.get(self.thing.shape, self.thing.shape)

    @property
    def color(self) -> str:
        return self.thing.color


Box = tuple[float, float, float, float]


class Sight(NamedTuple):
    """What a picture shows of a thing.

    Attributes:
        box: (x1, y1, x2, y2) in pixels, of all of it, hidden parts too.
        visible: the share of it that nothing stands before, 0 to 1.
        visible_box: of that share; None if there is none.
    """

    thing: Thing
    box: Box
    visible: float
    visible_box: Box | None


def pairs(split: str, held_out: int = 0) -> tuple[Pair, ...]:
    """The colour-shape pairs of a split, two thirds of the 56; see `protocol.pairs`."""
    left_out = absent(split, held_out)
    return tuple(
        (color, shape)
        for i, color in enumerate(COLORS)
        for j, shape in enumerate(SHAPES)
        if (i + j) % HELD_OUT != left_out
    )


def caption(scene: Crowd) -> str:
    """All that the scene is, in words: what stands where."""
    return "; ".join(f"{one.x},{one.y} {one.name}" for one in scene)


def spacing(one: str, other: str) -> float:
    """Between the middles of things of two sizes at least, in hundredths."""
    return 100 * ROUND * (RADIUS[one] + RADIUS[other]) + GAP


def free(new: Thing, scene: Iterable[Thing]) -> bool:
    """Whether a thing may stand there beside the others."""
    inside = abs(new.x) <= REACH[0] and abs(new.y) <= REACH[1]
    return inside and all(
        math.hypot(new.x - one.x, new.y - one.y) >= spacing(new.size, one.size) for one in scene
    )


def reference(allowed: tuple[Pair, ...], rng: random.Random) -> Crowd:
    """A random scene from which two things may be taken, or to which one may be added."""
    count = rng.randint(LEAST + 2, MOST - 1)
    scene: list[Thing] = []
    tries = 0
    while len(scene) < count:
        x, y = (rng.randint(-reach, reach) for reach in REACH)
        new = Thing(x, y, rng.choice(SIZES), *rng.choice(allowed))
        if free(new, scene):
            scene.append(new)
        tries += 1
        if tries == 4000:  # stuck: what stands leaves no room
            scene, tries = [], 0
    return tuple(sorted(scene))


def arrange(scene: Crowd, rng: random.Random) -> View[Standing]:
    """One of the many pictures of a scene."""

    def near(point: Point, spread: float) -> Point:
        x, y, z = (value + rng.uniform(-spread, spread) for value in point)
        return x, y, z

    def position(one: Thing) -> tuple[float, float]:
        x, y = (at / 100 + rng.uniform(-JITTER, JITTER) for at in (one.x, one.y))
        return x, y

    standing = tuple(
        Standing(one, position(one), rng.uniform(0, 360), rng.random() < 0.5) for one in scene
    )
    return View(
        standing,
        camera=near((0, -11.2, 5.2), 0.2),
        target=near((0, -0.3, 0.1), 0.1),
        lights=(near((-4.5, -3.5, 8), 1), near((6, -5, 5), 1), near((1, 7, 6), 1)),
        size=SIZE,
    )


def sights(view: View[Standing]) -> list[Sight]:
    """What is seen of each thing, in their order, without a renderer.

    Silhouettes are painted over one another, the farthest first.  Since things stand apart on
    a plane, the order by distance squared less radius squared is that in which they hide.
    """
    numbers = Image.new("L", view.size)
    pen = ImageDraw.Draw(numbers)
    shapes = camera.silhouettes(view)
    boxes = [camera.box(shape, view.size) for shape in shapes]
    around = [_around(box, view.size) for box in boxes]
    areas = [0] * len(shapes)
    for i in sorted(range(len(shapes)), key=lambda i: -_power(view, i)):
        corners = [(x - 0.5, y - 0.5) for x, y in camera.hull(shapes[i])]
        pen.polygon(corners, fill=i + 1)
        areas[i] = numbers.crop(around[i]).histogram()[i + 1]
    left = np.asarray(numbers)
    found = []
    for i, (box, (first, top, last, bottom)) in enumerate(zip(boxes, around, strict=True)):
        mask = left[top:bottom, first:last] == i + 1
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        if not len(rows):
            found.append(Sight(view.objects[i].thing, box, 0.0, None))
            continue
        edges = first + columns[0], top + rows[0], first + columns[-1] + 1, top + rows[-1] + 1
        x1, y1, x2, y2 = (float(edge) for edge in edges)
        share = float(mask.sum()) / areas[i]
        found.append(Sight(view.objects[i].thing, box, share, (x1, y1, x2, y2)))
    return found


def _around(box: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The whole pixels in which a polygon may be painted, those on its edge too."""
    x1, y1, x2, y2 = box
    return (
        max(math.floor(x1) - 2, 0),
        max(math.floor(y1) - 2, 0),
        min(math.ceil(x2) + 2, size[0]),
        min(math.ceil(y2) + 2, size[1]),
    )


def _power(view: View[Standing], i: int) -> float:
    one = view.objects[i]
    distance = math.dist(one.position, view.camera[:2])
    return distance**2 - (ROUND * one.radius) ** 2
