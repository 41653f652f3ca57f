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
class Change:
    """`old` gives way to `new`; `beside` is the thing that an added one is put to a `side` of."""

    old: Thing | None
    new: Thing | None
    kind: str
    attribute: str | None = None
    beside: Thing | None = None
    side: str | None = None

    def apply(self, scene: Crowd) -> Crowd:
        kept = [one for one in scene if one != self.old]
        return tuple(sorted(kept + ([self.new] if self.new else [])))


@dataclass(frozen=True)
class Edit:
    """A change and one way to ask for it; `phrase` is of its thing of the reference."""

    change: Change
    phrase: Phrase
    text: str


Q = TypeVar("Q")


@dataclass(frozen=True)
class CrowdSplit(Generic[Q]):
    """The references first, then a scene of its own for every query's target."""

    scenes: tuple[Crowd, ...]
    queries: tuple[Q, ...]


def make_split(
    split: str,
    references: int,
    modifications_each: int,
    seed: int,
    held_out: int = 0,
    texts: int = 1,
) -> CrowdSplit[CrowdQuery]:
    """The scenes and queries of "train" or "test"; the same for the same arguments.

    Args:
        texts: queries of each pair, which differ in their text; one text may come again.  The
            first is the one that there is without others.
    """
    rng = random.Random(f"crowd/{seed}/{split}")
    rng_of_more = random.Random(f"crowd/{seed}/{split}/texts")
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
                target = edit.change.apply(target)
            wanted = {edit.change.new for edit in edits if edit.change.new}
            if not edits or target in results:
                continue
            shown = {s.thing for s in look(target, len(scenes)) if s.visible >= SHOWN}
            if not wanted <= shown:
                continue
            results.add(target)
            more = (_again(edits, seen, wording, rng_of_more) for _ in range(texts - 1))
            for one in (edits, *more):
                queries.append(_query(source, len(scenes), one, wording, scenes[source]))
            scenes.append(target)
    return CrowdSplit(tuple(scenes), tuple(queries))


def _query(
    source: int, target: int, edits: Sequence[Edit], wording: Wording, scene: Crowd
) -> CrowdQuery:
    first, change = edits[0], edits[0].change
    if len(edits) > 1:
        text = " and ".join(edit.text for edit in edits)
        return CrowdQuery(source, target, text, "two", None, "two", wording, None, None)
    return CrowdQuery(
        source,
        target,
        first.text,
        change.kind,
        change.attribute,
        first.phrase.by,
        wording,
        first.phrase.words if change.old else None,
        scene.index(change.old) if change.old else None,
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
        if len(edits) == len(kinds) and len({edit.change.old for edit in edits}) == len(edits):
            return edits
    return []


def _again(
    edits: Sequence[Edit], seen: list[Sight], wording: Wording, rng: random.Random
) -> list[Edit]:
    """The same changes in other words, two of them in either order."""
    told = []
    for edit in rng.sample(edits, len(edits)):
        again = None
        while again is None:  # what was found a phrase for once has one
            again = _told(edit.change, seen, wording, rng)
        told.append(again)
    return told


def _remove(
    seen: list[Sight], allowed: tuple[Pair, ...], wording: Wording, rng: random.Random
) -> Edit | None:
    return _told(Change(_seen_one(seen, rng).thing, None, "remove"), seen, wording, rng)


def _make(
    seen: list[Sight], allowed: tuple[Pair, ...], wording: Wording, rng: random.Random
) -> Edit | None:
    old, name = _seen_one(seen, rng).thing, rng.choice(ATTRIBUTES)
    changed: dict[str, Any] = {name: rng.choice(VALUES[name])}
    new = replace(old, **changed)
    others = (s.thing for s in seen if s.thing != old)
    allowed_so = (new.color, new.shape) in allowed and crowd.free(new, others)
    if new == old or not allowed_so:
        return None
    return _told(Change(old, new, "make", name), seen, wording, rng)


def _add(
    seen: list[Sight], allowed: tuple[Pair, ...], wording: Wording, rng: random.Random
) -> Edit | None:
    anchor, side = _seen_one(seen, rng).thing, rng.choice(list(STEP))
    size = rng.choice(SIZES)
    away = math.ceil(crowd.spacing(size, anchor.size)) + 1
    beside = STEP[side]
    x, y = anchor.x + beside[0] * away, anchor.y + beside[1] * away
    new = Thing(x, y, size, *rng.choice(allowed))
    change = Change(None, new, "add", beside=anchor, side=side)
    phrase = _phrase(change, seen, wording, rng)  # before the place: the order decides the bytes
    if phrase is None or not crowd.free(new, (s.thing for s in seen)):
        return None
    return Edit(change, phrase, _text(change, phrase, wording, rng))


def _told(change: Change, seen: list[Sight], wording: Wording, rng: random.Random) -> Edit | None:
    """A change in words drawn for it; None where no phrase was found."""
    phrase = _phrase(change, seen, wording, rng)
    return Edit(change, phrase, _text(change, phrase, wording, rng)) if phrase else None


def _phrase(
    change: Change, seen: list[Sight], wording: Wording, rng: random.Random
) -> Phrase | None:
    """What is changed, in any way that picks it; what is added to, plainly."""
    meant = change.old or change.beside
    [sight] = (s for s in seen if s.thing == meant)
    if change.old:
        return refer(sight, seen, wording, rng)
    named = plain(sight, seen, wording, rng)
    return Phrase(named, sight.thing, "plain") if named else None


def _text(change: Change, phrase: Phrase, wording: Wording, rng: random.Random) -> str:
    parts = {"the": phrase.words}
    if change.new and change.side:
        parts["where"] = f"{RELATIONS[change.side][wording]} {phrase.words}"
        parts["new"] = f"a {change.new.name}"
    elif change.new and change.attribute:
        value = getattr(change.new, change.attribute)
        parts["new"] = f"a {value}" if change.attribute == "shape" else value
    return rng.choice(TEXTS[change.kind][wording]).format(**parts)


def _seen_one(seen: list[Sight], rng: random.Random) -> Sight:
    return rng.choice([s for s in seen if s.visible >= SHOWN])


_EDITS: dict[
    str, Callable[[list[Sight], tuple[Pair, ...], Wording, random.Random], Edit | None]
] = {"add": _add, "remove": _remove, "make": _make}
