"""Triangles of the solids about the origin, and of the ground.

A mesh is N x 6 float32: position and normal of each corner, three corners a
triangle, counter-clockwise from outside.
"""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Mesh = NDArray[np.float32]

CUBE_HALF_EDGE = 1.15 / math.sqrt(2)
"""A cube of this half edge looks about as big as a sphere of radius 1."""


def _quads(grid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows x columns x D corners to the (2 triangles a cell) x 3 x D corners between them."""
    a, b, c, d = grid[:-1, :-1], grid[1:, :-1], grid[1:, 1:], grid[:-1, 1:]
    return np.stack([a, b, c, a, c, d], axis=2).reshape(-1, grid.shape[2])


def _cube() -> Mesh:
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, -1], [1, 1], [-1, 1]], dtype=float)
    faces = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            face = np.empty((6, 3))
            face[:, axis] = sign
            # Mirroring a face turns its triangles round; mirror one more axis to turn them back.
            face[:, [(axis + 1) % 3, (axis + 2) % 3]] = square * (1, sign)
            normal = np.zeros((6, 3))
            normal[:, axis] = sign
            faces.append(np.c_[face * CUBE_HALF_EDGE, normal])
    return np.concatenate(faces).astype(np.float32)


def _sphere(around: int = 40, down: int = 20) -> Mesh:
    azimuth = np.linspace(0, 2 * math.pi, around + 1)[None, :]
    polar = np.linspace(0, math.pi, down + 1)[:, None]
    points = np.stack(
        [
            np.sin(polar) * np.cos(azimuth),
            np.sin(polar) * np.sin(azimuth),
            np.cos(polar) * np.ones_like(azimuth),
        ],
        axis=2,
    )
    return _quads(np.concatenate([points, points], axis=2)).astype(np.float32)


def _cylinder(around: int = 48, half_height: float = 1.0) -> Mesh:
    angle = np.linspace(0, 2 * math.pi, around + 1)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)
    up = np.array([0.0, 0.0, half_height])
    wall = np.stack([np.c_[ring + up, ring], np.c_[ring - up, ring]])
    parts = [_quads(wall)]
    for end in (up, -up):
        rim = ring if end[2] > 0 else ring[::-1]
        center = np.broadcast_to(end, (around, 3))
        fan = np.stack([center, rim[:-1] + end, rim[1:] + end], axis=1).reshape(-1, 3)
        parts.append(np.c_[fan, np.broadcast_to(end, fan.shape)])
    return np.concatenate(parts).astype(np.float32)


def _pointed(sides: int, half_height: float = 1.0) -> Mesh:
    """Over a regular base whose corners are 1 from its middle: a pyramid, or nearly a cone."""
    ring = _ring(sides, -half_height)
    top, middle = np.array([0.0, 0.0, half_height]), np.array([0.0, 0.0, -half_height])
    return _flat(
        [[a, b, top] for a, b in pairwise(ring)] + [[b, a, middle] for a, b in pairwise(ring)]
    )


def _prism(sides: int, half_height: float = 1.0) -> Mesh:
    """Upright, over a regular base whose corners are 1 from its middle."""
    high, low = _ring(sides, half_height), _ring(sides, -half_height)
    top, bottom = np.array([0.0, 0.0, half_height]), np.array([0.0, 0.0, -half_height])
    faces = []
    for i in range(sides):
        faces += [[low[i], low[i + 1], high[i + 1]], [low[i], high[i + 1], high[i]]]
        faces += [[high[i], high[i + 1], top], [low[i + 1], low[i], bottom]]
    return _flat(faces)


def _ring(sides: int, z: float) -> NDArray[np.float64]:
    """The corners of a regular polygon, the first again at the end."""
    angle = np.linspace(0, 2 * math.pi, sides + 1)
    angle[-1] = 0
    return np.stack([np.cos(angle), np.sin(angle), np.full(sides + 1, z)], axis=1)


def _flat(triangles: list[list[NDArray[np.float64]]]) -> Mesh:
    """Triangles that are each lit by a normal of their own."""
    corners = np.array(triangles)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    both = np.concatenate([corners, np.repeat(normal[:, None], 3, axis=1)], axis=2)
    return both.reshape(-1, 6).astype(np.float32)


def _ground(half: float = 30) -> Mesh:
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, -1], [1, 1], [-1, 1]]) * half
    ground: Mesh = np.c_[square, np.zeros(6), np.zeros((6, 2)), np.ones(6)].astype(np.float32)
    return ground


GROUND = _ground()
SOLIDS = {
    "rectangle": _cube(),
    "circle": _sphere(),
    "triangle": _cylinder(),
    "cone": _pointed(48),
    "pyramid": _pointed(4, half_height=0.8),
    "prism": _prism(3, half_height=0.8),
    "disk": _cylinder(half_height=0.35),
}
"""By the words of the protocol's sentences a cube, a sphere and an upright cylinder of radius 1;
then the four solids that are in crowds alone.  All are convex, and as far below as above 0."""
CORNERS = {
    shape: np.unique(mesh[:, :3].astype(np.float64), axis=0) for shape, mesh in SOLIDS.items()
}
"""The distinct corners of each mesh, C x 3."""
HALF_HEIGHT = {shape: float(corners[:, 2].max()) for shape, corners in CORNERS.items()}
"""How far each mesh reaches below its middle."""
