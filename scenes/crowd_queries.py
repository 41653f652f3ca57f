"""What is changed in a crowd, and how that is said: queries of crowded scenes.

A text takes a thing away, changes one attribute of one, adds one beside another, or does two of
the first kinds to two things at once; it means the reference as it is before.  Every thing that a
text refers to is seen in the reference, and every thing that it changes or adds is seen in the
target.  Half of the test's texts are worded as no training text is, of words that occur there.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from cqr.scenes import crowd
from cqr.scenes.crowd import SHOWN, Crowd, Sight, Thing
from cqr.scenes.crowd_phrases import ATTRIBUTES, RELATIONS, Phrase, Wording, plain, refer
from cqr.scenes.protocol import COLORS, SIZES, Pair, picture_rng

KINDS = {"add": 3, "remove": 3, "make": 6, "two": 4}
"""How often each kind of change is drawn."""

VALUES = {"size": SIZES, "color": COLORS, "shape": crowd.SHAPES}
STEP = {"left": (-1, 0), "right": (1, 0), "front": (0, -1), "back": (0, 1)}
"""Where a thing is added that is to be left of another, and so on: right beside it."""
AGAIN = 12
"""How often a change of a kind is drawn before another kind is."""

TEXTS: dict[str, dict[Wording, tuple[str, ...]]] = {
    "remove": {
        "seen": ("remove {the}", "take {the} away", "let {the} go", "{the} should go"),
        "new": ("make {the} go away", "take away {the}", "{the} should go away"),
    },
    "make": {
        "seen": ("make {the} {new}", "change {the} to {new}", "{the} should be {new}"),
        "new": ("let {the} be {new}", "{the} should change to {new}"),
    },
    "add": {
        "seen": ("add {new} {where}", "put {new} {where}", "there should be {new} {where}"),
        "new": ("{where} add {new}", "let there be {new} {where}", "{where} put {new}"),
    },
}


@dataclass(frozen=True)
class CrowdQuery:
    """The scenes `source` and `target` are indices into the split's scenes.

    Attributes:
        by: the way in which the thing is referred to, see `crowd_phrases`; "two" of two.
        wording: seen in training, or new.
        phrase: the words of the text that refer to a thing of the reference which it changes.
        meant: the number of that thing in the reference; None where none is changed, or two are.
    """

    source: int
    target: int
    text: str
    kind: str
    attribute: str | None
    by: str
    wording: Wording
    phrase: str | None
    meant: int | None


@dataclass(frozen=True)
class Edit:
    """`old` gives way to `new`, as a text says."""

    old: Thing | None
    new: Thing | None
    text: str
    kind: str
    attribute: str | None
    phrase: Phrase

    def apply(self, scene: Crowd) -> Crowd:
        kept = [one for one in scene if one != self.old]
        return tuple(sorted(kept + ([self.new] if self.new else [])))


Q = TypeVar("Q")


@dataclass(frozen=True)
class CrowdSplit(Generic[Q]):
    """The references first, then a scene of its own for every query's target."""

    scenes: tuple[Crowd, ...]
    queries: tuple[Q, ...]


def make_split(
    split: str, references: int, modifications_each: int, seed: int, held_out: int = 0
) -> CrowdSplit[CrowdQuery]:
    """The scenes and queries of "train" or "test"; the same for the same arguments."""
    rng = random.Random(f"crowd/{seed}/{split}")
    allowed = crowd.pairs(split, held_out)
    scenes = [crowd.reference(allowed, rng) for _ in range(references)]
    queries = []

    def look(scene: Crowd, number: int) -> list[Sight]:
        return crowd.sights(crowd.arrange(scene, picture_rng(seed, split, number)))

    for source in range(references):
        seen = look(scenes[source], source)
        results: set[Crowd] = set()
        while len(results) < modifications_each:
            wording: Wording = "new" if split == "test" and rng.random() < 0.5 else "seen"
            edits = draw(seen, allowed, wording, rng)
            target = scenes[source]
            for edit in edits:
                target = edit.apply(target)
            wanted = {edit.new for edit in edits if edit.new}
            if not edits or target in results:
                continue
            shown = {s.thing for s in look(target, len(scenes)) if s.visible >= SHOWN}
            if not wanted <= shown:
                continue
            results.add(target)
            queries.append(_query(source, len(scenes), edits, wording, scenes[source]))
            scenes.append(target)
    return CrowdSplit(tuple(scenes), tuple(queries))


def _query(
    source: int, target: int, edits: Sequence[Edit], wording: Wording, scene: Crowd
) -> CrowdQuery:
    first = edits[0]
    if len(edits) > 1:
        text = " and ".join(edit.text for edit in edits)
        return CrowdQuery(source, target, text, "two", None, "two", wording, None, None)
    changed = first.old is not None
    return CrowdQuery(
        source,
        target,
        first.text,
        first.kind,
        first.attribute,
        first.phrase.by,
        wording,
        first.phrase.words if changed else None,
        scene.index(first.old) if first.old else None,
    )


def draw(
    seen: list[Sight], allowed: tuple[Pair, ...], wording: Wording, rng: random.Random
) -> list[Edit]:
    """One edit or two of a scene; none where chance found none."""
    [kind] = rng.choices(list(KINDS), list(KINDS.values()))
    for _ in range(AGAIN):
        kinds = rng.choices(("make", "remove"), k=2) if kind == "two" else [kind]
        drawn = [_EDITS[one](seen, allowed, wording, rng) for one in kinds]
        edits = [edit for edit in drawn if edit]
        if len(edits) == len(kinds) and len({edit.old for edit in edits}) == len(edits):
            return edits
    return []


def _remove(
    seen: list[Sight], allowed: tuple[Pair, ...], wording: Wording, rng: random.Random
) -> Edit | None:
    target = _seen_one(seen, rng)
    phrase = refer(target, seen, wording, rng)
    if phrase is None:
        return None
    text = rng.choice(TEXTS["remove"][wording]).format(the=phrase.words)
    return Edit(target.thing, None, text, "remove", None, phrase)


def _make(
    seen: list[Sight], allowed: tuple[Pair, ...], wording: Wording, rng: random.Random
) -> Edit | None:
    target, name = _seen_one(seen, rng), rng.choice(ATTRIBUTES)
    changed: dict[str, Any] = {name: rng.choice(VALUES[name])}
    new = replace(target.thing, **changed)
    others = (s.thing for s in seen if s != target)
    allowed_so = (new.color, new.shape) in allowed and crowd.free(new, others)
    if new == target.thing or not allowed_so:
        return None
    phrase = refer(target, seen, wording, rng)
    if phrase is None:
        return None
    value = f"a {changed[name]}" if name == "shape" else changed[name]
    text = rng.choice(TEXTS["make"][wording]).format(the=phrase.words, new=value)
    return Edit(target.thing, new, text, "make", name, phrase)


def _add(
    seen: list[Sight], allowed: tuple[Pair, ...], wording: Wording, rng: random.Random
) -> Edit | None:
    anchor, side = _seen_one(seen, rng), rng.choice(list(STEP))
    size = rng.choice(SIZES)
    away = math.ceil(crowd.spacing(size, anchor.thing.size)) + 1
    beside = STEP[side]
    x, y = anchor.thing.x + beside[0] * away, anchor.thing.y + beside[1] * away
    new = Thing(x, y, size, *rng.choice(allowed))
    named = plain(anchor, seen, wording, rng)
    if named is None or not crowd.free(new, (s.thing for s in seen)):
        return None
    where = f"{RELATIONS[side][wording]} {named}"
    text = rng.choice(TEXTS["add"][wording]).format(new=f"a {new.name}", where=where)
    return Edit(None, new, text, "add", None, Phrase(named, anchor.thing, "plain"))


def _seen_one(seen: list[Sight], rng: random.Random) -> Sight:
    return rng.choice([s for s in seen if s.visible >= SHOWN])


_EDITS: dict[
    str, Callable[[list[Sight], tuple[Pair, ...], Wording, random.Random], Edit | None]
] = {"add": _add, "remove": _remove, "make": _make}
