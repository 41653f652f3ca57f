"""Shoes: small layouts, valid and broken, against a model of their own."""

import json
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.trainer.datasets.queries import tasks
from cqr.trainer.datasets.readers import shoes
from small_datasets import evaluated, recognise, refusal, refusal_for, rows, write

CAPTIONS, TRAIN, TEST = "relative_captions_shoes.json", "train_im_names.txt", "eval_im_names.txt"
FILES = (CAPTIONS, TRAIN, TEST)


def pair(reference, target, text="is red"):
    return {"ImageName": target, "ReferenceImageName": reference, "RelativeCaption": text}


def layout(pairs, train, test):
    return {
        CAPTIONS: json.dumps(pairs),
        TRAIN: "".join(f"{name}\n" for name in train),
        TEST: "".join(f"{name}\n" for name in test),
    }


SMALL = layout(
    [pair("a.jpg", "b.jpg"), pair("c.jpg", "d.jpg", " less shiny ")],
    ["a.jpg", "b.jpg"],
    ["e.jpg", "d.jpg", "c.jpg"],
)


COLUMNS = ("query_id", "reference", "text", "target", "split")


def test_pairs_go_to_the_split_that_lists_both_their_images():
    found = recognise(write(SMALL))
    assert rows(found.queries, *COLUMNS) == [
        ("0", "a.jpg", "is red", "b.jpg", "train"),
        ("1", "c.jpg", "less shiny", "d.jpg", "test"),
    ]
    assert found.gallery("train") == ["a.jpg", "b.jpg"]
    [work] = tasks(found, "test")
    assert work.gallery == ["e.jpg", "d.jpg", "c.jpg"]
    assert work.reference.tolist() == [2]
    assert [c.tolist() for c in work.correct] == [[1]]
    assert found.notes == ()
    assert shoes.counts(found) == {
        "pairs": 2, "train pairs": 1, "test pairs": 1, "train images": 2, "test images": 3
    }  # fmt: skip
    assert set(shoes.counts(found)) == set(shoes.PUBLISHED)


LETTERS = st.sampled_from("abcdefgh")
FRAMES = st.sampled_from(["{}", "\ufeff{}", "\n{}", "{}\n\n"])


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(LETTERS, LETTERS, st.text("xy é", max_size=3)), min_size=1, max_size=8),
    st.lists(LETTERS, unique=True, min_size=1, max_size=5),
    st.lists(LETTERS, unique=True, min_size=1, max_size=5),
    st.sampled_from(["eval", "with-references"]),
    st.sampled_from(["\n", "\r\n", " \n"]),
    FRAMES,
)
def test_every_valid_layout_is_read_as_it_was_written(pairs, train, test, gallery, end, frame):
    contents = {
        CAPTIONS: json.dumps([pair(f"{r}.jpg", f"{t}.jpg", text) for r, t, text in pairs]),
        TRAIN: end.join(f"womens/{name}.jpg" for name in train),
        TEST: end.join(f"{name}.jpg" for name in test),
    }
    queries, left, gallery_names = [], [], list(test)
    for place, (reference, target, text) in enumerate(pairs):
        split = None
        if reference in train and target in train:
            split = "train"
        elif reference in test and target in test:
            split = "test"
        elif gallery == "with-references" and {reference, target} & set(test):
            split = None if {reference, target} & set(train) else "test"
        if split:
            names = (f"{reference}.jpg", text.strip(), f"{target}.jpg")
            queries.append((str(place), *names, split))
        else:
            left.append(place)
    added = []
    for kind in (1, 3):  # references first
        added += [row[kind][0] for row in queries if row[-1] == "test"]
    gallery_names += [name for name in dict.fromkeys(added) if name not in test]

    with tempfile.TemporaryDirectory() as folder:
        root = write({k: frame.replace("{}", v) for k, v in contents.items()}, folder)
        if not queries:
            assert f"none of the {len(pairs)} pairs of " in refusal(root, f"gallery={gallery}")
            return
        found = recognise(root, f"gallery={gallery}")
    assert rows(found.queries, *COLUMNS) == queries
    assert found.gallery("train") == [f"{name}.jpg" for name in train]
    assert found.gallery("test") == [f"{name}.jpg" for name in gallery_names]
    said = [int(note.split(": ")[1].split(",")[0]) for note in found.notes if "left out" in note]
    assert sum(said) == len(left)


def test_what_is_odd_is_said():
    pairs = [
        pair("a.jpg", "b.jpg"),
        pair("a.jpg", "c.jpg"),
        pair("c.jpg", "x.jpg"),
        pair("y.jpg", "x.jpg"),
        pair("c.jpg", "c.jpg"),
        pair("d.jpg", "c.jpg"),
    ]
    root = write(layout(pairs, ["a.jpg", "b.jpg", "d.jpg"], ["c.jpg", "d.jpg"]))
    shared = "images in both lists: 1, first d.jpg"
    left = "pairs left out, with {}, first entry {} (from 0), {} and {}.jpg"
    across = left.format("one image in either list: 1", 1, "a.jpg", "c")
    same = (
        "test pairs with one image as reference and target: 1, first c.jpg; "
        "with the reference removed no query can find it"
    )
    found = recognise(root)
    assert found.notes == (
        shared,
        left.format("an image in no list: 2", 2, "c.jpg", "x"),
        across,
        same,
    )
    assert found.split("test")["query_id"].tolist() == ["4", "5"]
    [work] = tasks(found, "test")
    assert [c.tolist() for c in work.correct] == [[], [0]]
    wider = recognise(root, "gallery=with-references")
    added = (
        "images of test pairs that eval_im_names.txt lacks, added to the gallery: 1, first x.jpg"
    )
    assert wider.notes == (
        shared,
        left.format("an image in no list: 1", 3, "y.jpg", "x"),
        across,
        same,
        added,
    )
    assert wider.split("test")["query_id"].tolist() == ["2", "4", "5"]
    assert wider.gallery("test") == ["c.jpg", "d.jpg", "x.jpg"]


def test_the_list_that_val_ships_is_recognised_by_its_length():
    names = [f"{i}.jpg" for i in range(4621)]
    root = write(layout([pair("0.jpg", "1.jpg")], ["t.jpg"], names))
    [note] = recognise(root).notes
    assert note == (
        "eval_im_names.txt has 4,621 images: it is the list that VAL ships, 37 shorter than the "
        "release's"
    )
    write(layout([pair("0.jpg", "1.jpg")], ["t.jpg"], [*names, "x.jpg"]))
    assert recognise(root).notes == ()


def test_pictures_are_found_by_their_names_in_any_folder():
    paths = [f"attributedata/womens_clogs/{i}/{name}.jpg" for i, name in enumerate("abcde")]
    found = recognise(write(SMALL), paths=paths)
    assert found.gallery("test") == [paths[4], paths[3], paths[2]]
    assert found.queries["reference"].tolist() == [paths[0], paths[2]]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN, None, "is missing: the data set is not whole, download it again"),
        (TEST, None, "is missing: the data set is not whole, download it again"),
        (TEST, "\r\n\n", "lists no images: download it again"),
        (TRAIN, "é.jpg\n".encode("latin-1"), "is not UTF-8 (byte 1): download it again"),
        (CAPTIONS, "{}", "holds a dict, not a list: download it again"),
        (CAPTIONS, "[]", "holds no entries: download it again"),
        (CAPTIONS, "[[]]", "entry 0 (from 0) is [], not an object: download it again"),
        (CAPTIONS, "[{}]", "entry 0 (from 0) has no ReferenceImageName: download it again"),
        (CAPTIONS, json.dumps([pair("a", "b", 3)]), "has the RelativeCaption 3, which is no text"),
        (CAPTIONS, json.dumps([pair("a", "")]), "entry 0 (from 0) has an empty ImageName"),
        (CAPTIONS, json.dumps([pair("\udc80", "b")]),
         r"has the ReferenceImageName '\udc80', which is no text: download it again"),
        (CAPTIONS, json.dumps([pair(["a"] * 20, "b")]),
         "['a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', 'a', '..., which is no text"),
        (CAPTIONS, json.dumps([pair("a.jpg", "c.jpg")]),
         "has both images in train_im_names.txt or in eval_im_names.txt: download the three files"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_in_one_sentence(name, content, message):
    assert message in refusal_for(SMALL, name, content)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(FILES),
    st.integers(0, 300),
    st.one_of(st.none(), st.binary(min_size=1, max_size=2)),
)
def test_damage_is_refused_in_one_sentence_or_read(name, where, what):
    content = SMALL[name].encode()
    damaged = content[:where] if what is None else content[:where] + what + content[where + 1 :]
    with tempfile.TemporaryDirectory() as folder:
        root = write(SMALL | {name: damaged}, folder)
        said = refusal(root)
        found = None if said else recognise(root)
    assert "\n" not in said
    assert said or len(found.queries) + sum("left out" in note for note in found.notes) == 2


def test_it_is_trained_on_and_scored(write_features):
    names = [f"img_womens_clogs_{i}.jpg" for i in range(16)]
    pairs = [pair(names[i], names[i + 1], f"is more {i}") for i in range(15) if i != 11]
    root = write(layout(pairs, names[:12], names[12:]), "photos")
    paths = [f"womens_clogs/0/{name}" for name in names]
    metrics = evaluated(write_features, root, paths).metrics
    assert (metrics["split"], metrics["queries"], metrics["gallery"]) == ("test", 3, 4)
    assert list(metrics["recall"]) == ["1", "10", "50"]
    assert metrics["recall"]["10"] == 100  # of three images without the reference
    assert "the reference is removed from it" in metrics["protocol"]
