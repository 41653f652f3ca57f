"""The sentences mean what the targets show: read by an interpreter that knows only words."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.scenes import protocol
from cqr.scenes.protocol import CELLS, COLORS, SHAPES, SIZES, Object

PAIRS = {split: protocol.pairs(split) for split in protocol.SPLITS}


@st.composite
def scenes(draw, least=0):
    cells = draw(st.lists(st.integers(0, 8), min_size=least, max_size=9, unique=True))
    return tuple(
        Object(
            cell,
            draw(st.sampled_from(SIZES)),
            draw(st.sampled_from(COLORS)),
            draw(st.sampled_from(SHAPES)),
        )
        for cell in sorted(cells)
    )


def read_caption(caption):
    """ "top-left small gray circle; ..." to a list of its objects' four words."""
    return [] if caption == "empty" else [part.split(" ") for part in caption.split("; ")]


def meant(words, things):
    """The things of which all the words are true."""
    return [thing for thing in things if all(w == "object" or w in thing for w in words)]


def follow(caption, text):
    """The caption of the scene that a sentence asks for, from the words alone."""
    things = read_caption(caption)
    verb, *words = text.split(" ")
    if verb == "add":
        *thing, to, cell = words
        assert to == "to"
        assert cell not in [t[0] for t in things]
        things.append([cell, *thing])
    elif verb == "remove":
        (thing,) = meant(words, things)
        things.remove(thing)
    else:
        assert verb == "make"
        (thing,) = meant(words[:-1], things)
        column = next(i for i, kind in ((1, SIZES), (2, COLORS), (3, SHAPES)) if words[-1] in kind)
        assert thing[column] != words[-1]
        thing[column] = words[-1]
    things.sort(key=lambda t: CELLS.index(t[0]))
    return "; ".join(" ".join(thing) for thing in things) or "empty"


@given(scenes(least=1), st.data())
def test_a_phrase_picks_exactly_one_object(scene, data):
    target = data.draw(st.sampled_from(scene))
    said = protocol.phrases(target, scene)
    assert len(said) == len(set(said)) >= 8  # the cell alone suffices, with any other words
    things = read_caption(protocol.caption(scene))
    for phrase in said:
        assert meant(phrase.split(" "), things) == [things[scene.index(target)]]


@given(scenes(least=1), st.data())
def test_no_phrase_that_would_do_is_left_out(scene, data):
    target = data.draw(st.sampled_from(scene))
    things = read_caption(protocol.caption(scene))
    own = things[scene.index(target)]
    expected = {
        " ".join([w for i, w in enumerate(own) if choice >> i & 1] + ["object"] * (choice < 8))
        for choice in range(1, 16)
        if len(meant([w for i, w in enumerate(own) if choice >> i & 1], things)) == 1
    }
    assert set(protocol.phrases(target, scene)) == expected


@settings(deadline=None)
@given(scenes(), st.sampled_from(protocol.SPLITS), st.integers(0, 400), st.integers(0, 99))
def test_following_a_sentence_leads_to_the_target(scene, split, count, seed):
    allowed = PAIRS[split]
    drawn = protocol.modifications(scene, allowed, count, random.Random(seed))
    results = [change.apply(scene) for change, _ in drawn]
    for (change, text), result in zip(drawn, results, strict=True):
        assert follow(protocol.caption(scene), text) == protocol.caption(result)
        assert text.startswith(change.kind)
        assert change.new is None or (change.new.color, change.new.shape) in allowed
        assert scene not in results
    assert len({text for _, text in drawn}) == len(drawn)
    possible = list(protocol.changes(scene, allowed))
    assert len(possible) == len({change.apply(scene) for change in possible})
    assert len(set(results)) == min(count, len(possible))
    sentences = sum(len(change.texts(scene)) for change in possible)
    assert len(drawn) == min(count, sentences)


def test_each_text_of_a_pair_asks_for_the_same():
    made = protocol.make_split("train", 5, 6, seed=3, texts=3)
    assert len(made.queries) == 3 * 5 * 6
    for query in made.queries:
        source, target = made.scenes[query.source], made.scenes[query.target]
        assert follow(protocol.caption(source), query.text) == protocol.caption(target)


@pytest.mark.parametrize("split", protocol.SPLITS)
def test_a_split_holds_what_was_asked_for(split):
    made = protocol.make_split(split, 60, 16, seed=3)
    assert len(made.queries) == 60 * 16
    assert len(made.scenes) == 60 + 60 * 16
    assert len(set(made.scenes[:60])) == 60
    assert all(1 <= len(scene) <= 7 for scene in made.scenes[:60])
    assert [q.source for q in made.queries] == [i for i in range(60) for _ in range(16)]
    assert [q.target for q in made.queries] == list(range(60, 60 + 960))  # each its own picture
    for query in made.queries:
        source, target = made.scenes[query.source], made.scenes[query.target]
        assert follow(protocol.caption(source), query.text) == protocol.caption(target)
        assert (query.kind == "make") == (query.attribute is not None)
    shown = {(one.color, one.shape) for scene in made.scenes for one in scene}
    assert shown == set(PAIRS[split])
    kinds = [query.attribute or query.kind for query in made.queries]
    assert set(kinds) == {"add", "remove", "color", "shape", "size"}
    empty = [i for i, scene in enumerate(made.scenes) if not scene]
    assert empty
    assert {q.kind for q in made.queries if q.target in empty} == {"remove"}


def test_a_seed_decides_the_split():
    assert protocol.make_split("train", 5, 4, seed=1) == protocol.make_split("train", 5, 4, seed=1)
    assert protocol.make_split("train", 5, 4, seed=1) != protocol.make_split("train", 5, 4, seed=2)


def test_a_third_of_the_pairs_is_kept_for_each_split():
    train, test = set(PAIRS["train"]), set(PAIRS["test"])
    assert len(train - test) == len(test - train) == len(train & test) == 8
    for pairs in (train, test):
        assert {color for color, _ in pairs} == set(COLORS)
        assert {shape for _, shape in pairs} == set(SHAPES)


def test_each_choice_keeps_pairs_that_no_other_keeps():
    kept = []
    for choice in range(protocol.HELD_OUT):
        train, test = (set(protocol.pairs(split, choice)) for split in ("train", "test"))
        assert len(train - test) == len(test - train) == len(train & test) == 8
        for pairs in (train, test):
            assert {color for color, _ in pairs} == set(COLORS)
            assert {shape for _, shape in pairs} == set(SHAPES)
        kept.append(test - train)
    assert len(set().union(*kept)) == sum(map(len, kept)) == 24
    assert PAIRS["train"] == protocol.pairs("train", 0)
    made = protocol.make_split("test", 60, 4, seed=3, held_out=2)
    shown = {(one.color, one.shape) for scene in made.scenes for one in scene}
    assert shown == set(protocol.pairs("test", 2))


def test_captions():
    assert protocol.caption(()) == "empty"
    scene = (Object(0, "small", "gray", "circle"), Object(8, "large", "red", "triangle"))
    expected = "top-left small gray circle; bottom-right large red triangle"
    assert protocol.caption(scene) == expected
