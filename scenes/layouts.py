"""The two kinds of scene that `cqr scenes` makes, each by the same few functions."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cqr.scenes import arrange, camera, crowd, crowd_queries, draw, protocol
from cqr.scenes.arrange import Placed, View
from cqr.scenes.crowd import Standing
from cqr.scenes.protocol import Pair
from cqr.scenes.render import Seen


@dataclass(frozen=True)
class Layout:
    """What is asked of a kind of scene.

    Attributes:
        size: of a picture, width and height in pixels.
        pairs: colour-shape pairs of a split, by the choice of what is held out.
        make_split: scenes and queries, by split, references, pairs of each, seed, choice, and
            texts of each pair.
        caption: all that a scene is.
        arrange: one of a scene's many pictures, by the picture's own random generator.
        look: what is seen of each object, by the geometry alone.
        record: of an object in a table, by whether it is drawn too.
        told: what `cqr scenes` says of what it made, beyond counts.
    """

    size: tuple[int, int]
    pairs: Callable[[str, int], tuple[Pair, ...]]
    make_split: Callable[[str, int, int, int, int, int], Any]
    caption: Callable[[Any], str]
    arrange: Callable[[Any, random.Random], View[Any]]
    look: Callable[[View[Any]], list[Seen]]
    record: Callable[[Any, Seen, bool], dict[str, Any]]
    told: tuple[str, ...]


def _outlines(view: View[Placed]) -> list[Seen]:
    return [Seen(outline.box, None, None) for outline in camera.outlines(view)]


def _placed(placed: Placed, seen: Seen, drawing: bool) -> dict[str, Any]:
    one = placed.object
    return {
        "shape": one.shape,
        "color": one.color,
        "size": one.size,
        "cell": one.place,
        **_seen(seen),
        "drawing_box": draw.box(placed) if drawing else None,
    }


def _sights(view: View[Standing]) -> list[Seen]:
    return [Seen(s.box, s.visible_box, s.visible) for s in crowd.sights(view)]


def _standing(standing: Standing, seen: Seen, drawing: bool) -> dict[str, Any]:
    one = standing.thing
    return {
        "shape": one.shape,
        "color": one.color,
        "size": one.size,
        "place": [one.x, one.y],
        **_seen(seen),
    }


def _seen(seen: Seen) -> dict[str, Any]:
    edges: Sequence[float] = seen.box
    return {
        "box": [round(edge, 2) for edge in edges],
        "visible_box": seen.visible_box,
        "visible": None if seen.visible is None else round(seen.visible, 3),
    }


LAYOUTS = {
    "grid": Layout(
        arrange.SIZE,
        protocol.pairs,
        protocol.make_split,
        protocol.caption,
        arrange.arrange,
        _outlines,
        _placed,
        ("The texts call a cube rectangle, a sphere circle and a cylinder triangle",),
    ),
    "crowd": Layout(
        crowd.SIZE,
        crowd.pairs,
        crowd_queries.make_split,
        crowd.caption,
        crowd.arrange,
        _sights,
        _standing,
        (),
    ),
}
