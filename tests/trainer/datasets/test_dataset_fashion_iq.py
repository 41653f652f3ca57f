"""FashionIQ: small layouts, valid and broken, against a model of their own."""

import json
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.trainer.datasets.queries import tasks
from cqr.trainer.datasets.readers import fashion_iq
from cqr.trainer.evaluation import submission
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.text.words import spaced as words_of
from cqr.trainer.training import runs
from cqr.trainer.training.material import Wanted, collect_for
from small_datasets import evaluated, recognise, refusal, refusal_for, rows, write


def entry(candidate="C1", target="T1", first="is red", second="is long"):
    return {"target": target, "candidate": candidate, "captions": [first, second]}


def without_target(some):
    return [{key: value for key, value in one.items() if key != "target"} for one in some]


def files(category="dress", train=(), val=(), test=(), lists=None):
    """The files of a category; where `lists` does not say, a list has the images in use."""
    splits = {"train": train or [entry()], "val": val or [entry("C2", "T2")], "test": test}
    contents = {}
    for split, some in splits.items():
        if some:
            named = sorted({one[key] for one in some for key in ("candidate", "target")})
            some = without_target(some) if split == "test" else some
            contents[f"captions/cap.{category}.{split}.json"] = json.dumps(some)
            listed = (lists or {}).get(split, named)
            contents[f"image_splits/split.{category}.{split}.json"] = json.dumps(listed)
    return contents


# --- what is valid

NAMES = st.text("AB01", min_size=1, max_size=3)
CAPTIONS = st.text("ab .?,é'\n", max_size=6)
ENTRIES = st.lists(
    st.builds(entry, NAMES, NAMES, CAPTIONS.map("a".__add__), CAPTIONS), min_size=1, max_size=4
)
SPLIT = st.tuples(ENTRIES, st.lists(NAMES, unique=True, max_size=6))
LAYOUTS = st.dictionaries(
    st.sampled_from(["dress", "shirt", "toptee"]),
    st.fixed_dictionaries({"train": SPLIT, "val": SPLIT}, optional={"test": SPLIT}),
    min_size=1,
)
OPTIONS = st.fixed_dictionaries(
    {
        "gallery": st.sampled_from(["original", "val"]),
        "reference": st.sampled_from(["by-gallery", "removed", "kept"]),
        "text": st.sampled_from(["and", "token", "both-orders", "each"]),
        "train_text": st.sampled_from(["random", "same"]),
    }
)
FRAMES = st.sampled_from(["{}", "\ufeff{}", "{}\r\n", "\r\n{}"])


def bare(caption):
    while caption and (caption[0].isspace() or caption[0] in ".?,"):
        caption = caption[1:]
    while caption and (caption[-1].isspace() or caption[-1] in ".?,"):
        caption = caption[:-1]
    return caption


def texts_of(captions, split, options):
    """What the docstring of Options says, once more."""
    some = [text for text in map(bare, captions) if text]
    form = options["text"]
    if split == "train" and options["train_text"] == "random":
        form = "and"
    if split == "test" and form != "token":
        form = "and"
    if form == "each":
        return some
    if form == "both-orders":
        return [" and ".join(some), " and ".join(reversed(some))]
    return [(" inadditiontothat " if form == "token" else " and ").join(some)]


def rows_of(layout, options):
    """The queries and the images that a layout holds, in order."""
    there = [c for c in ("dress", "shirt", "toptee") if c in layout]
    order = [(c, s) for c in there for s in ("train", "val")]
    order += [(c, "test") for c in there if "test" in layout[c]]
    queries, images = [], []
    for category, split in order:
        some, listed = layout[category][split]
        used = []
        for place, one in enumerate(some):
            target = None if split == "test" else one["target"]
            for name in (one["candidate"], target):
                used += [] if name in used else [name]
            for text in texts_of(one["captions"], split, options):
                queries.append((category, split, place, one["candidate"], target, text))
        if (split, options["gallery"]) == ("val", "val"):
            listed = used
        images += [(category, split, name, name, None) for name in listed]
    return queries, images


@settings(max_examples=50, deadline=None)
@given(LAYOUTS, OPTIONS, st.data())
def test_every_valid_layout_is_read_as_it_was_written(layout, options, data):
    contents = {}

    def add(name, value):
        text = json.dumps(
            value,
            ensure_ascii=data.draw(st.booleans()),
            indent=data.draw(st.sampled_from([None, 4])),
        )
        contents[name] = data.draw(FRAMES).replace("{}", text)

    for category, splits in layout.items():
        for split, (some, listed) in splits.items():
            some = without_target(some) if split == "test" else some
            add(f"captions/cap.{category}.{split}.json", [one | {"more": 1} for one in some])
            add(f"image_splits/split.{category}.{split}.json", listed)
    with tempfile.TemporaryDirectory() as folder:
        found = recognise(write(contents, folder), *(f"{k}={v}" for k, v in options.items()))

    queries, images = rows_of(layout, options)
    columns = ("category", "split", "entry", "reference", "target", "text")
    assert rows(found.queries, *columns) == queries
    assert found.queries["query_id"].is_unique
    assert rows(found.images, "category", "split", "path", "name", "caption") == images
    removed = {"by-gallery": options["gallery"] == "val", "removed": True, "kept": False}
    assert found.protocol.remove_reference is removed[options["reference"]]
    assert any("absent" in note for note in found.notes) is (len(layout) < 3)
    assert all("\n" not in note for note in found.notes)


def test_each_category_has_its_own_gallery():
    val = [entry("C2", "T2"), entry("T2", "T3")]
    root = write(
        files("dress", val=val, lists={"val": ["X", "T3", "T2", "C2"]})
        | files("shirt", val=[entry("S1", "C2")])
    )
    original = tasks(recognise(root), "val")
    assert [work.gallery for work in original] == [["X", "T3", "T2", "C2"], ["C2", "S1"]]
    assert [[c.tolist() for c in work.correct] for work in original] == [[[2], [1]], [[0]]]
    assert [work.reference.tolist() for work in original] == [[-1, -1], [-1]]
    own = tasks(recognise(root, "gallery=val"), "val")
    assert [work.gallery for work in own] == [["C2", "T2", "T3"], ["S1", "C2"]]
    assert [[c.tolist() for c in work.correct] for work in own] == [[[1], [2]], [[1]]]
    assert [work.reference.tolist() for work in own] == [[0, 1], [0]]


def test_a_category_that_is_not_there_is_said():
    root = write(files("shirt"))
    assert recognise(root).notes == (
        "dress and toptee are absent: recall is the mean over shirt alone",
    )
    write(files("dress"))
    assert recognise(root).notes == (
        "toptee is absent: recall is the mean over dress and shirt alone",
    )
    write(files("toptee"))
    assert recognise(root).notes == ()


def test_the_entries_of_a_submission_can_be_made_again():
    test = [entry("C9", first=" is  RED."), entry("C8", second="it’s é")]
    root = write(files(test=test))
    queries = recognise(root, "text=each", paths=["dress/C9.jpg"]).split("test")
    assert queries["reference"].tolist() == ["dress/C9.jpg", "C8"]
    assert queries["entry"].tolist() == [0, 1]
    assert queries["target"].tolist() == [None, None]
    again = [
        {"candidate": candidate, "captions": captions}
        for candidate, captions in rows(queries, "candidate", "captions")
    ]
    assert again == json.loads((root / "captions/cap.dress.test.json").read_text())


def test_one_picture_of_two_categories_is_in_both_galleries():
    root = write(files("dress", val=[entry("C2", "T2")]) | files("toptee", val=[entry("T2", "C2")]))
    paths = ["all/C2.jpg", "toptee/T2.png", "dress/T2.png", "all/C1.jpg", "all/T1.jpg"]
    found = recognise(root, paths=paths)
    galleries = [work.gallery for work in tasks(found, "val")]
    assert galleries == [["all/C2.jpg", "dress/T2.png"]] * 2
    names = found.images.loc[found.images["path"] == "dress/T2.png", "name"]
    assert names.tolist() == ["T2", "T2"]
    assert found.notes[-1] == (
        "1 images have several pictures, first T2 (dress/T2.png, toptee/T2.png): "
        "the first of each is used"
    )


# --- texts


def test_a_blank_caption_leaves_the_other_and_is_said():
    val = [entry(first=" . ", second="b"), entry("C2", "T2", "a", ""), entry("C3", "T3", " ", "?")]
    root = write(files(val=val))
    said = "entries with a blank caption: 2, first cap.dress.val.json entry 0 (from 0); "
    both = "entries with two blank captions: 1, first cap.dress.val.json entry 2 (from 0); "
    expected = {
        "and": ["b", "a", ""],
        "token": ["b", "a", ""],
        "both-orders": ["b", "b", "a", "a", "", ""],
        "each": ["b", "a"],
    }
    for form, texts in expected.items():
        found = recognise(root, f"text={form}")
        assert found.split("val")["text"].tolist() == texts
        lost = "a blank caption is no query"
        fates = (
            [lost, lost]
            if form == "each"
            else ["the other one is their text", "their text is empty"]
        )
        assert found.notes[1:] == (said + fates[0], both + fates[1])


def test_two_queries_of_a_pair_are_told_apart_by_a_suffix():
    root = write(files(val=[entry(), entry("C2", "T2", "a", "")]))
    ids = {
        form: recognise(root, f"text={form}").split("val")["query_id"].tolist()
        for form in ("and", "both-orders", "each")
    }
    assert ids == {
        "and": ["dress-val-0", "dress-val-1"],
        "both-orders": ["dress-val-0-1", "dress-val-0-2", "dress-val-1-1", "dress-val-1-2"],
        "each": ["dress-val-0-1", "dress-val-0-2", "dress-val-1-1"],
    }


def test_training_texts_are_drawn_from_four_forms():
    pairs = [entry(f"C{i}", f"T{i}", f"First {i}.", f"second {i}") for i in range(2000)]
    pairs += [entry(f"C-{i}", f"T-{i}", " ", "alone") for i in range(20)]
    pairs += [entry(f"C-{i}", f"T-{i}", "alone", ".") for i in range(20, 40)]
    found = recognise(write(files(train=pairs)))
    source = found.pairs(found.split("train"), found.images_of("train"))
    drawn, again = (source.draw(np.random.default_rng(7)) for _ in range(2))
    other = source.draw(np.random.default_rng(8))
    assert len(source) == len(drawn) == 2040
    assert drawn.text.tolist() == again.text.tolist() != other.text.tolist()
    assert drawn.reference.tolist() == again.reference.tolist() != other.reference.tolist()
    counted = [0, 0, 0, 0]
    seen = set()
    for reference, text, target in zip(drawn.reference, drawn.text, drawn.target, strict=True):
        i = reference[1:]
        seen.add(i)
        assert target == f"T{i}"
        a, b = f"First {i}", f"second {i}"
        if "-" not in i:
            counted[[f"{a} and {b}", f"{b} and {a}", a, b].index(text)] += 1
        else:
            assert text == "alone"
    assert len(seen) == 2040
    assert min(counted) > 420  # 500 expected, standard deviation 19
    known = {word for text in source.texts() for word in words_of(text)}
    assert {word for text in drawn.text for word in words_of(text)} <= known


def test_training_texts_may_keep_the_form_of_the_queries():
    found = recognise(write(files(train=[entry(), entry("C2")])), "text=each", "train_text=same")
    drawn = found.pairs(found.split("train"), found.images_of("train")).draw(
        np.random.default_rng(0)
    )
    pairs = zip(drawn.reference, drawn.text, strict=True)
    assert sorted(pairs) == [(c, t) for c in ("C1", "C2") for t in ("is long", "is red")]


# --- what is odd or broken


def test_images_that_no_list_has_are_said_and_their_queries_count_as_missed():
    val = [entry("C2", "T2"), entry("C3", "T3")]
    root = write(files(val=val, lists={"val": ["C2", "T2", "C3"], "train": ["C1"]}))
    found = recognise(root)
    said = "images that cap.dress.{0}.json names and split.dress.{0}.json does not list: 1, first "
    assert found.notes[1:] == (
        said.format("train") + "T1",
        said.format("val") + "T3; no query can find them",
    )
    [work] = tasks(found, "val")
    assert [c.tolist() for c in work.correct] == [[1], []]
    [work] = tasks(recognise(root, "gallery=val"), "val")
    assert [c.tolist() for c in work.correct] == [[1], [3]]


CAP, LIST = "captions/cap.dress.val.json", "image_splits/split.dress.val.json"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (CAP, None, "is missing: the data set is not whole, download it again"),
        (LIST, None, "is missing: the data set is not whole, download it again"),
        (CAP, "[{}", "is no JSON (Expecting ',' delimiter: line 1 column 4 (char 3)): download"),
        (CAP, "", "is no JSON (Expecting value: line 1 column 1 (char 0)): download it again"),
        (CAP, '{"a": 1}', "holds a dict, not a list: download it again"),
        (CAP, "[]", "holds no entries: download it again"),
        (CAP, json.dumps([entry(), ["x"]]), "entry 1 (from 0) is ['x'], not an object: download"),
        (CAP, json.dumps(without_target([entry()])), "entry 0 (from 0) has no target: download"),
        (CAP, json.dumps([entry(5)]), "entry 0 (from 0) has the candidate 5, which is no text"),
        (CAP, json.dumps([entry(" ")]), "entry 0 (from 0) has an empty candidate: download"),
        (CAP, json.dumps([entry(first=None)]),
         "entry 0 (from 0) has the captions [None, 'is long'], not 2 texts: download it again"),
        (CAP, json.dumps([entry() | {"captions": ["a"]}]), "has the captions ['a'], not 2 texts"),
        (CAP, json.dumps([entry() | {"captions": "ab"}]), "has the captions 'ab', not 2 texts"),
        (CAP, json.dumps([entry(first="\ud800")]), r"captions ['\ud800', 'is long'], not 2 texts"),
        (CAP, json.dumps([entry(first="é")], ensure_ascii=False).encode("latin-1"), "is not UTF-8"),
        (LIST, json.dumps({"C2": "T2"}), "holds a dict, not a list: download it again"),
        (LIST, json.dumps(["C2", None]), "entry 1 (from 0) is None, not a name: download it again"),
        (LIST, json.dumps(["C2", ""]), "entry 1 (from 0) is '', not a name: download it again"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_in_one_sentence(name, content, message):
    assert message in refusal_for(files(), name, content)


def test_captions_that_are_all_blank_are_no_queries():
    root = write(files(val=[entry(first=" ", second=".")]))
    assert "cap.dress.val.json has no caption that is not blank" in refusal(root, "text=each")


def test_a_test_split_needs_its_list_but_may_be_absent():
    root = write(files(test=[entry("C9")]))
    assert len(recognise(root).split("test")) == 1
    (root / "image_splits/split.dress.test.json").unlink()
    assert "split.dress.test.json is missing" in refusal(root)
    (root / "captions/cap.dress.test.json").unlink()
    assert recognise(root).split("test").empty


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2)
    ),
    max_leaves=4,
)
DAMAGE = st.one_of(
    st.tuples(st.just("gone"), st.just(0), st.none()),
    st.tuples(st.just("cut"), st.integers(0, 400), st.none()),
    st.tuples(st.just("byte"), st.integers(0, 400), st.integers(0, 255)),
    st.tuples(st.just("value"), st.integers(0, 3), JSON),
    st.tuples(st.just("key"), st.sampled_from(["candidate", "target", "captions"]), JSON),
)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(files(test=[entry("C9")]))), DAMAGE)
def test_damage_is_refused_in_one_sentence_or_read(name, damage):
    contents = {k: v.encode() for k, v in files(test=[entry("C9")]).items()}
    kind, where, what = damage
    content = contents[name]
    value = json.loads(content)
    if kind == "cut":
        content = content[:where]
    elif kind == "byte" and where < len(content):
        content = content[:where] + bytes([what]) + content[where + 1 :]
    elif kind == "value" and where < len(value):
        content = json.dumps([*value[:where], what, *value[where + 1 :]]).encode()
    elif kind == "key" and isinstance(value[0], dict):
        content = json.dumps([value[0] | {where: what}, *value[1:]]).encode()
    contents[name] = content
    if kind == "gone":
        del contents[name]
    with tempfile.TemporaryDirectory() as folder:
        root = write(contents, folder)
        said = refusal(root)
        found = None if said else recognise(root)
    assert "\n" not in said
    assert said or set(found.queries["split"]) <= {"train", "val", "test"}
    assert said or found.queries["reference"].map(type).eq(str).all()


# --- counts, and the whole line


def test_counts_are_called_as_the_published_ones():
    contents = {}
    for i, category in enumerate(fashion_iq.CATEGORIES):
        val = [entry("A", f"V{i}"), entry("A", "B")]
        lists = {"val": ["A", "B", f"V{i}", "X"]}
        contents |= files(category, [entry()], val, [entry("C9")], lists)
    root = write(contents)
    counted = fashion_iq.counts(recognise(root, "text=both-orders"))
    assert set(counted) == set(fashion_iq.PUBLISHED)
    assert counted["shirt val pairs"] == 2
    assert counted["shirt val images"] == 4
    assert counted["shirt images of val pairs"] == 3
    assert counted["toptee test pairs"] == 1
    assert counted["names"] == 3 * (2 + 4 + 2)
    assert counted["distinct names"] == len({"A", "B", "V0", "V1", "V2", "X", "C1", "T1", "C9"})
    fewer = fashion_iq.counts(recognise(root, "gallery=val"))
    left = {f"{c} val images" for c in fashion_iq.CATEGORIES} | {"names", "distinct names"}
    assert fewer == {what: n for what, n in counted.items() if what not in left}


def test_it_is_trained_on_and_scored_by_category(write_features):
    names = {c: [f"{c[0].upper()}{i}" for i in range(12)] for c in ("dress", "shirt")}
    contents = {}
    for category, some in names.items():
        pairs = [entry(a, b, f"is {b}", f"not {a}") for a, b in pairwise(some[:9])]
        val = [entry(some[9], some[10]), entry(some[10], some[11])]
        contents |= files(category, pairs, val, lists={"val": some[9:]})
    root = write(contents, "photos")
    paths = [f"images/{category}/{name}.jpg" for category, some in names.items() for name in some]
    result = evaluated(write_features, root, paths, "text=both-orders")
    assert result.metrics["queries"] == 8
    assert result.metrics["gallery"] == 6
    parts = result.metrics["breakdown"]["category"]
    assert {name: (part["queries"], part["gallery"]) for name, part in parts.items()} == {
        "dress": (4, 3),
        "shirt": (4, 3),
    }
    assert result.metrics["recall"]["5"] == 100  # of three images in a gallery
    assert result.metrics["average"] == {"of": ["R@10", "R@50"], "value": 100.0}
    assert "the reference is kept in it" in result.metrics["protocol"]
    Stored(Path("evaluation")).write(result)
    stored = pd.read_parquet("evaluation/queries.parquet")
    assert stored["query_id"].tolist()[:3] == ["dress-val-0-1", "dress-val-0-2", "dress-val-1-1"]
    assert stored["candidate"].tolist()[-1] == "S10"
    assert set(stored["found"][0]) - {None} == {f"images/dress/D{i}.jpg" for i in (9, 10, 11)}


def test_what_is_submitted_is_the_challenge_s_entries_with_their_rankings(write_features):
    train = [entry(f"C{i}", f"T{i}", f"is {i}") for i in range(8)]
    asked = [entry(f"X{i}", "none", f"is {i}", "") for i in range(3)]
    listed = [f"X{i}" for i in range(55)]
    contents = files(train=train, val=train[:2], test=asked, lists={"test": listed})
    root = write(contents)
    names = [f"{name}{i}" for name in "CT" for i in range(8)] + listed
    evaluated(write_features, root, [f"images/{name}.jpg" for name in names])
    run = runs.newest()
    material = collect_for(run, None, Wanted(), split="submitted", max_missing=0)
    [path] = submission.submit(run, material, torch.device("cpu"))
    assert path.name == "dress.test.pred.json"
    answers = json.loads(path.read_text())
    given = json.loads(contents["captions/cap.dress.test.json"])
    assert [{k: v for k, v in a.items() if k != "ranking"} for a in answers] == given
    for answer in answers:
        assert len(set(answer["ranking"])) == 50
        assert set(answer["ranking"]) <= set(listed)
