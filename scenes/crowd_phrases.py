"""How a thing of a crowd is referred to: so that the words pick it alone.

    plain      the small red cube
    negation   the small cube that is not red
    relation   the sphere left of the small red cube
    ordinal    the second red sphere from the left

What is left, nearer or nearest is so in the picture of the reference: by the middles of boxes
across it, by their lower edges, and by the distance of their middles.  Differences of less than
`MARGIN` pixels are asked about nowhere: a phrase with one in it is not said.

Half of the test's phrases are worded as no training phrase is, with words of training alone.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from cqr.scenes.crowd import SHOWN, Sight, Thing

MARGIN = 8.0
ORDINALS = ("first", "second", "third", "fourth", "fifth")
ATTRIBUTES = ("size", "color", "shape")

Wording = Literal["seen", "new"]
By = Literal["plain", "negation", "relation", "ordinal"]
BY: dict[By, int] = {"plain": 1, "negation": 2, "relation": 3, "ordinal": 2}
"""How often each is drawn, as far as a scene allows it."""

RELATIONS: dict[str, dict[Wording, str]] = {
    "left": {"seen": "left of", "new": "to the left of"},
    "right": {"seen": "right of", "new": "to the right of"},
    "front": {"seen": "in front of", "new": "to the front of"},
    "back": {"seen": "behind", "new": "to the back of"},
    "nearest": {"seen": "nearest to", "new": "nearest"},
}
SIDES = ("left", "right", "front", "back")
"""What may be left of; also where ordinals count from."""


@dataclass(frozen=True)
class Phrase:
    """Words that refer to `thing` alone."""

    words: str
    thing: Thing
    by: By


Said = dict[str, str]
"""Attributes that are said of a thing, by name."""


def along(side: str, sight: Sight) -> float:
    """How far a thing is to a side, in pixels."""
    x1, _, x2, y2 = sight.box
    return {"left": -(x1 + x2) / 2, "right": (x1 + x2) / 2, "front": y2, "back": -y2}[side]


def apart(one: Sight, other: Sight) -> float:
    """Pixels between the middles of two boxes."""
    middles = [((a.box[0] + a.box[2]) / 2, (a.box[1] + a.box[3]) / 2) for a in (one, other)]
    return math.dist(*middles)


def refer(
    target: Sight, sights: Sequence[Sight], wording: Wording, rng: random.Random
) -> Phrase | None:
    """A phrase for a thing that is seen well enough; None where none was found."""
    ways = list(BY)
    while ways:
        [by] = rng.choices(ways, [BY[way] for way in ways])
        words = WAYS[by](target, sights, wording, rng)
        if words is not None:
            return Phrase(words, target.thing, by)
        ways.remove(by)
    return None


def plain(
    target: Sight, sights: Sequence[Sight], wording: Wording, rng: random.Random
) -> str | None:
    """Attributes that no other thing has together."""
    fitting = [said for said in _descriptions(target.thing) if len(_of(said, sights)) == 1]
    return f"the {_words(rng.choice(fitting))}" if fitting else None


def negation(
    target: Sight, sights: Sequence[Sight], wording: Wording, rng: random.Random
) -> str | None:
    """One of several that are alike: the one that has not the colour or size of the others."""
    fitting = []
    for said in _descriptions(target.thing):
        alike = _of(said, sights)
        for name in ("color", "size"):
            others = {getattr(s.thing, name) for s in alike if s != target}
            if name not in said and len(others) == 1:
                (value,) = others
                if value != getattr(target.thing, name):
                    fitting.append((said, value))
    if not fitting:
        return None
    said, value = rng.choice(fitting)
    if wording == "new":
        return f"the not {value} {_words(said)}"
    return f"the {_words(said)} that is not {value}"


def relation(
    target: Sight, sights: Sequence[Sight], wording: Wording, rng: random.Random
) -> str | None:
    """One of several that are alike, by where it is beside a thing that is plainly named."""
    anchors = [s for s in sights if s != target and s.visible >= SHOWN]
    descriptions = [d for d in _descriptions(target.thing) if len(_of(d, sights)) > 1]
    choices = [(a, d, r) for a in anchors for d in descriptions for r in RELATIONS]
    for anchor, said, name in rng.sample(choices, min(len(choices), 40)):
        alike = [s for s in _of(said, sights) if s != anchor]
        if len(alike) < 2 or not _alone(target, alike, anchor, name):
            continue
        named = plain(anchor, sights, wording, rng)
        if named is not None:
            return f"the {_words(said)} {RELATIONS[name][wording]} {named}"
    return None


def _alone(target: Sight, alike: list[Sight], anchor: Sight, name: str) -> bool:
    """Whether of things that are alike the target alone is so beside the anchor, clearly."""
    if name == "nearest":
        others = min(apart(s, anchor) for s in alike if s != target)
        return others - apart(target, anchor) >= MARGIN
    far = {s.thing: along(name, s) - along(name, anchor) for s in alike}
    return far.pop(target.thing) >= MARGIN and all(d <= -MARGIN for d in far.values())


def ordinal(
    target: Sight, sights: Sequence[Sight], wording: Wording, rng: random.Random
) -> str | None:
    """One of several that are alike, all seen, by its number from a side."""
    fitting = []
    for said in _descriptions(target.thing):
        alike = _of(said, sights)
        if len(alike) < 2 or any(s.visible < SHOWN for s in alike):
            continue
        for side in SIDES:
            own = along(side, target)
            others = [along(side, s) - own for s in alike if s != target]
            before = sum(more > 0 for more in others)
            if before < len(ORDINALS) and all(abs(more) >= MARGIN for more in others):
                fitting.append((said, side, ORDINALS[before]))
    if not fitting:
        return None
    said, side, number = rng.choice(fitting)
    if wording == "new":
        return f"from the {side} the {number} {_words(said)}"
    return f"the {number} {_words(said)} from the {side}"


WAYS: dict[By, Callable[[Sight, Sequence[Sight], Wording, random.Random], str | None]] = {
    "plain": plain,
    "negation": negation,
    "relation": relation,
    "ordinal": ordinal,
}


def _descriptions(thing: Thing) -> list[Said]:
    """Every choice of attributes, at least one."""
    return [
        {name: getattr(thing, name) for name in names}
        for count in (1, 2, 3)
        for names in combinations(ATTRIBUTES, count)
    ]


def _of(said: Said, sights: Sequence[Sight]) -> list[Sight]:
    """All things of which it is true, hidden ones too."""
    found = list(sights)
    for name, value in said.items():
        found = [s for s in found if getattr(s.thing, name) == value]
    return found


def _words(said: Said) -> str:
    return " ".join([*said.values()] + ([] if "shape" in said else ["object"]))
