"""Scenes, what may be changed in them, and how it is said.  No pixels here.

The protocol is that of the CSS data set (Vo et al., "Composing Text and Image
for Image Retrieval", 2019): objects on a 3 x 3 grid, a query is a reference
scene and one sentence that adds an object, removes one or changes one
attribute of one, and the target is the scene that results.  The caption says
all that a scene is, so two pictures with one caption are both right answers.

Differences from the published files, on purpose: a sentence always has exactly
one meaning (it names one object only, and an added object completely).
"""

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

COLORS = ("gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow")
SHAPES = ("rectangle", "circle", "triangle")
"""The words of the sentences, drawn so in 2D; in 3D a cube, a sphere and a cylinder."""
SIZES = ("small", "large")
CELLS = tuple(
    f"{row}-{col}" for row in ("top", "middle", "bottom") for col in ("left", "center", "right")
)
SPLITS = ("train", "test")
MOST_OBJECTS = 7
"""A reference scene has 1 to 7 objects, so that two cells at least are free."""

Pair = tuple[str, str]
"""A colour and a shape."""


@dataclass(frozen=True, order=True)
class Object:
    """One object; `cell` counts row by row from the top left, 0 to 8."""

    cell: int
    size: str
    color: str
    shape: str

    @property
    def place(self) -> str:
        return CELLS[self.cell]


Scene = tuple[Object, ...]
"""Objects in the order of their cells, one a cell at most."""


@dataclass(frozen=True)
class Change:
    """What a sentence asks for: `old` gives way to `new`, in the same cell if both are there."""

    old: Object | None
    new: Object | None

    @property
    def kind(self) -> str:
        """add, remove or make."""
        if self.old is None:
            return "add"
        return "remove" if self.new is None else "make"

    @property
    def attribute(self) -> str | None:
        """color, shape or size for "make", else None."""
        if self.old is None or self.new is None:
            return None
        return next(a for a in ATTRIBUTES if getattr(self.old, a) != getattr(self.new, a))

    def apply(self, scene: Scene) -> Scene:
        kept = [one for one in scene if one != self.old]
        return tuple(sorted(kept + ([self.new] if self.new else [])))

    def texts(self, scene: Scene) -> list[str]:
        """Every sentence that asks for this change of this scene, and for no other."""
        if self.old is None:
            new = self.new
            assert new is not None
            return [f"add {new.size} {new.color} {new.shape} to {new.place}"]
        if self.new is None:
            return [f"remove {phrase}" for phrase in phrases(self.old, scene)]
        value = getattr(self.new, str(self.attribute))
        return [f"make {phrase} {value}" for phrase in phrases(self.old, scene)]


ATTRIBUTES = ("color", "shape", "size")

SHARES = {"add": 3, "remove": 3, "color": 2, "shape": 2, "size": 2}
"""How often each sort of change is drawn, as far as a scene allows it: a quarter
adds, a quarter removals, half "make", whose attributes share alike."""


@dataclass(frozen=True)
class Query:
    """The scenes `source` and `target` are indices into the split's scenes."""

    source: int
    target: int
    text: str
    kind: str
    attribute: str | None


@dataclass(frozen=True)
class Split:
    """The references first, then a scene of its own for every query's target."""

    scenes: tuple[Scene, ...]
    queries: tuple[Query, ...]


HELD_OUT = 3
"""Choices of the pairs that occur only in testing; no pair is in two of them."""


def absent(split: str, held_out: int) -> int:
    """Which third of the pairs a split does not have, 0 to HELD_OUT - 1."""
    return ({"train": 1, "test": 0}[split] + held_out) % HELD_OUT


def pairs(split: str, held_out: int = 0) -> tuple[Pair, ...]:
    """The 16 of the 24 colour-shape pairs that occur in a split.

    Eight occur in both splits, eight only in training, eight only in testing;
    every colour and every shape occurs in both.  The same for every seed, so
    that what is trained on one generated set may be tested on another.

    Args:
        held_out: 0, 1 or 2.  The eight pairs that are kept for testing by one of them are
            in the training of the two others, so the three part all 24 pairs.
    """
    left_out = absent(split, held_out)
    return tuple(
        (color, SHAPES[(i + step) % len(SHAPES)])
        for i, color in enumerate(COLORS)
        for step in range(len(SHAPES))
        if step != left_out
    )


def caption(scene: Scene) -> str:
    """All that the scene is, in words; "empty" without objects."""
    named = (f"{one.place} {one.size} {one.color} {one.shape}" for one in scene)
    return "; ".join(named) or "empty"


def phrases(target: Object, scene: Scene) -> list[str]:
    """Every choice of place, size, colour and shape that picks `target` alone out of `scene`."""
    fields = ("cell", "size", "color", "shape")
    found = []
    for said in chain.from_iterable(combinations(fields, n) for n in range(1, len(fields) + 1)):
        same = [one for one in scene if all(getattr(one, f) == getattr(target, f) for f in said)]
        if same == [target]:
            words = [target.place if f == "cell" else getattr(target, f) for f in said]
            found.append(" ".join(words if "shape" in said else [*words, "object"]))
    return found


def changes(scene: Scene, allowed: tuple[Pair, ...]) -> Iterator[Change]:
    """Every change of a scene that leads to allowed colour-shape pairs only."""
    taken = {one.cell for one in scene}
    for cell in range(len(CELLS)):
        if cell not in taken:
            for size in SIZES:
                yield from (Change(None, Object(cell, size, *pair)) for pair in allowed)
    values = dict(zip(ATTRIBUTES, (COLORS, SHAPES, SIZES), strict=True))
    for old in scene:
        yield Change(old, None)
        for attribute, others in values.items():
            for value in others:
                changed: dict[str, Any] = {attribute: value}
                new = dataclasses.replace(old, **changed)
                if new != old and (new.color, new.shape) in allowed:
                    yield Change(old, new)


def modifications(
    scene: Scene, allowed: tuple[Pair, ...], count: int, rng: random.Random
) -> list[tuple[Change, str]]:
    """`count` changes of a scene, each with its sentence; fewer only if there are no more.

    No sentence occurs twice.  Two of them lead to the same scene only when
    every change that the scene allows has been asked for once.
    """
    pools: dict[str, list[tuple[Change, list[str]]]] = {kind: [] for kind in SHARES}
    for change in changes(scene, allowed):
        pools[change.attribute or change.kind].append((change, []))
    chosen: list[tuple[Change, str]] = []
    while len(chosen) < count and any(pools.values()):
        said_before: dict[str, list[tuple[Change, list[str]]]] = {kind: [] for kind in SHARES}
        while len(chosen) < count and any(pools.values()):
            kinds = [kind for kind in SHARES if pools[kind]]
            [kind] = rng.choices(kinds, [SHARES[kind] for kind in kinds])
            change, texts = pools[kind].pop(rng.randrange(len(pools[kind])))
            texts = texts or change.texts(scene)
            chosen.append((change, texts.pop(rng.randrange(len(texts)))))
            if texts:
                said_before[kind].append((change, texts))
        pools = said_before
    return chosen


def reference(allowed: tuple[Pair, ...], rng: random.Random) -> Scene:
    """A random scene of 1 to 7 objects."""
    cells = rng.sample(range(len(CELLS)), rng.randint(1, MOST_OBJECTS))
    return tuple(Object(cell, rng.choice(SIZES), *rng.choice(allowed)) for cell in sorted(cells))


def picture_rng(seed: int, split: str, number: int) -> random.Random:
    """Decides what a scene does not say and its picture must."""
    return random.Random(f"{seed}/{split}/{number}")


def make_split(
    split: str,
    references: int,
    modifications_each: int,
    seed: int,
    held_out: int = 0,
    texts: int = 1,
) -> Split:
    """The scenes and queries of "train" or "test"; the same for the same arguments.

    No two references are the same scene.

    Args:
        texts: queries of each pair, which differ in their text; one text may come again.  The
            first is the one that there is without others.
    """
    rng = random.Random(f"{seed}/{split}")
    rng_of_more = random.Random(f"{seed}/{split}/texts")
    allowed = pairs(split, held_out)
    distinct: dict[Scene, None] = {}
    while len(distinct) < references:
        distinct.setdefault(reference(allowed, rng))
    scenes = list(distinct)
    queries = []
    for source in range(references):
        for change, text in modifications(scenes[source], allowed, modifications_each, rng):
            told = [text]
            if texts > 1:
                told += rng_of_more.choices(change.texts(scenes[source]), k=texts - 1)
            for one in told:
                queries.append(Query(source, len(scenes), one, change.kind, change.attribute))
            scenes.append(change.apply(scenes[source]))
    return Split(tuple(scenes), tuple(queries))
