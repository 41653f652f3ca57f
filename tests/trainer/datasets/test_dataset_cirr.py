"""CIRR: its layout is read back, what is broken is named, what is ranked is submitted."""

import json
import re
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.queries import tasks
from cqr.trainer.datasets.readers import cirr
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.evaluation import evaluate, submission
from cqr.trainer.evaluation.checking import check_file
from cqr.trainer.training.material import Wanted, collect, collect_for
from cqr.trainer.training.settings import settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

FOLDERS = {"train": "train/34", "val": "dev", "test1": "test1"}
CPU = torch.device("cpu")


def entry(pairid, members, caption="make it red", target=1):
    """A query from the first of its set to another."""
    return {
        "pairid": pairid,
        "reference": members[0],
        "target_hard": members[target],
        "target_soft": {members[target]: 1.0},
        "caption": caption,
        "img_set": {"id": 7, "members": members, "reference_rank": 0, "target_rank": target},
    }


def write_split(root, split, names, entries, newline="\n", bom=False):
    files = {
        f"captions/cap.rc2.{split}.json": entries,
        f"image_splits/split.rc2.{split}.json": {
            name: f"./{FOLDERS[split]}/{name}.png" for name in names
        },
    }
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, ensure_ascii=False).replace("\n", newline)
        path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))


def small(root, sets=11, queries=3):
    """Splits of image sets of six; of each the first few members are asked for by the next."""
    for first, split in enumerate(FOLDERS):
        names = [f"{split}-{i}-img0" for i in range(6 * sets)]
        entries = []
        for i in range(sets):
            members = names[6 * i : 6 * i + 6]
            for j in range(queries):
                turned = members[j:] + members[:j]
                caption = f"turn {j}" if entries else " "  # as the real test1 has one
                entries.append(entry(1000 * first + len(entries), turned, caption))
                if split == "test1":
                    del entries[-1]["target_hard"], entries[-1]["target_soft"]
        write_split(root, split, names, entries)
    return root


def read_from(root, paths=(), given=()):
    pictures = Pictures(root, list(paths))
    return read(find(pictures), pictures, given=given)


# --- reading ------------------------------------------------------------------------------

NAMES = st.lists(st.from_regex(r"[a-z]{1,4}-[0-9]{1,3}-img[01]", fullmatch=True), min_size=2,
                 max_size=9, unique=True)  # fmt: skip


@st.composite
def layouts(draw):
    """By split: names of its images, and entries."""
    splits = {}
    for split in draw(st.lists(st.sampled_from(cirr.SPLITS), min_size=1, unique=True)):
        names = draw(NAMES)
        ids = draw(st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True))
        entries = []
        for pairid in ids:
            members = draw(st.permutations(names))[:6]
            caption = draw(st.text(st.characters(codec="utf-8"), max_size=20))
            entries.append(entry(pairid, members, caption, draw(st.integers(0, len(members) - 1))))
        splits[split] = names, entries
    return splits


@settings(deadline=None, max_examples=60)
@given(splits=layouts(), newline=st.sampled_from(["\n", "\r\n"]), bom=st.booleans(),
       pictures=st.sampled_from(["", "img_raw/"]))  # fmt: skip
def test_what_is_written_is_read_back(splits, newline, bom, pictures):
    with tempfile.TemporaryDirectory() as folder:
        for split, (names, entries) in splits.items():
            write_split(Path(folder), split, names, entries, newline, bom)
        there = [
            f"{pictures}{FOLDERS[split]}/{name}.png"
            for split, (names, _) in splits.items()
            for name in names
        ]
        data = read_from(Path(folder), there)
    path = {}  # a name may be of several splits; the last one's picture is meant
    for split in cirr.SPLITS:
        for name in splits.get(split, ((), ()))[0]:
            path[name] = f"{pictures}{FOLDERS[split]}/{name}.png"
    expected = [
        {
            "query_id": str(one["pairid"]),
            "reference": path[one["reference"]],
            "text": one["caption"],
            "target": None if split == "test1" else path[one["target_hard"]],
            "split": split,
            "members": [path[name] for name in one["img_set"]["members"]],
        }
        for split in cirr.SPLITS
        for one in splits.get(split, ((), ()))[1]
    ]
    assert data.queries.to_dict("records") == expected
    assert isinstance(data.queries.index, pd.RangeIndex)
    images = [
        (f"{pictures}{FOLDERS[split]}/{name}.png", None, split, name)
        for split in cirr.SPLITS
        for name in splits.get(split, ((), ()))[0]
    ]
    assert list(data.images.itertuples(index=False, name=None)) == images
    absent = [split for split in cirr.SPLITS if split not in splits]
    assert len(data.notes) == len(absent)
    for split, note in zip(absent, data.notes, strict=True):
        assert note.endswith(f"cap.rc2.{split}.json is not there: there are no {split} queries")


@st.composite
def places(draw, content):
    """Where to break a JSON document: its parent container and the key in it."""
    inside, key = None, None
    while isinstance(content, (dict, list)) and content:
        keys = list(content) if isinstance(content, dict) else range(len(content))
        inside, key = content, draw(st.sampled_from(list(keys)))
        content = content[key]
        if draw(st.booleans()):
            break
    return inside, key


ODD = st.sampled_from([None, True, 0, 1.5, "", "odd", [], [1], {}, {"a": 1}, float("nan")])


@settings(deadline=None, max_examples=150)
@given(data=st.data(), split=st.sampled_from(cirr.SPLITS),
       name=st.sampled_from(["captions/cap", "image_splits/split"]))  # fmt: skip
def test_what_is_broken_is_one_sentence_or_a_note(data, split, name):
    with tempfile.TemporaryDirectory() as folder:
        root = small(Path(folder), sets=1)
        path = root / f"{name}.rc2.{split}.json"
        raw = path.read_bytes()
        how = data.draw(st.sampled_from(["value", "key", "cut", "bytes", "gone"]))
        if how in ("value", "key"):
            content = json.loads(raw)
            inside, key = data.draw(places(content))
            if how == "key":
                del inside[key]
            else:
                inside[key] = data.draw(ODD)
            path.write_text(json.dumps(content))
        elif how == "cut":
            path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
        elif how == "bytes":
            at = data.draw(st.integers(0, len(raw)))
            path.write_bytes(raw[:at] + b"\xff" + raw[at:])
        else:
            path.unlink()
        try:
            broken, said = read_from(root), ""
        except UserError as error:
            broken, said = None, str(error)
    assert "\n" not in said
    if broken is None:
        assert str(path) in said
    elif how == "gone" or set(named(broken)) - set(broken.images["path"]):
        # else a list that lost an entry is a list, and another string is another name
        assert broken.notes


def named(data):
    columns = [data.queries["reference"], data.queries["target"], data.queries["members"].explode()]
    return pd.concat(columns).dropna()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[2].pop("caption"), "entry 2 (from 0) has no caption: download it again"),
        (lambda e: e[2].update(caption="\ud800"), "has the caption '\\ud800', which is no text"),
        (
            lambda e: e[0].update(pairid=True),
            "entry 0 (from 0) has the pairid True, which is no int",
        ),
        (lambda e: e[1].update(target_hard=None), "has the target_hard None, which is no text"),
        (lambda e: e[1].update(reference=" "), "entry 1 (from 0) has an empty reference"),
        (
            lambda e: e[1]["img_set"].update(members="abc"),
            "has the members 'abc', which is no list",
        ),
        (lambda e: e[1]["img_set"]["members"].append(3), "has in members 3, which is no str"),
        (
            lambda e: e[1]["img_set"]["members"].append("\ud800"),
            "members '\\ud800', which is no str",
        ),
        (lambda e: e.append(7), "entry 3 (from 0) is 7, not an object"),
        (lambda e: e.clear(), "holds no entries: download it again"),
        (lambda e: e[2].update(pairid=1000), "has pairid 1000 twice: download it again"),
    ],
)
def test_a_broken_entry_is_named(tmp_path, change, message):
    path = small(tmp_path, sets=1) / "captions/cap.rc2.val.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_from(tmp_path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_two_names_of_one_picture_are_refused(tmp_path):
    path = small(tmp_path, sets=1) / "image_splits/split.rc2.val.json"
    path.write_text(json.dumps({"a": "./dev/a.png", "b": "dev/a.png"}))
    with pytest.raises(UserError, match="gives two names to one picture"):
        read_from(tmp_path)


@pytest.mark.parametrize(("name", "path"), [("a", 3), ("a", "\ud800"), ("\ud800", "a.png")])
def test_a_list_without_a_path_is_refused(tmp_path, name, path):
    file = small(tmp_path, sets=1) / "image_splits/split.rc2.val.json"
    file.write_text(json.dumps({name: path}))
    with pytest.raises(UserError) as error:
        read_from(tmp_path)
    assert str(error.value) == f"{file} has no path for {name!a}: download it again"


def test_names_that_the_list_lacks_are_counted_and_such_a_target_is_missed(tmp_path):
    path = small(tmp_path, sets=2) / "image_splits/split.rc2.val.json"
    listed = json.loads(path.read_text())
    del listed["val-1-img0"]  # the first query's target, the second one's reference
    path.write_text(json.dumps(listed))
    data = read_from(tmp_path)
    [note] = data.notes
    assert note == (
        f"1 images that the queries name are not in {path}, first val-1-img0: "
        "no query can find them"
    )
    [work] = tasks(data, "val")
    assert [len(c) for c in work.correct] == [0, 1, 1, 1, 1, 1]
    assert work.reference[1] == -1


def test_it_is_found_beside_its_pictures_and_below_a_folder(tmp_path):
    labels = small(tmp_path / "set" / "cirr", sets=1)
    (labels / "img_raw").mkdir()
    (tmp_path / "set" / "other").mkdir()
    for root in (labels, labels / "img_raw", tmp_path / "set"):
        found = find(Pictures(root, []))
        assert (found.name, found.root) == ("cirr", labels)
    with pytest.raises(UserError, match="no queries to learn from"):
        find(Pictures(tmp_path / "set" / "other", []))  # a neighbour is another data set's
    assert find(Pictures(tmp_path, []), tmp_path / "set").root == labels


# --- the protocol -------------------------------------------------------------------------


def test_counts_are_of_what_was_read(tmp_path):
    counts = cirr.counts(read_from(small(tmp_path, sets=4, queries=2)))
    assert counts.keys() == cirr.PUBLISHED.keys()
    assert counts == {
        "train pairs": 8, "val pairs": 8, "test1 pairs": 8,
        "train images": 24, "val images": 24, "test1 images": 24,
        "val image sets": 4, "test1 image sets": 4,
    }  # fmt: skip


def test_the_gallery_is_the_split_without_the_reference(tmp_path):
    data = read_from(small(tmp_path, sets=2))
    [work] = tasks(data, "val")
    assert work.gallery == [f"dev/val-{i}-img0.png" for i in range(12)]
    assert work.reference.tolist() == [0, 1, 2, 6, 7, 8]
    assert [c.tolist() for c in work.correct] == [[1], [2], [3], [7], [8], [9]]
    assert work.members[1].tolist() == [-1, 2, 3, 4, 5, 0]
    said = data.protocol.sentence()
    assert "the reference is removed from it, correct is the target alone" in said
    assert "the average is a convention of later papers" in said


@pytest.fixture
def features(tmp_path, write_features):
    """A small CIRR and random regions of its pictures."""
    root = small(tmp_path / "cirr")
    data = read_from(root)
    paths = sorted(f"img_raw/{path}" for path in data.images["path"])
    rng = np.random.default_rng(0)
    boxes = np.tile(np.float32([10, 10, 200, 200]), (len(paths), 3, 1))
    regions = rng.normal(size=(len(paths), 3, 24)).astype(np.float32)
    return write_features(tmp_path / "artifacts" / "cirr.h5", paths, regions, boxes, root=root)


@pytest.fixture
def run(features):
    options = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1"]
    material = collect(features)
    made = start(material, settle({}, {"epochs": 1, "batch": 8}, [*options, "embed_dim=16"]))
    train(made, material, device="cpu")
    return made


def collected(run, split, **more):
    arguments = {"split": split, "max_missing": 0.01} | more
    return collect_for(run, None, Wanted(), **arguments)


def test_it_trains_and_is_scored_by_subset_and_average(run):
    material = collected(run, "scored")
    found = evaluate.evaluate(run, material, CPU)
    assert (found.metrics["queries"], found.metrics["gallery"]) == (33, 66)
    measures = found.metrics["measures"]
    assert list(measures) == ["R_subset@1", "R_subset@2", "R_subset@3"]
    assert 0 <= measures["R_subset@1"] <= measures["R_subset@2"] <= measures["R_subset@3"]
    assert found.metrics["average"] == {
        "of": ["R@5", "R_subset@1"],
        "value": pytest.approx((found.metrics["recall"]["5"] + measures["R_subset@1"]) / 2),
    }
    scores = scored_by_hand(run, material, "dev")
    least, most = [], []  # ranks, were all that is as good as equal ahead of the target or behind
    for row in found.queries.itertuples():
        members = {Path(path).stem for path in row.members} - {Path(row.reference).stem}
        target = scores[row.query_id][Path(row.target).stem]
        ahead = [scores[row.query_id][name] - target for name in members]
        least.append(1 + sum(one > CLOSE for one in ahead))
        most.append(sum(one > -CLOSE for one in ahead))
    for k in (1, 2, 3):
        low, high = (100 * np.mean(np.array(ranks) <= k) for ranks in (most, least))
        assert low - 1e-9 <= measures[f"R_subset@{k}"] <= high + 1e-9


def test_without_train_captions_it_is_scored_but_not_trained_on(run, features, tmp_path):
    gone = tmp_path / "cirr" / "captions" / "cap.rc2.train.json"
    gone.unlink()
    material = collected(run, "scored")
    assert evaluate.evaluate(run, material, CPU).metrics["queries"] == 33
    assert f"{gone} is not there: there are no train queries" in material.notes
    with pytest.raises(UserError) as error:
        collect(features)
    assert str(error.value) == (
        f"there is nothing to train on in {tmp_path / 'cirr'} (the pairs of cirr are none, {gone} "
        "is not there): train on another data set, then score that run here with "
        f"`cqr evaluate --run RUN --features {features}`"
    )


# --- the submission -----------------------------------------------------------------------


def test_the_files_hold_what_was_ranked(run):
    material = collected(run, "submitted")
    written = submission.submit(run, material, CPU)
    folder = run.path / "submission"
    assert list(written) == [folder / "cirr.recall.json", folder / "cirr.recall_subset.json"]
    recall, subset = (json.loads(path.read_text()) for path in written)
    assert (recall.pop("version"), recall.pop("metric")) == ("rc2", "recall")
    assert (subset.pop("version"), subset.pop("metric")) == ("rc2", "recall_subset")
    asked = json.loads((material.dataset.root / "captions/cap.rc2.test1.json").read_text())
    assert list(recall) == list(subset) == [str(one["pairid"]) for one in asked]
    scores = scored_by_hand(run, material, "test1")
    for one in asked:
        key, others = str(one["pairid"]), dict(scores[str(one["pairid"])])
        del others[one["reference"]]
        assert_best(recall[key], others, 50)
        assert_best(subset[key], {n: others[n] for n in one["img_set"]["members"][1:]}, 3)


CLOSE = 1e-5


def assert_best(names, scores, depth):
    """`names` are those with the best scores, but for rounding, best first."""
    assert len(set(names)) == len(names) == depth
    given = [scores[name] for name in names]
    assert all(first > then - CLOSE for first, then in pairwise(given))
    assert max(scores[name] for name in scores.keys() - set(names)) < given[-1] + CLOSE


def scored_by_hand(run, material, folder):
    """By query and name of the image, one query at a time."""
    model, reader, dataset = run.trained_model(), material.reader, material.dataset
    gallery = [path for path in reader.paths if path.startswith(f"img_raw/{folder}/")]
    scores = {}
    with torch.inference_mode():
        images = model.encode_image(reader.gather(reader.rows(gallery)))
        for row in dataset.queries.itertuples():
            words = run.vocabulary.encode([row.text])
            query = model.encode_query(reader.gather(reader.rows([row.reference])), words)
            names = [Path(path).stem for path in gallery]
            scores[row.query_id] = dict(zip(names, (images @ query[0]).tolist(), strict=True))
    return scores


def test_a_gallery_that_is_too_small_writes_nothing(run, tmp_path):
    root = tmp_path / "cirr"
    path = root / "image_splits/split.rc2.test1.json"
    listed = dict(list(json.loads(path.read_text()).items())[:42])
    path.write_text(json.dumps(listed))
    captions = root / "captions/cap.rc2.test1.json"
    captions.write_text(json.dumps(json.loads(captions.read_text())[:21]))
    with pytest.raises(UserError) as error:
        submission.submit(run, collected(run, "submitted"), CPU)
    assert str(error.value) == (
        "cirr.recall.json names 50 images a query, and 21 of 21 queries have fewer, first 2000 "
        f"with 41, for lack of regions in {run.features}: extract every image of the test1 split"
    )
    assert not (run.path / "submission").exists()


@pytest.mark.parametrize("form", [0, 1])
def test_a_reference_without_regions_writes_nothing(run, tmp_path, monkeypatch, form):
    monkeypatch.setattr(cirr, "SUBMISSION", cirr.SUBMISSION[form:])
    path = tmp_path / "cirr" / "captions/cap.rc2.test1.json"
    asked = json.loads(path.read_text())
    asked[3]["reference"] = "nowhere"
    path.write_text(json.dumps(asked))
    with pytest.raises(UserError, match="1 of 33 queries have fewer, first 2003 with 0"):
        submission.submit(run, collected(run, "submitted", max_missing=0.1), CPU)
    assert not (run.path / "submission").exists()


def test_submit_as_typed(run, features, tmp_path):
    command = [sys.executable, "-m", "cqr.cli", "submit", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(
        f"Wrote artifacts/runs/cirr-lbf-001/submission/cirr.{metric}.json: "
        "send it to http://cirr.cecs.anu.edu.au/\n"
        for metric in ("recall", "recall_subset")
    )
    assert re.search(r"Gallery +66 images of the test1 split", done.stderr)
    data = read_from(tmp_path / "cirr")
    for form in cirr.SUBMISSION:
        assert check_file(run.path / "submission" / form.file, cirr.SUBMISSION, data) == form
