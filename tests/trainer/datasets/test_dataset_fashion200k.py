"""Fashion-200k: what is read, held against a model of the layout; pairs, against brute force."""

import re
from collections import Counter
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.readers import fashion200k
from cqr.trainer.datasets.readers.fashion200k_pairs import Siblings, replacement
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.evaluation import evaluate
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import collect
from cqr.trainer.training.settings import Settings, settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

TRAIN = [
    ("women/dresses/gowns/11/11_0.jpeg", "black lace gown"),
    ("women/dresses/gowns/11/11_1.jpeg", "black lace gown"),
    ("women/dresses/gowns/12/12_0.jpeg", "red lace gown"),
    ("women/dresses/gowns/13/13_0.jpeg", "red silk gown"),
    ("women/dresses/gowns/14/14_0.jpeg", "plain"),
]
TEST = [
    ("women/tops/shirts/21/21_0.jpeg", "blue shirt"),
    ("women/tops/shirts/22/22_0.jpeg", "green shirt"),
    ("women/tops/shirts/23/23_0.jpeg", "green  t-shirt no. 5"),
]
FILES = {"dress_train_detect_all.txt": TRAIN, "top_test_detect_all.txt": TEST}
QUERIES = [(TEST[0][0], TEST[1][0]), (TEST[1][0], TEST[2][0])]


def lines(images):
    return "".join(f"{path}\t-5.070000\t{text}\n" for path, text in images)


def write(root, files=FILES, queries=QUERIES):
    (root / "labels").mkdir(parents=True, exist_ok=True)
    for name, images in files.items():
        (root / "labels" / name).write_text(lines(images), encoding="utf-8", newline="")
    text = "".join(f"{source} {target}\n" for source, target in queries)
    (root / "test_queries.txt").write_text(text, encoding="utf-8")
    return root


def recognise(root, given=()):
    paths = [path for images in (TRAIN, TEST) for path, _ in images]
    pictures = Pictures(root, paths)
    return read(find(pictures), pictures, given=given)


def test_images_and_queries_of_a_small_release(tmp_path):
    data = recognise(write(tmp_path))
    assert data.name == "fashion-200k"
    assert data.images.values.tolist() == [
        *([path, text, "train", path.split("/")[3]] for path, text in TRAIN),
        *([path, text, "test", path.split("/")[3]] for path, text in TEST[:2]),
        [TEST[2][0], "green  t-shirt nodotmark 5", "test", "23"],
    ]
    assert data.queries.values.tolist() == [
        ["test-0", TEST[0][0], "replace blue with green", TEST[1][0], "test"],
        ["test-1", TEST[1][0], "replace shirt with t-shirt", TEST[2][0], "test"],
    ]
    assert data.gallery("test") == [path for path, _ in TEST]
    assert fashion200k.counts(data) == {
        "training images": 5,
        "training captions": 4,
        "modifiable training images": 4,
        "test images": 3,
        "test queries": 2,
    }
    assert list(fashion200k.PUBLISHED) == list(fashion200k.counts(data))


def test_the_protocol_is_tirg_s(tmp_path):
    data = recognise(write(tmp_path))
    said = data.protocol.sentence()
    for part in (
        "TIRG",
        "reference is removed",
        "caption equals",
        "k = 1, 10, 50",
        "replace X with",
    ):
        assert part in said
    assert data.recommended["loss"] == "batch-classification"


@pytest.mark.parametrize(
    ("source", "target", "text"),
    [  # the first three are real queries
        ("green resort maxi dress", "pink resort maxi dress", "replace green with pink"),
        ("pink printed chiffon gown", "pink printed silk gown", "replace chiffon with silk"),
        ("blue off-the-shoulder lace sequin gown", "gold off-the-shoulder sequin lace gown",
         "replace blue with gold"),
        ("gold lace gown", "lace gown", "replace gold with gown"),  # none: the last word
        ("lace gold gown", "gold lace gown", "replace gown with gown"),
        ("lace gown lace", "lace gown", "replace lace with gown"),
        ("", "lace gown", "replace  with lace"),
    ],
)  # fmt: skip
def test_a_text_is_made_of_the_first_words_that_differ(source, target, text):
    assert replacement(source.split(), target.split()) == text


def test_an_image_that_is_listed_twice_is_in_the_gallery_twice(tmp_path):
    twice = {**FILES, "top_test_detect_all.txt": [*TEST, TEST[0]]}
    data = recognise(write(tmp_path, twice))
    assert data.gallery("test") == [path for path, _ in (*TEST, TEST[0])]
    assert not any("another description" in note for note in data.notes)
    other = {**FILES, "top_test_detect_all.txt": [*TEST, (TEST[0][0], "red shirt")]}
    data = recognise(write(tmp_path, other))
    assert data.queries["text"][0] == "replace blue with green"
    assert data.notes[-1] == (
        f"1 images are listed again with another description, first {TEST[0][0]}: "
        "for a query its first description counts"
    )


def test_bom_crlf_no_last_newline_and_chinese(tmp_path):
    write(tmp_path)
    file = tmp_path / "labels" / "top_test_detect_all.txt"
    text = lines([(path, "黑色针织中长连衣裙") for path, _ in TEST])
    file.write_bytes(b"\xef\xbb\xbf" + text.rstrip("\n").replace("\n", "\r\n").encode())
    data = recognise(tmp_path)
    assert data.gallery("test") == [path for path, _ in TEST]
    assert set(data.images_of("test")["caption"]) == {"黑色针织中长连衣裙"}


def test_what_is_odd_is_said(tmp_path):
    write(tmp_path, {**FILES, "dress_train_detect_all_cn.txt": TRAIN})
    with (tmp_path / "labels" / "top_test_detect_all.txt").open("a") as file:
        file.write("women/tops/shirts/24/24_0.jpeg\t1.0\t \n")
        file.write("women/tops/shirts/25/25_0.jpeg\t1.0\tred top\tbeyond\n")
    with (tmp_path / "test_queries.txt").open("a") as file:
        file.write("women/tops/shirts/25/25_0.jpeg women/tops/shirts/24/24_0.jpeg\n")
    data = recognise(tmp_path)
    assert data.images["caption"].tolist()[-2:] == ["", "red top"]
    assert data.queries["text"].tolist()[-1] == "replace red with "
    lacking, others, longer, wordless = data.notes
    assert "lacks 8 of the release's 10 files: dress_test_detect_all.txt, jacket_test" in lacking
    assert "has 1 more files, first dress_train_detect_all_cn.txt: they are not read" in others
    assert longer.startswith(
        "1 label lines have more than three fields, first top_test_detect_all.txt line 5"
    )
    assert wordless == (
        "1 queries are of images without a description, first test-2: their texts lack a word"
    )


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("labels/top_test_detect_all.txt", None, "labels has no *_test_detect_all.txt: download"),
        ("labels/dress_train_detect_all.txt", None, "labels has no *_train_detect_all.txt: downl"),
        ("labels/top_test_detect_all.txt", b"a.jpeg\t1.0\tred\nb.jpeg 1.0 blue\n",
         "top_test_detect_all.txt line 2 is not path, score and description with tabs between: "),
        ("labels/top_test_detect_all.txt", b"\t1.0\tred\n", "line 1 is not path, score"),
        ("labels/top_test_detect_all.txt", b"a.jpeg\t1.0\tr\xe9d\n", "is not UTF-8 (byte 13)"),
        ("test_queries.txt", b"", "test_queries.txt holds no queries"),
        ("test_queries.txt", TEST[0][0].encode(), "line 1 is not two paths with a space"),
        ("test_queries.txt", f"{TEST[0][0]} {TEST[1][0]}\n{TEST[0][0]} {TRAIN[0][0]}\n".encode(),
         f"line 2 names {TRAIN[0][0]}, which no labels/*_test_detect_all.txt lists (1 of 2 lines"),
    ],
)  # fmt: skip
def test_what_is_broken_is_refused_in_one_sentence(tmp_path, file, content, message):
    path = write(tmp_path) / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        recognise(tmp_path)
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


# ---- pairs


def source_of(captions, clean):
    images = pd.DataFrame({"path": [f"{i}.jpg" for i in range(len(captions))], "caption": captions})
    return Siblings(pd.DataFrame(), images, clean=clean)


def tirg_parents(caption):
    return {re.sub("  ", " ", "".join(caption.split(word))).strip() for word in caption.split()}


def families(captions, clean):
    """Of each caption the chance of each target caption, found by trying all of them."""
    kinds = list(dict.fromkeys(captions))
    chances = {}
    for own in kinds:
        children = []  # of each parent
        for parent in less_a_word(own) if clean else tirg_parents(own):
            of_parent = less_a_word if clean else tirg_parents
            children.append([kind for kind in kinds if parent in of_parent(kind)])
        allowed = [
            [kind for kind in some if (apart(own, kind) if clean else kind != own)]
            for some in children
        ]
        # a parent is drawn, then a child, both again until it is allowed
        weights = [(1 / len(some), good) for some, good in zip(children, allowed, strict=True)]
        total = sum(w * len(good) for w, good in weights)
        chance = Counter()
        for weight, good in weights:
            for kind in good:
                chance[kind] += weight / total
        if chance:
            chances[own] = dict(chance)
    return chances


def less_a_word(caption):
    words = caption.split()
    return {
        " ".join(words[:i] + words[i + 1 :])
        for i, word in enumerate(words)
        if Counter(words)[word] == 1
    }


def apart(one, other):
    a, b = set(one.split()), set(other.split())
    return bool(a - b) and bool(b - a)


CAPTIONS = st.lists(
    st.lists(st.sampled_from(["a", "ab", "b", "cab", "c", "d"]), max_size=4).map(" ".join),
    min_size=1,
    max_size=9,
)


@pytest.mark.parametrize("clean", [False, True])
@given(captions=CAPTIONS)
@example(captions=["a", "ab", "b"])
@example(captions=["c d", "d c", "d d c", "", "c"])
@settings(deadline=None, max_examples=150)
def test_pairs_are_those_that_brute_force_finds(clean, captions):
    source = source_of(captions, clean)
    possible = families(captions, clean)
    modifiable = [i for i, caption in enumerate(captions) if caption in possible]
    assert source.modifiable.tolist() == modifiable
    expected = len(modifiable) if clean or not modifiable else len(captions)
    rng = np.random.default_rng(0)
    drawn = source.draw(rng)
    assert len(source) == len(drawn) == expected
    caption = {f"{i}.jpg": text for i, text in enumerate(captions)}
    words = set(" ".join(source.texts()).split())
    for reference, text, target in zip(drawn.reference, drawn.text, drawn.target, strict=True):
        assert caption[target] in possible[caption[reference]]
        gone, new = re.fullmatch(r"replace (.*) with (.*)", text).groups()
        assert set(text.split()) <= words
        assert gone in caption[reference]
        if clean:
            assert gone not in caption[target].split()
            assert new not in caption[reference].split()
    if clean:
        assert sorted(drawn.reference) == sorted(f"{i}.jpg" for i in modifiable)
    else:
        assert set(drawn.reference) == {f"{i}.jpg" for i in modifiable}


@pytest.mark.parametrize("clean", [False, True])
def test_targets_are_drawn_as_often_as_tirg_s_code_draws_them(clean):
    captions = ["a b c", "a b d", "a b d", "a e c", "f b c", "a b", "b a c", "a g c", "x y"]
    source = source_of(captions, clean)
    caption = {f"{i}.jpg": text for i, text in enumerate(captions)}
    rng = np.random.default_rng(0)
    met = Counter()
    for _ in range(4000):
        drawn = source.draw(rng)
        pairs = zip(drawn.reference, drawn.target, strict=True)
        met.update((caption[reference], caption[target]) for reference, target in pairs)
    totals = Counter()
    for (own, _), number in met.items():
        totals[own] += number
    for own, chances in families(captions, clean).items():
        for target, chance in chances.items():
            deviation = np.sqrt(chance * (1 - chance) / totals[own])
            assert abs(met[own, target] / totals[own] - chance) < 5 * deviation + 1e-9
    assert set(met) == {(own, t) for own, some in families(captions, clean).items() for t in some}


def test_the_two_rules_differ_where_they_should():
    # "a" is deleted inside "gala" too; the same words in another order are siblings
    captions = ["a gala", "gl b", "lace gown", "gown lace"]
    source = source_of(captions, clean=False)
    texts = {text for seed in range(9) for text in source.draw(np.random.default_rng(seed)).text}
    words = ("a", "gl"), ("gl", "a"), ("gown", "lace"), ("lace", "gown")
    assert texts == {f"replace {one} with {other}" for one, other in words}
    assert len(source_of(captions, clean=True)) == 0


def test_an_epoch_is_a_function_of_the_generator_alone():
    source = source_of(["a b", "a c", "d b", "e"], clean=False)
    first, again, other = (source.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.text.tolist() == again.text.tolist()
    assert first.target.tolist() == again.target.tolist()
    assert first.reference.tolist() != other.reference.tolist()


def test_products_are_held_out_whole(tmp_path):
    images = [
        (f"women/dresses/gowns/{n}/{n}_{i}.jpeg", f"{colour} {what} dress")
        for n, (colour, what) in enumerate(
            product(["red", "blue", "gray"], ["silk", "lace", "knit"])
        )
        for i in range(2)
    ]
    write(tmp_path, {**FILES, "dress_train_detect_all.txt": images})
    data = recognise(tmp_path)
    source, [work] = divide(data, Settings(validation=0.4))
    asked = (*work.queries["reference"], *work.queries["target"])
    held = {path.split("/")[3] for path in asked}
    assert 2 <= len(held) <= 4  # those of the four that have pairs
    assert work.gallery == data.images_of("train")["path"].tolist()
    drawn = source.draw(np.random.default_rng(0))
    trained = {path.split("/")[3] for path in (*drawn.reference, *drawn.target)}
    assert not trained & held


# ---- random layouts

NAME = st.text("abcé0_-", min_size=1, max_size=4)
TEXT = st.text(
    st.characters(codec="utf-8", exclude_characters="\t\r\n", exclude_categories=["Cs"]),
    max_size=12,
)
IMAGES = st.lists(st.tuples(NAME, NAME, TEXT), min_size=1, max_size=6)


def small(number):
    return settings(
        deadline=None,
        max_examples=number,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@given(
    train=IMAGES, test=IMAGES, crlf=st.booleans(), bom=st.booleans(), last=st.booleans(),
    data=st.data(),
)  # fmt: skip
@small(100)
def test_any_layout_reads_to_what_was_written(tmp_path, train, test, crlf, bom, last, data):
    written = {}
    for split, images in (("train", train), ("test", test)):
        listed = [(f"women/{a}/{b}.jpeg", text) for a, b, text in images]
        written[split] = listed
        text = lines(listed)
        text = text if last else text[:-1]
        text = ("\ufeff" if bom else "") + (text.replace("\n", "\r\n") if crlf else text)
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"top_{split}_detect_all.txt").write_bytes(text.encode())
    test_paths = st.sampled_from([path for path, _ in written["test"]])
    queries = data.draw(st.lists(st.tuples(test_paths, test_paths), min_size=1, max_size=5))
    (tmp_path / "test_queries.txt").write_text("".join(f"{a}\t{b} \n" for a, b in queries))
    paths = sorted({path for some in written.values() for path, _ in some})
    pictures = Pictures(tmp_path, paths)
    dataset = read(find(pictures), pictures)
    for split, listed in written.items():
        images = dataset.images_of(split)
        assert images["path"].tolist() == [path for path, _ in listed]
        expected = [
            re.sub(r"[.?&*]", lambda mark: {".": "dot", "?": "question", "&": "and", "*": "star"}[
                mark.group()] + "mark", text.strip())
            for _, text in listed
        ]  # fmt: skip
        assert images["caption"].tolist() == expected
        assert images["group"].tolist() == [path.split("/")[1] for path, _ in listed]
    assert (
        list(zip(dataset.queries["reference"], dataset.queries["target"], strict=True)) == queries
    )


@given(data=st.data())
@small(150)
def test_any_damage_is_one_sentence_or_is_read(tmp_path, data):
    write(tmp_path)
    names = ["labels/dress_train_detect_all.txt", "labels/top_test_detect_all.txt"]
    file = tmp_path / data.draw(st.sampled_from([*names, "test_queries.txt"]))
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        much = data.draw(st.integers(0, 20))
        content[at : at + much] = data.draw(
            st.binary(max_size=3) | st.sampled_from([b"\t", b"\n", b"\r", b" ", b"\xff", b"\x00"])
        )
    file.write_bytes(content)
    found = outcome(tmp_path)
    if isinstance(found, UserError):
        assert "\n" not in str(found)
    else:
        assert 0 < len(found.queries) <= 2 + content.count(b"\n")
        found.pairs(found.queries.iloc[:0], found.images_of("train"))


def outcome(root):
    """The data set, or the sentence that refuses it."""
    try:
        return recognise(root)
    except UserError as error:
        return error


def test_the_three_lines(tmp_path, write_features):
    images = [
        (f"women/dresses/gowns/{n}/{n}_0.jpeg", f"{colour} {what} dress")
        for n, (colour, what) in enumerate(
            product(["red", "blue", "gray"], ["silk", "lace", "knit"])
        )
    ]
    root = write(tmp_path / "f", {**FILES, "dress_train_detect_all.txt": images})
    paths = [path for some in (images, TEST) for path, _ in some]
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(paths), 2, 8)).astype(np.float32)
    boxes = np.tile(np.float32([0, 0, 100, 100]), (len(paths), 2, 1))
    file = write_features(tmp_path / "f.h5", paths, features, boxes, root=root)
    material = collect(file)
    small_model = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "embed_dim=16"]
    run = start(material, settle(material.dataset.recommended, {"epochs": 1}, small_model))
    assert run.settings.loss == "batch-classification"
    assert {"replace", "with", "silk", "red"} <= set(run.vocabulary.words)
    train(run, material, device="cpu")
    result = evaluate.evaluate(run, material, torch.device("cpu"))
    assert result.metrics["queries"] == 2
    assert result.metrics["gallery"] == 3
    assert result.metrics["options"] == {"rules": "tirg"}


def test_without_its_test_queries_it_can_be_counted_and_trained_on(tmp_path):
    (write(tmp_path) / "test_queries.txt").unlink()
    dataset = recognise(tmp_path)
    assert dataset.split("test").empty
    assert len(dataset.images_of("train")) > 0
    [note] = [note for note in dataset.notes if "test_queries.txt is missing" in note]
    assert "the README of github.com/google/tirg says where" in note
    counted = fashion200k.counts(dataset)
    assert counted["test queries"] == 0
    assert counted["training images"] > 0
