"""TIRG's own CSS files: a pickle as Python 2 writes it, refused where it is more than data."""

import os
import pickle
import struct
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.pairs import Listed
from cqr.trainer.datasets.readers import css, css_npy
from cqr.trainer.datasets.readers.css_original import FILE, Modifications
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.evaluation import evaluate
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import collect
from cqr.trainer.training.settings import Settings, settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

# ---- a pickle of protocol 2 as Python 2.7 with numpy 1.x writes it, opcode by opcode

ARRAY = (  # numpy.core.multiarray._reconstruct(numpy.ndarray, (0,), "b"), then its state
    b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85U\x01b\x87R"
    b"(K\x01)cnumpy\ndtype\nq\x03U\x02O8K\x00K\x01\x87R"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb\x89]"
)
END = b"atb."  # the one object, appended to the list; the state; build


def python2(value):
    """The opcodes of plain data; a text is one of bytes, a whole number may be numpy's."""
    if value is None:
        return b"N"
    if isinstance(value, np.generic):
        scalar, dtype = b"cnumpy.core.multiarray\nscalar\n", b"cnumpy\ndtype\n"
        code, content = value.dtype.str[1:].encode(), value.tobytes()
        dtype += b"U\x02" + code + b"K\x00K\x01\x87R(K\x03U\x01<NNN" + 2 * b"J\xff\xff\xff\xff"
        return scalar + dtype + b"K\x00tbU" + bytes([len(content)]) + content + b"\x86R"
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        text = value.encode("latin1")
        return b"U" + bytes([len(text)]) + text
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    items = b"".join(python2(key) + python2(item) for key, item in value.items())
    return b"}(" + items + b"u"


def npy(value):
    return npy_of(ARRAY + python2(value) + END)


def npy_of(pickled, header="{'descr': '|O', 'fortran_order': False, 'shape': (), }"):
    text = header.encode() + b" " * (-(len(header) + 11) % 16) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + pickled


def scene(*objects):
    return [
        {"shape": "circle", "color": color, "size": "small", "pos": (1 / 6, 0.5)}
        for color in objects
    ]


def mod(sources, targets, text, kind="make"):
    return {
        "from": sources, "to": targets, "to_str": text, "type": kind, "make_new_size": None,
        "target_color": "purple", "str": ["make"],
    }  # fmt: skip


def part(scenes=6):
    return {
        "objects_img": [scene("red", "blue")] * (scenes - 1) + [[]],
        "mods": [
            mod([0, 1], [2, 3], "make top-left red circle blue"),
            mod([0], [4], "add large object", "add"),
            mod([1], [5], "remove circle", "remove"),
        ],
        "labels": ["7", "8", "9", "9", "8", "empty"][:scenes],
    }


def write(root, content=None):
    root.mkdir(exist_ok=True)
    if content is None:
        content = npy({"train": part(), "test": part()})
    (root / FILE).write_bytes(content)
    return root


def names(split, number=6):
    return [f"images/css_{split}_{i:06d}.png" for i in range(number)]


def recognise(root, given=()):
    pictures = Pictures(root, names("train") + names("test"))
    return read(find(pictures), pictures, given=given)


def test_the_imitation_is_what_numpy_reads(tmp_path):
    content = {"train": part(), "number": 2.5, "numpy": [np.int64(5), np.float32(0.5)]}
    write(tmp_path, npy(content))
    theirs = np.load(tmp_path / FILE, allow_pickle=True, encoding="latin1").item()
    assert theirs == content
    assert css_npy.load(tmp_path / FILE) == content


def test_a_file_that_was_saved_again_by_a_newer_numpy_is_read(tmp_path):
    content = {"train": part(), "test": part() | {"labels": np.arange(6)}}
    with (tmp_path / FILE).open("wb") as file:
        np.save(file, content, allow_pickle=True)
    assert recognise(tmp_path).images_of("test")["caption"].tolist() == list("012345")


def test_images_and_queries(tmp_path):
    data = recognise(write(tmp_path))
    assert data.name == "css"
    test = names("test")
    assert data.images.values.tolist() == [
        [path, label, split]
        for split in ("train", "test")
        for path, label in zip(names(split), part()["labels"], strict=True)
    ]
    assert data.split("test")["place"].dropna().tolist() == ["top-left", "top-left"]
    assert data.split("test").drop(columns="place").values.tolist() == [
        ["test-0", test[0], "make top-left red circle blue", test[2], "test", "make", 0],
        ["test-1", test[1], "make top-left red circle blue", test[3], "test", "make", 0],
        ["test-2", test[0], "add large object", test[4], "test", "add", 1],
        ["test-3", test[1], "remove circle", test[5], "test", "remove", 2],
    ]
    assert css.counts(data) == {
        "train images": 6, "test images": 6, "train queries": 4, "test queries": 4,
        "train modifications": 3, "test modifications": 3,
    }  # fmt: skip
    assert list(css.PUBLISHED) == list(css.counts(data))


def test_the_protocol_and_the_loss_are_tirg_s(tmp_path):
    data = recognise(write(tmp_path))
    assert "generated" not in data.protocol.sentence()
    assert "caption equals" in data.protocol.sentence()
    assert data.recommended["loss"] == "soft-triplet"
    assert "random query" in data.protocol.pairs


def test_without_labels_every_image_is_a_scene_of_its_own(tmp_path):
    content = {split: part() for split in ("train", "test")}
    del content["train"]["labels"], content["test"]["labels"]
    data = recognise(write(tmp_path, npy(content)))
    assert data.images_of("test")["caption"].tolist() == list("012345")


def test_labels_and_numbers_may_be_numpy_s(tmp_path):
    numbers = [np.int64(i) for i in (7, 8, 9, 9, 8, 3)]
    content = {split: part() | {"labels": numbers} for split in ("train", "test")}
    content["test"]["mods"] = [mod([np.int64(1)], [np.int32(2)], "bigger", None)]
    data = recognise(write(tmp_path, npy(content)))
    assert data.images_of("test")["caption"].tolist() == ["7", "8", "9", "9", "8", "3"]
    assert data.split("test")[["reference", "target", "kind"]].values.tolist() == [
        ["images/css_test_000001.png", "images/css_test_000002.png", None]
    ]


# ---- what is refused

TOUCH = b"(" + python2("touch harmed")
RUNS = {
    "os.system": b"cposix\nsystem\n" + TOUCH + b"tR",
    "inst": TOUCH + b"iposix\nsystem\n",
    "eval": b"c__builtin__\neval\n(" + python2("open('harmed', 'w').close()") + b"tR",
    "numpy's own": b"cnumpy.testing._private.utils\nrunstring\n(" + python2("pass") + b"}tR",
    "a class": b"ccollections\nCounter\n)R",
    "an attribute": b"cnumpy\nndarray.__new__\n)R",
}


@pytest.mark.parametrize("payload", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("inside", [True, False])
def test_a_pickle_that_asks_for_more_than_data_is_refused_and_not_run(tmp_path, payload, inside):
    pickled = (
        ARRAY + b"}(U\x05train" + payload + b"u" + END if inside else b"\x80\x02" + payload + b"."
    )
    write(tmp_path / "css", npy_of(pickled))
    with pytest.raises(UserError) as error:
        recognise(tmp_path / "css")
    assert "asks for " in str(error.value)
    assert "it is not read" in str(error.value)
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["css"]  # also the folder that the test runs in


@pytest.mark.parametrize("payload", ["os.system", "inst", "eval"])
def test_the_payloads_do_run_where_nothing_stops_them(tmp_path, payload):
    pickle.loads(b"\x80\x02" + RUNS[payload] + b".", encoding="latin1")
    assert (tmp_path / "harmed").exists()


@pytest.mark.parametrize(
    "trick",
    [
        b"cnumpy\nndarray\n}U\x06valuesK\x01sb",  # the state of the class itself
        b"cnumpy.core.multiarray\nscalar\n}U\x07__new__K\x01sb",
        b"cnumpy.core.multiarray\nscalar\n(N}U\x07__new__K\x01stb",
        b"cnumpy\ndtype\n(U\x02O8tRU\x08AAAAAAAA\x86cnumpy.core.multiarray\nscalar\nR",
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02O8tRU\x08AAAAAAAAtR",
        b"cnumpy\ndtype\nNR",
        b"r\xff\xff\xff\xff",
        b"U\xff",
    ],
)
def test_tricks_with_the_stand_ins_are_refused_and_change_nothing(tmp_path, trick):
    write(tmp_path, npy_of(ARRAY + trick + END))
    with pytest.raises(UserError, match=r"is no .npy of one pickled object"):
        recognise(tmp_path)
    assert recognise(write(tmp_path)).split("test")["query_id"].size == 4


def changed(**changes):
    return {"train": part(), "test": part() | changes}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no .npy of one pickled object (ValueError): download it again"),
        (b"<!DOCTYPE html><title>Google Drive</title>", "is no .npy of one pickled object"),
        (npy({"train": part(), "test": part()})[:-40], "is no .npy of one pickled object"),
        (npy_of(b"", "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }"), "is no .npy"),
        (npy_of(b"\x80\x02N."), "is no .npy of one pickled object (AttributeError)"),
        (npy([1]), "holds a list, not a dict: download TIRG's CSS data set again"),
        (npy({"train": part()}), "holds no test split"),
        (npy({"train": part(), "test": 5}), "holds no test split"),
        (npy(changed(objects_img=None)), "holds no list test objects_img"),
        (npy(changed(labels=["1"])), "holds 1 test labels for 6 images"),
        (npy(changed(labels="123456")), "holds no list test labels"),
        (npy(changed(mods=None)), "holds no list test mods"),
        (npy(changed(mods=[5])), "holds no text (to_str) in test mods[0]"),
        (npy(changed(mods=[mod([0], [1], None)])), "holds no text (to_str) in test mods[0]"),
        (npy(changed(mods=[mod([0, 1], [1], "t")])), "holds 2 images from, 1 to, in test mods[0]"),
        (npy(changed(mods=[mod([0], [6], "t")])), "holds image 6 of 6 in test mods[0]"),
        (npy(changed(mods=[mod([-1], [5], "t")])), "holds image -1 of 6 in test mods[0]"),
        (npy(changed(mods=[mod([0.5], [5], "t")])), "holds image 0.5 of 6 in test mods[0]"),
        (npy(changed(mods=[mod(None, [5], "t")])), "holds no list test mods[0] from"),
    ],
)
def test_what_is_broken_is_refused_in_one_sentence(tmp_path, content, message):
    with pytest.raises(UserError) as error:
        recognise(write(tmp_path, content))
    assert message in str(error.value)
    assert str(tmp_path / FILE) in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_nested_beyond_any_depth_are_refused(tmp_path):
    deep = b"]" * 100_000 + b"a" * 99_999
    content = npy({"train": part(), "test": part() | {"labels": ["?", *"12345"]}})
    write(tmp_path, content.replace(python2("?"), deep))
    with pytest.raises(UserError, match="holds a label of too many parts: download"):
        recognise(tmp_path)


def test_a_file_that_is_too_large_is_not_opened(tmp_path):
    write(tmp_path, b"")
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(css_npy.LIMIT + 1)
    with pytest.raises(UserError, match="bytes, too many for what it should be"):
        recognise(tmp_path)


def test_a_folder_that_is_both_is_refused(tmp_path):
    write(tmp_path)
    (tmp_path / "scenes.json").write_text("{}")
    with pytest.raises(UserError, match=f"has scenes.json and {FILE}, two data sets: move one"):
        recognise(tmp_path)


# ---- pairs


def frame(queries):
    return pd.DataFrame(queries, columns=["reference", "mod"]).assign(
        text=lambda f: "text " + f["mod"].astype(str),
        target=lambda f: [f"target {i}" for i in range(len(f))],
    )


QUERIES = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 4)), max_size=10)


@given(queries=QUERIES, images=st.integers(0, 9), seed=st.integers(0, 9))
@example(queries=[("a", 0), ("a", 0)], images=9, seed=0)
@settings(deadline=None, max_examples=80)
def test_pairs_come_in_twos_of_one_reference_where_it_has_another_text(queries, images, seed):
    queries = frame(queries)
    source = Modifications(queries, pd.DataFrame({"path": range(images)}))
    drawn = source.draw(np.random.default_rng(seed))
    assert len(source) == len(drawn) == (images if len(queries) else 0)
    assert set(source.texts()) == set(queries["text"])
    rows = list(zip(drawn.reference, drawn.text, drawn.target, strict=True))
    assert set(rows) <= set(
        queries[["reference", "text", "target"]].itertuples(index=False, name=None)
    )
    texts = queries.groupby("reference")["text"].agg(set)
    for one, other in zip(rows[:-1:2], rows[1::2], strict=True):
        if len(texts[one[0]]) > 1:
            assert one[0] == other[0]
            assert one[1] != other[1]


def test_modifications_are_drawn_alike_and_then_the_pairs_of_the_reference():
    queries = frame([("a", 0), ("b", 0), ("c", 0), ("a", 1), ("a", 2), ("a", 2), ("b", 1)])
    source = Modifications(queries, pd.DataFrame({"path": range(20_000)}))
    drawn = source.draw(np.random.default_rng(0))
    twos = Counter(zip(drawn.target[::2], drawn.target[1::2], strict=True))
    wanted = {}
    by_mod = queries.groupby("mod").indices
    for i, query in queries.iterrows():
        others = [
            j for j, other in queries.iterrows()
            if other["reference"] == query["reference"] and other["mod"] != query["mod"]
        ]  # fmt: skip
        for j in others or queries.index:
            chance = 1 / len(by_mod) / len(by_mod[query["mod"]])
            again = queries["mod"][j]
            chance *= 1 / len(others) if others else 1 / len(by_mod) / len(by_mod[again])
            wanted[f"target {i}", f"target {j}"] = chance
    assert sum(wanted.values()) == pytest.approx(1)
    assert set(twos) <= set(wanted)
    for two, chance in wanted.items():
        deviation = np.sqrt(chance * (1 - chance) / 10_000)
        assert abs(twos[two] / 10_000 - chance) < 5 * deviation


def test_the_rules_can_be_chosen(tmp_path):
    write(tmp_path)
    for rules, kind in (("auto", Modifications), ("tirg", Modifications), ("listed", Listed)):
        data = recognise(tmp_path, [f"rules={rules}"])
        source = data.pairs(data.split("train"), data.images_of("train"))
        assert type(source) is kind
        assert len(source) == (4 if kind is Listed else 6)
    source, [work] = divide(recognise(tmp_path), Settings(validation=0.5))
    assert not set(source.draw(np.random.default_rng(0)).reference) & set(work.queries["reference"])


def test_held_out_queries_are_held_against_the_images_of_all_training_queries(tmp_path):
    write(tmp_path)
    data = recognise(tmp_path, ["rules=listed"])
    _, [work] = divide(data, Settings(validation=0.5))
    train = data.split("train")
    assert 0 < len(work.queries) < len(train)
    assert set(work.gallery) == {*train["reference"], *train["target"]}


# ---- random files

TEXT = st.text(st.characters(codec="latin-1"), max_size=20)


@st.composite
def splits(draw):
    number = draw(st.integers(1, 5))
    images = st.integers(0, number - 1)
    mods = st.lists(st.lists(st.tuples(images, images), max_size=3), max_size=4)
    content = {
        "objects_img": [scene(*range(n)) for n in range(number)],
        "mods": [
            mod([a for a, _ in some], [b for _, b in some], draw(TEXT)) for some in draw(mods)
        ],
    }
    if draw(st.booleans()):
        labels = st.none() | TEXT | st.integers(-9, 9) | st.floats(allow_nan=False)
        content["labels"] = draw(st.lists(labels, min_size=number, max_size=number))
    return content


SMALL = settings(
    deadline=None, max_examples=70, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@given(content=st.fixed_dictionaries({"train": splits(), "test": splits()}))
@SMALL
def test_any_file_reads_to_what_was_written(tmp_path, content):
    data = recognise(write(tmp_path, npy(content)))
    for split, its in content.items():
        paths = names(split, len(its["objects_img"]))
        images = data.images_of(split)
        assert images["path"].tolist() == paths
        assert images["caption"].tolist() == [str(x) for x in its.get("labels", range(len(paths)))]
        assert data.split(split)[["reference", "text", "target"]].values.tolist() == [
            [paths[a], mod["to_str"], paths[b]]
            for mod in its["mods"]
            for a, b in zip(mod["from"], mod["to"], strict=True)
        ]


@given(data=st.data())
@SMALL
def test_any_damage_is_one_sentence_or_is_read(tmp_path, data):
    content = bytearray(npy({"train": part(), "test": part()}))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 5))] = data.draw(st.binary(max_size=3))
    found = outcome(write(tmp_path, bytes(content)))
    if isinstance(found, UserError):
        assert "\n" not in str(found)
    else:
        assert set(found.queries["reference"]) <= set(found.images["path"])


def outcome(root):
    """The data set, or the sentence that refuses it."""
    try:
        return recognise(root)
    except UserError as error:
        return error


def test_the_three_lines(tmp_path, write_features):
    root = write(tmp_path / "css")
    paths = names("train") + names("test")
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(paths), 2, 8)).astype(np.float32)
    boxes = np.tile(np.float32([0, 0, 100, 100]), (len(paths), 2, 1))
    file = write_features(tmp_path / "css.h5", paths, features, boxes, root=root)
    material = collect(file)
    small_model = ["width=16", "heads=2", "embed_dim=16"]
    run = start(material, settle(material.dataset.recommended, {"epochs": 1}, small_model))
    assert run.settings.loss == "soft-triplet"
    train(run, material, device="cpu")
    metrics = evaluate.evaluate(run, material, torch.device("cpu")).metrics
    assert metrics["queries"] == 4
    assert metrics["gallery"] == 6
    assert set(metrics["breakdown"]["kind"]) == {"add", "make", "remove"}
    assert metrics["options"] == {"rules": "auto", "reference": "picture"}
