"""MIT-States: what is read, held against a model of the layout; pairs, against brute force."""

from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cqr import listing
from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.readers import mit_states
from cqr.trainer.datasets.readers.mit_states_pairs import Changes
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.evaluation import evaluate
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import collect
from cqr.trainer.training.settings import Settings, settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

FILES = [
    "sliced apple/a,_b+c,_2006.jpg",
    "sliced apple/2.jpg",
    "ripe apple/1.jpg",
    "old castle/1.jpg",
    "old castle/2.jpg",
    "small castle/x y.jpg",
    "ruffled castle/3.jpg",
    "folded wool/7.jpg",
    "brushed wool/7.jpg",
]


def write(root, files=FILES, images="images"):
    for name in files:
        path = root / images / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def recognise(root, given=(), paths=None):
    pictures = Pictures(root, listing.find(root)[0] if paths is None else paths)
    return read(find(pictures), pictures, given=given)


def test_images_and_queries_of_a_small_release(tmp_path):
    data = recognise(write(tmp_path))
    assert data.name == "mit-states"
    assert data.notes == ()
    assert list(data.images) == ["path", "caption", "split", "adjective", "noun", "group"]
    assert data.images.values.tolist() == [
        [f"images/{name}", name.split("/")[0], split, *name.split("/")[0].split(), noun]
        for name, split, noun in [
            ("brushed wool/7.jpg", "test", "wool"),
            ("folded wool/7.jpg", "test", "wool"),
            ("old castle/1.jpg", "test", "castle"),
            ("old castle/2.jpg", "test", "castle"),
            ("ripe apple/1.jpg", "train", "apple"),
            ("ruffled castle/3.jpg", "test", "castle"),
            ("sliced apple/2.jpg", "train", "apple"),
            ("sliced apple/a,_b+c,_2006.jpg", "train", "apple"),
            ("small castle/x y.jpg", "test", "castle"),
        ]
    ]
    queries = data.queries[["reference", "text", "target"]].apply(
        lambda column: column.str.removeprefix("images/")
    )
    assert queries.values.tolist()[:5] == [
        ["brushed wool/7.jpg", "folded", "folded wool/7.jpg"],
        ["folded wool/7.jpg", "brushed", "brushed wool/7.jpg"],
        ["old castle/1.jpg", "ruffled", "ruffled castle/3.jpg"],
        ["old castle/1.jpg", "small", "small castle/x y.jpg"],
        ["old castle/2.jpg", "ruffled", "ruffled castle/3.jpg"],
    ]
    assert ["small castle/x y.jpg", "old", "old castle/1.jpg"] in queries.values.tolist()
    assert set(data.queries["split"]) == {"test"}
    assert data.queries["query_id"].tolist() == [f"test-{i}" for i in range(10)]
    assert mit_states.counts(data) == {
        "images": 9, "training images": 3, "test images": 6, "test queries": 10, "nouns": 3,
        "adjectives": 7,
    }  # fmt: skip
    assert list(mit_states.PUBLISHED) == list(mit_states.counts(data))


def test_the_protocol_is_tirg_s(tmp_path):
    data = recognise(write(tmp_path))
    said = data.protocol.sentence()
    for part in ("TIRG", "reference is removed", "caption equals", "k = 1, 5, 10", "by adjective"):
        assert part in said
    assert data.recommended["loss"] == "soft-triplet"
    assert len(mit_states.TEST_NOUNS) == 49


@pytest.mark.parametrize("images", ["images", "release_dataset/images"])
def test_both_places_of_the_pictures(tmp_path, images):
    root = write(tmp_path, images=images)
    data = recognise(root)
    assert len(data.images) == 9
    assert set(data.images["path"]) == set(listing.find(root)[0])


def test_pictures_extracted_from_the_inner_folder_are_found(tmp_path):
    write(tmp_path)
    data = recognise(tmp_path / "images")
    assert set(data.images["path"]) == set(FILES)


@pytest.mark.parametrize("whole_folder", [True, False])
@pytest.mark.parametrize("above", ["images/", ""])
def test_when_the_pictures_are_gone_the_features_are_the_listing(tmp_path, whole_folder, above):
    whole = recognise(write(tmp_path / "here"))
    gone = tmp_path / "gone"
    if not whole_folder:
        gone.mkdir()
    data = recognise(gone, paths=[above + name for name in FILES])
    assert data.notes == (
        f"the pictures of {gone} are not there any more: the images are those that have regions",
    )
    prefix = "" if above else "images/"
    assert (prefix + data.images["path"]).tolist() == whole.images["path"].tolist()
    assert (prefix + data.queries["target"]).tolist() == whole.queries["target"].tolist()


@pytest.mark.parametrize(
    "files",
    [
        ["red dress/1.jpg", "blue dress/1.jpg"],  # no test noun
        ["old castle/1.jpg", "new castle/1.jpg"],  # none but test nouns
        ["2019/1.jpg", "2020/1.jpg", "2021/1.jpg", "old castle/1.jpg", "red dress/1.jpg"],
        ["1.jpg"],
    ],
)
def test_other_folders_are_not_recognised(tmp_path, files):
    write(tmp_path, files)
    pictures = Pictures(tmp_path, listing.find(tmp_path)[0])
    assert mit_states.find(pictures, None) is None
    assert mit_states.find(Pictures(tmp_path / "gone", files), None) is None


def test_what_is_left_out_is_said(tmp_path):
    more = ["adj castle/1.jpg", "adj castle/2.jpg", "old castle/Thumbs.db", "old castle/._1.jpg",
            "castle/4.jpg", "very old castle/5.jpg", "wet fish/1.jpg"]  # fmt: skip
    data = recognise(write(tmp_path, [*FILES, *more]))
    assert len(data.images) == 10
    stateless, other, lone = data.notes
    assert stateless == (
        '2 images in folders "adj NOUN" show no state and are left out, as in TIRG\'s code'
    )
    assert other == (
        '4 files are no pictures in a folder "ADJECTIVE NOUN" and are left out, first '
        "images/castle/4.jpg"
    )
    assert lone == (
        "1 nouns have images in one state only, first fish: they give no queries and no training "
        "pairs"
    )
    assert not data.queries["reference"].str.contains("fish").any()
    assert "images/wet fish/1.jpg" in data.gallery("test")


def test_folders_in_other_letter_case_and_names_that_are_no_text(tmp_path):
    write(tmp_path, [*FILES, "Huge Castle/1.JPG"])
    (tmp_path / "images" / "old castle" / "caf\udce9.jpg").touch()
    data = recognise(tmp_path)
    assert data.images["caption"].tolist()[0] == "huge castle"
    assert data.images["split"].tolist()[0] == "test"
    [note] = data.notes
    assert note.endswith(r"left out, first images/old castle/caf\xe9.jpg")


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    pictures = Pictures(write(tmp_path), [])

    def refuse(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(mit_states.os, "scandir", refuse)
    with pytest.raises(UserError, match=f"cannot list {tmp_path}/images: Permission denied; give"):
        find(pictures, name="mit-states")


def test_a_release_without_pictures_of_a_split_is_refused(tmp_path):
    write(tmp_path, [name for name in FILES if "apple" not in name])
    (tmp_path / "images" / "ripe apple").mkdir()
    with pytest.raises(UserError) as error:
        recognise(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} has no pictures of mit-states's train nouns: unpack it again"
    )


# ---- pairs


def source_of(states, clean):
    names = [f"{adjective} {noun}/{i}" for i, (adjective, noun) in enumerate(states)]
    images = pd.DataFrame(states, columns=["adjective", "noun"]).assign(path=names)
    return Changes(pd.DataFrame(), images, clean=clean)


STATES = st.lists(
    st.tuples(st.sampled_from(["new", "old", "red", "wet"]), st.sampled_from(["x", "y", "z"])),
    max_size=12,
)


@pytest.mark.parametrize("clean", [False, True])
@given(states=STATES, seed=st.integers(0, 9))
@settings(deadline=None, max_examples=80)
def test_pairs_come_in_twos_of_one_reference(clean, states, seed):
    source = source_of(states, clean)
    adjectives = defaultdict(set)
    for adjective, noun in states:
        adjectives[noun].add(adjective)
    usable = [noun for _, noun in states if len(adjectives[noun]) > 1]
    drawn = source.draw(np.random.default_rng(seed))
    assert len(source) == len(drawn) == len(usable)
    assert set(source.texts()) == set().union(*(adjectives[noun] for noun in usable))
    assert len(set(drawn.reference)) == (len(usable) + 1) // 2
    assert (drawn.reference[:-1:2] == drawn.reference[1::2]).all()
    rows = list(zip(drawn.reference, drawn.text, drawn.target, strict=True))
    for reference, text, target in rows:
        (own, noun), (new, same) = (name.split("/")[0].split() for name in (reference, target))
        assert (noun, text) == (same, new)
        assert not clean or own != new
    for one, other in zip(rows[:-1:2], rows[1::2], strict=True):
        noun = one[0].split("/")[0].split()[1]
        assert one[1] != other[1] or (clean and len(adjectives[noun]) == 2)


@pytest.mark.parametrize("clean", [False, True])
def test_targets_are_drawn_as_often_as_redrawing_until_they_differ_gives(clean):
    states = [("new", "x"), ("new", "x"), ("old", "x"), ("red", "x"), ("wet", "x"),
              ("new", "y"), ("old", "y"), ("red", "y")]  # fmt: skip
    source = source_of(states, clean)
    rng = np.random.default_rng(0)
    met, totals = Counter(), Counter()
    for _ in range(4000):
        drawn = source.draw(rng)
        for i in range(0, len(drawn), 2):
            met[drawn.reference[i], *drawn.target[i : i + 2]] += 1
            totals[drawn.reference[i]] += 1
    for reference, total in totals.items():
        own, noun = reference.split("/")[0].split()
        images = defaultdict(list)
        for i, (adjective, its) in enumerate(states):
            if its == noun and not (clean and adjective == own):
                images[adjective].append(f"{adjective} {noun}/{i}")
        twos = [(a, b) for a in images for b in images if a != b]
        for a, b in twos:
            for one in images[a]:
                for other in images[b]:
                    chance = 1 / len(twos) / len(images[a]) / len(images[b])
                    deviation = np.sqrt(chance * (1 - chance) / total)
                    assert abs(met.pop((reference, one, other), 0) / total - chance) < 5 * deviation
    assert not met
    assert max(totals.values()) < 1.1 * min(totals.values())


def test_an_epoch_is_a_function_of_the_generator_alone():
    source = source_of([(a, n) for a in ("new", "old", "red") for n in "xyz"], clean=False)
    first, again, other = (source.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.target.tolist() == again.target.tolist()
    assert first.target.tolist() != other.target.tolist()


def test_nouns_are_held_out_whole(tmp_path):
    files = [
        f"{a} {n}/{i}.jpg"
        for a in ("new", "old", "red")
        for n in ("car", "bag", "bed")
        for i in "12"
    ]
    data = recognise(write(tmp_path, [*FILES, *files]))
    source, [work] = divide(data, Settings(validation=0.3))
    held = {path.split("/")[1].split()[1] for path in work.queries["reference"]}
    assert len(held) == 1
    assert work.gallery == data.images_of("train")["path"].tolist()
    drawn = source.draw(np.random.default_rng(0))
    assert not {path.split("/")[1].split()[1] for path in drawn.target} & held


# ---- random layouts

WORD = st.text("abcdé-", min_size=1, max_size=3)
NOUN = WORD | st.sampled_from(["castle", "wool", "tea"])
FILE = st.text("ab ,+_é", min_size=1, max_size=4).map(lambda name: f"x{name}.jpg")
TREE = st.dictionaries(st.tuples(WORD, NOUN), st.sets(FILE, max_size=3), max_size=8)


@given(tree=TREE, stray=st.sets(WORD, max_size=2))
@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_tree_reads_to_what_was_written(tmp_path_factory, tree, stray):
    root = tmp_path_factory.mktemp("tree")
    tree = {**tree, ("old", "castle"): {"x1.jpg"}, ("ripe", "apple"): {"x2.jpg"}}
    for (adjective, noun), names in tree.items():
        (root / "images" / f"{adjective} {noun}").mkdir(parents=True)
        write(root, [f"{adjective} {noun}/{name}" for name in names])
    for name in stray:
        (root / "images" / name).mkdir(exist_ok=True)
    data = recognise(root)
    assert set(data.images["path"]) == {
        f"images/{adjective} {noun}/{name}"
        for (adjective, noun), names in tree.items()
        for name in names
    }
    wanted = Counter(
        (f"images/{own} {noun}/{name}", other)
        for (own, noun), names in tree.items()
        if noun in mit_states.TEST_NOUNS
        for name in names
        for (other, same), theirs in tree.items()
        if same == noun and other != own and theirs
    )
    assert Counter(zip(data.queries["reference"], data.queries["text"], strict=True)) == wanted
    states = data.images.set_index("path")["caption"]
    for query in data.queries.itertuples():
        assert states[query.target] == f"{query.text} {states[query.reference].split()[1]}"


def test_the_three_lines(tmp_path, write_features):
    root = write(tmp_path / "m", [*FILES, "raw apple/4.jpg", "raw bean/1.jpg", "cut bean/1.jpg"])
    paths = listing.find(root)[0]
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(paths), 2, 8)).astype(np.float32)
    boxes = np.tile(np.float32([0, 0, 100, 100]), (len(paths), 2, 1))
    file = write_features(tmp_path / "m.h5", paths, features, boxes, root=root)
    material = collect(file)
    small_model = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "embed_dim=16"]
    run = start(material, settle(material.dataset.recommended, {"epochs": 1}, small_model))
    assert run.settings.loss == "soft-triplet"
    train(run, material, device="cpu")
    metrics = evaluate.evaluate(run, material, torch.device("cpu")).metrics
    assert metrics["queries"] == 10
    assert metrics["gallery"] == 6
    assert {"adjective R@1", "noun R@10"} <= set(metrics["measures"])
    assert metrics["measures"]["noun R@10"] == 100  # of five other images
    by_noun = {noun: part["queries"] for noun, part in metrics["breakdown"]["noun"].items()}
    assert by_noun == {"castle": 8, "wool": 2}
