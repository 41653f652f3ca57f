"""Where things appear in the picture: matrices, projection, exact boxes.  Needs no GL."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cqr.scenes import meshes
from cqr.scenes.arrange import SIZE, Point, Solid, View

WIDTH, HEIGHT = SIZE
"""Of a picture of the grid; that of a crowd is larger."""
FIELD_OF_VIEW = 46.0
"""Across the picture's width, in degrees."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outline:
    """How an object would appear if nothing stood before it.

    Attributes:
        box: (x1, y1, x2, y2) in pixels, not rounded.
        area: of the silhouette, in square pixels.
    """

    box: tuple[float, float, float, float]
    area: float


def view_projection(view: View[Solid]) -> Floats:
    """4 x 4, from the world to clip coordinates of the camera."""
    width, height = view.size
    return _perspective(FIELD_OF_VIEW, width / height, 0.5, 60) @ _look_at(view.camera, view.target)


def light_projection(view: View[Solid]) -> Floats:
    """4 x 4, from the world to clip coordinates of the light that casts shadows."""
    return _perspective(62, 1, 2, 25) @ _look_at(view.lights[0], (0, 0, 0), up=(0, 1, 0))


def model(placed: Solid) -> Floats:
    """4 x 4, from a unit mesh to the object where it stands, on the ground."""
    radius = placed.radius
    turn = math.radians(placed.turn)
    cos, sin = math.cos(turn) * radius, math.sin(turn) * radius
    x, y = placed.position
    z = radius * meshes.HALF_HEIGHT[placed.mesh]
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, radius, z], [0, 0, 0, 1]])


def outlines(view: View[Solid]) -> list[Outline]:
    """Box and silhouette of each object.  All shapes are convex: a silhouette is a convex hull."""
    return [Outline(box(pixels, view.size), hull_area(pixels)) for pixels in silhouettes(view)]


def box(pixels: Floats, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) around N x 2 points, within the picture."""
    (x1, y1), (x2, y2) = pixels.min(axis=0).tolist(), pixels.max(axis=0).tolist()
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1]))


def silhouettes(view: View[Solid]) -> list[Floats]:
    """For each object N x 2 points in pixels, of which the convex hull is where it appears."""
    projection, eye = view_projection(view), np.array(view.camera)
    found = []
    for placed in view.objects:
        matrix = model(placed)
        if placed.mesh == "circle":
            points = _rim(matrix[:3, 3], placed.radius, eye)
        else:
            points = meshes.CORNERS[placed.mesh] @ matrix[:3, :3].T + matrix[:3, 3]
        found.append(_project(points, projection, view.size))
    return found


def hull(points: Floats) -> list[list[float]]:
    """The corners of the convex hull of N x 2 points, in order (Andrew's monotone chain)."""

    def half(ordered: list[list[float]]) -> list[list[float]]:
        chain: list[list[float]] = []
        for x, y in ordered:
            while len(chain) > 1:
                (ax, ay), (bx, by) = chain[-2:]
                if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                    break
                chain.pop()
            chain.append([x, y])
        return chain[:-1]

    ordered = points[np.lexsort((points[:, 1], points[:, 0]))].tolist()
    return half(ordered) + half(ordered[::-1])


def hull_area(points: Floats) -> float:
    """Area of the convex hull of N x 2 points (shoelace formula)."""
    x, y = np.array(hull(points)).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def _rim(center: Floats, radius: float, eye: Floats) -> Floats:
    """Points of the circle along which sight lines from `eye` touch a sphere."""
    toward = eye - center
    distance = float(np.linalg.norm(toward))
    toward /= distance
    side = np.cross(toward, (0, 0, 1))
    side /= np.linalg.norm(side)
    angle = np.linspace(0, 2 * math.pi, 128, endpoint=False)[:, None]
    ring = np.cos(angle) * side + np.sin(angle) * np.cross(side, toward)
    narrowing = math.sqrt(1 - (radius / distance) ** 2)
    points: Floats = center + toward * radius**2 / distance + ring * radius * narrowing
    return points


def _project(points: Floats, projection: Floats, size: tuple[int, int]) -> Floats:
    clip = np.c_[points, np.ones(len(points))] @ projection.T
    x, y = (clip[:, :2] / clip[:, 3:]).T
    pixels: Floats = np.c_[(x + 1) / 2 * size[0], (1 - y) / 2 * size[1]]
    return pixels


def _look_at(eye: Point, target: Point, up: Point = (0, 0, 1)) -> Floats:
    forward = np.subtract(target, eye)
    forward /= np.linalg.norm(forward)
    side = np.cross(forward, up)
    side /= np.linalg.norm(side)
    matrix = np.eye(4)
    matrix[:3, :3] = side, np.cross(side, forward), -forward
    matrix[:3, 3] = -matrix[:3, :3] @ eye
    return matrix


def _perspective(degrees_across: float, aspect: float, near: float, far: float) -> Floats:
    scale = 1 / math.tan(math.radians(degrees_across) / 2)
    depth = (far + near) / (near - far), 2 * far * near / (near - far)
    return np.array(
        [[scale, 0, 0, 0], [0, scale * aspect, 0, 0], [0, 0, *depth], [0, 0, -1, 0]], dtype=float
    )
