"""Triangles of the three solids about the origin, and of the ground.

A mesh is N x 6 float32: position and normal of each corner, three corners a
triangle, counter-clockwise from outside.
"""

import math

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


def _cylinder(around: int = 48) -> Mesh:
    angle = np.linspace(0, 2 * math.pi, around + 1)
    ring = np.stack([np.cos(angle), np.sin(angle), np.zeros_like(angle)], axis=1)
    up = np.array([0.0, 0.0, 1.0])
    wall = np.stack([np.c_[ring + up, ring], np.c_[ring - up, ring]])
    parts = [_quads(wall)]
    for end in (up, -up):
        rim = ring if end[2] > 0 else ring[::-1]
        center = np.broadcast_to(end, (around, 3))
        fan = np.stack([center, rim[:-1] + end, rim[1:] + end], axis=1).reshape(-1, 3)
        parts.append(np.c_[fan, np.broadcast_to(end, fan.shape)])
    return np.concatenate(parts).astype(np.float32)


def _ground(half: float = 30) -> Mesh:
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, -1], [1, 1], [-1, 1]]) * half
    ground: Mesh = np.c_[square, np.zeros(6), np.zeros((6, 2)), np.ones(6)].astype(np.float32)
    return ground


GROUND = _ground()
SOLIDS = {"rectangle": _cube(), "circle": _sphere(), "triangle": _cylinder()}
"""By the words of the sentences: a cube, a sphere and an upright cylinder of radius 1."""
CORNERS = {
    shape: np.unique(mesh[:, :3].astype(np.float64), axis=0) for shape, mesh in SOLIDS.items()
}
"""The distinct corners of each mesh, C x 3."""
HALF_HEIGHT = {shape: float(corners[:, 2].max()) for shape, corners in CORNERS.items()}
"""How far each mesh reaches below its middle."""
