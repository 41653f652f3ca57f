"""What a scene does not say and a picture must decide: offsets, turns, materials, camera, light."""

import random
from dataclasses import dataclass

from cqr.scenes.protocol import Object, Scene

PITCH = (2.35, 2.5)
"""From one cell to the next, along x and y, in the units of `RADIUS`."""
OFFSET = 0.25
"""An object lies up to this far from the middle of its cell, along x and y."""
RADIUS = {"small": 0.42, "large": 0.78}

Point = tuple[float, float, float]
"""x to the right, y away from the camera, z up; the ground is z = 0."""


@dataclass(frozen=True)
class Placed:
    """An object where it stands.

    Attributes:
        offset: from the middle of its cell, along x and y.
        turn: about the vertical, in degrees.
        metal: shiny, else dull.
    """

    object: Object
    offset: tuple[float, float]
    turn: float
    metal: bool

    @property
    def position(self) -> tuple[float, float]:
        row, column = divmod(self.object.cell, 3)
        return (
            (column - 1) * PITCH[0] + self.offset[0],
            (1 - row) * PITCH[1] + self.offset[1],
        )


@dataclass(frozen=True)
class View:
    """All that a picture shows.  The first of the three lights casts the shadows."""

    objects: tuple[Placed, ...]
    camera: Point
    target: Point
    lights: tuple[Point, Point, Point]


def arrange(scene: Scene, rng: random.Random) -> View:
    """One of the many pictures of a scene."""

    def near(point: Point, spread: float) -> Point:
        x, y, z = (value + rng.uniform(-spread, spread) for value in point)
        return x, y, z

    placed = tuple(
        Placed(
            object=one,
            offset=(rng.uniform(-OFFSET, OFFSET), rng.uniform(-OFFSET, OFFSET)),
            turn=rng.uniform(0, 360),
            metal=rng.random() < 0.5,
        )
        for one in scene
    )
    return View(
        objects=placed,
        camera=near((0, -7.6, 9.0), 0.3),
        target=near((0, -0.1, 0.1), 0.1),
        lights=(near((-4.5, -3.5, 8), 1), near((6, -5, 5), 1), near((1, 7, 6), 1)),
    )
