"""What a scene does not say and a picture must decide: offsets, turns, materials, camera, light."""

import random
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cqr.scenes.protocol import Object, Scene

PITCH = (2.35, 2.5)
"""From one cell to the next, along x and y, in the units of `RADIUS`."""
OFFSET = 0.25
"""An object lies up to this far from the middle of its cell, along x and y."""
SIZE = 224, 168
"""Pixels of a picture, across and down."""
RADIUS = {"small": 0.42, "large": 0.78}

Point = tuple[float, float, float]
"""x to the right, y away from the camera, z up; the ground is z = 0."""


class Solid(Protocol):
    """What a picture needs to know of a thing that stands on the ground.

    Attributes:
        position: of its middle, along x and y.
        radius: its mesh is so many times the unit's.
        mesh: a name in `meshes.SOLIDS`.
        color: a name in `render.COLORS`.
        turn: about the vertical, in degrees.
        metal: shiny, else dull.
    """

    @property
    def position(self) -> tuple[float, float]: ...
    @property
    def radius(self) -> float: ...
    @property
    def mesh(self) -> str: ...
    @property
    def color(self) -> str: ...
    @property
    def turn(self) -> float: ...
    @property
    def metal(self) -> bool: ...


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

    @property
    def radius(self) -> float:
        return RADIUS[self.object.size]

    @property
    def mesh(self) -> str:
        return self.object.shape

    @property
    def color(self) -> str:
        return self.object.color


S = TypeVar("S", bound=Solid, covariant=True)


@dataclass(frozen=True)
class View(Generic[S]):
    """All that a picture shows.  The first of the three lights casts the shadows.

    Attributes:
        size: of the picture, width and height in pixels.
    """

    objects: tuple[S, ...]
    camera: Point
    target: Point
    lights: tuple[Point, Point, Point]
    size: tuple[int, int] = SIZE


def arrange(scene: Scene, rng: random.Random) -> View[Placed]:
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
