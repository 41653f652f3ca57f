"""CIRCO: its layout is read back, what is broken is named, a run of other data is scored on it."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.queries import tasks
from cqr.trainer.datasets.readers import circo
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.evaluation import evaluate, submission
from cqr.trainer.training.material import Wanted, collect, collect_for
from cqr.trainer.training.settings import settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

INFO = "COCO2017_unlabeled/annotations/image_info_unlabeled2017.json"
CPU = torch.device("cpu")


def file(number):
    return f"{number:012d}.jpg"


def entry(number, reference, correct, text="has two of them", split="val"):
    asked = {
        "reference_img_id": reference,
        "target_img_id": correct[0],
        "relative_caption": text,
        "shared_concept": "a dog",
        "gt_img_ids": correct,
        "id": number,
        "semantic_aspects": ["cardinality"],
    }
    hidden = ("target_img_id", "gt_img_ids", "semantic_aspects") if split == "test" else ()
    return {key: value for key, value in asked.items() if key not in hidden}


def write(root, val, test=None, listed=None, newline="\n", bom=False):
    info = listed and {"info": {}, "images": [{"id": i, "file_name": file(i)} for i in listed]}
    files = {"annotations/val.json": val, "annotations/test.json": test, INFO: info}
    for name, content in files.items():
        if content is None:
            continue
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, indent=1, ensure_ascii=False).replace("\n", newline)
        path.write_bytes(text.encode("utf-8-sig" if bom else "utf-8"))
    return root


def small(root, images=70):
    """Queries 0, 1, ... from image 10 i, correct are the one to three after it."""
    val = [entry(i, 10 * i, list(range(10 * i + 1, 10 * i + 2 + i % 3))) for i in range(6)]
    test = [entry(i, 10 * i + 5, [0], split="test") for i in range(5)]
    return write(root, val, test, range(images))


def read_from(root, paths=(), given=()):
    pictures = Pictures(root, list(paths))
    return read(find(pictures), pictures, given=given)


# --- reading ------------------------------------------------------------------------------


@st.composite
def layouts(draw):
    """Images and queries of both splits among them."""
    images = draw(st.lists(st.integers(0, 10**12 - 1), min_size=2, max_size=9, unique=True))
    texts = st.text(st.characters(codec="utf-8"), max_size=20)
    splits = []
    for split in circo.SPLITS:
        entries = []
        for number in range(draw(st.integers(1, 4))):
            correct = draw(st.lists(st.sampled_from(images), min_size=1, max_size=4, unique=True))
            reference = draw(st.sampled_from(images))
            entries.append(entry(number, reference, correct, draw(texts), split))
        splits.append(entries)
    return images, *splits


@settings(deadline=None, max_examples=60)
@given(layout=layouts(), newline=st.sampled_from(["\n", "\r\n"]), bom=st.booleans(),
       listed=st.booleans())  # fmt: skip
def test_what_is_written_is_read_back(layout, newline, bom, listed):
    images, val, test = layout
    place = "unlabeled2017/"
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), val, test, images if listed else None, newline, bom)
        there = [*(place + file(i) for i in images), "other/cat.jpg", "1.jpg"]
        data = read_from(Path(folder), there)
    expected = [
        {
            "query_id": str(one["id"]),
            "reference": place + file(one["reference_img_id"]),
            "text": one["relative_caption"],
            "target": place + file(one["target_img_id"]) if split == "val" else None,
            "split": split,
            "targets": [place + file(i) for i in one.get("gt_img_ids", [])],
            "shared_concept": "a dog",
        }
        for split, entries in (("val", val), ("test", test))
        for one in entries
    ]
    assert data.queries.to_dict("records") == expected
    order = images if listed else sorted(images)
    rows = [(place + file(i), None, None, i) for i in order]
    assert list(data.images.itertuples(index=False, name=None)) == rows
    if listed:
        assert data.notes == ()
    else:
        [note] = data.notes
        assert f"the gallery is the {len(images)} pictures found that are named by 12" in note
        assert "the gallery is the pictures found, of all images of" in data.protocol.sentence()


ODD = st.sampled_from([None, True, 1.5, "", "odd", [], [1], ["a"], {}, {"a": 1}])


@settings(deadline=None, max_examples=120)
@given(st.data(), st.sampled_from(["annotations/val.json", "annotations/test.json", INFO]))
def test_what_is_broken_is_one_sentence_or_a_note(data, name):
    with tempfile.TemporaryDirectory() as folder:
        root = small(Path(folder))
        path = root / name
        raw = path.read_bytes()
        how = data.draw(st.sampled_from(["value", "key", "cut", "gone"]))
        if how == "cut":
            path.write_bytes(raw[: data.draw(st.integers(0, len(raw) - 1))])
        elif how == "gone":
            path.unlink()
        else:
            content = json.loads(raw)
            entries = content["images"] if name == INFO else content
            one = data.draw(st.sampled_from(entries))
            key = data.draw(st.sampled_from(list(one)))
            if how == "key":
                del one[key]
            else:
                one[key] = data.draw(ODD)
            path.write_text(json.dumps(content))
        try:
            broken, said = read_from(root), ""
        except UserError as error:
            broken, said = None, str(error)
    assert "\n" not in said
    if broken is None:
        assert str(path) in said or "no queries to learn from" in said  # it is known by these files
    elif how == "gone":
        assert any("is not there" in note or "has no annotations" in note for note in broken.notes)
    elif how != "cut":
        # what is not read, or a text or a list of another content
        assert key in ("file_name", "semantic_aspects", "relative_caption", "shared_concept",
                       "gt_img_ids", "id")  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: e[0].pop("gt_img_ids"), "entry 0 (from 0) has no gt_img_ids: download it"),
        (lambda e: e[1].update(target_img_id="1"), "has the target_img_id '1', which is no int"),
        (lambda e: e[1].update(gt_img_ids=[1, "2"]), "has in gt_img_ids '2', which is no int"),
        (lambda e: e.append(None), "entry 6 (from 0) is None, not an object"),
        (lambda e: e[3].update(id=0), "has id 0 twice: download it again"),
    ],
)
def test_a_broken_entry_is_named(tmp_path, change, message):
    path = small(tmp_path) / "annotations/val.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError) as error:
        read_from(tmp_path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_an_image_that_is_listed_twice_is_refused(tmp_path):
    path = write(tmp_path, [entry(0, 1, [2])], None, [1, 2, 1]) / INFO
    with pytest.raises(UserError, match="lists an image twice: download it again") as error:
        read_from(tmp_path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("images", [None, 3, [1]])
def test_a_list_of_images_that_is_none_is_refused(tmp_path, images):
    path = small(tmp_path) / INFO
    path.write_text(json.dumps({"images": images}))
    with pytest.raises(UserError) as error:
        read_from(tmp_path)
    assert str(error.value) == f"{path} has no list of images: download it again"


def test_correct_images_outside_the_gallery_are_said_and_stay_in_the_denominator(tmp_path):
    data = read_from(write(tmp_path, [entry(0, 1, [2, 9])], None, [1, 2, 3]))
    absent, lacking = data.notes
    assert absent == f"{tmp_path / 'annotations/test.json'} is not there: there are no test queries"
    assert lacking == (
        f"1 images that the queries name are not in {tmp_path / INFO}, first {file(9)}: "
        "no query can find them"
    )
    [work] = tasks(data, "val")
    assert [r.tolist() for r in work.relevant] == [[-1, 1]]


def test_it_is_found_from_the_folder_of_the_pictures_and_not_for_other_annotations(tmp_path):
    root = small(tmp_path / "CIRCO")
    pictures = root / "COCO2017_unlabeled" / "unlabeled2017"
    pictures.mkdir()
    for folder in (root, pictures.parent, pictures):
        found = find(Pictures(folder, []))
        assert (found.name, found.root) == ("circo", root)
    other = tmp_path / "other"
    (other / "annotations").mkdir(parents=True)
    (other / "annotations" / "val.json").write_text('[{"image_id": 1}]')
    with pytest.raises(UserError, match="no queries to learn from"):
        find(Pictures(other, []))


# --- the protocol -------------------------------------------------------------------------


def test_counts_are_of_what_was_read(tmp_path):
    counts = circo.counts(read_from(small(tmp_path)))
    assert counts == {"val pairs": 6, "test pairs": 5, "images": 70}
    assert counts.keys() == circo.PUBLISHED.keys()


@pytest.mark.parametrize(("choice", "place"), [((), -1), (("reference=removed",), 0)])
def test_the_reference_is_kept_unless_it_is_chosen_otherwise(tmp_path, choice, place):
    data = read_from(small(tmp_path), given=choice)
    [work] = tasks(data, "val")
    assert work.reference[0] == place
    assert [c.tolist() for c in work.correct] == [[1], [11], [21], [31], [41], [51]]
    assert [r.tolist() for r in work.relevant][:3] == [[1], [11, 12], [21, 22, 23]]
    assert ("the reference is removed from it" in data.protocol.sentence()) == bool(choice)


@pytest.fixture
def features(tmp_path, write_features):
    """A small CIRCO and random regions of its pictures, as wide as the drawn scenes'."""
    root = small(tmp_path / "CIRCO")
    paths = [f"unlabeled2017/{file(i)}" for i in range(70)]
    boxes = np.tile(np.float32([10, 10, 200, 200]), (len(paths), 9, 1))
    regions = np.random.default_rng(0).normal(size=(len(paths), 9, 24)).astype(np.float32)
    return write_features(
        tmp_path / "artifacts" / "circo.h5", paths, regions, boxes, root=root / "COCO2017_unlabeled"
    )


@pytest.fixture
def run(drawn_scenes):
    """A run of another data set."""
    options = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1"]
    material = collect(drawn_scenes(references=8, modifications=4))
    made = start(material, settle({}, {"epochs": 1, "batch": 8}, [*options, "embed_dim=16"]))
    train(made, material, device="cpu")
    return made


def collected(run, features, split, *chosen):
    return collect_for(run, features, Wanted(chosen=chosen), split=split, max_missing=0.01)


def test_there_is_nothing_to_train_on(features, tmp_path):
    with pytest.raises(UserError) as error:
        collect(features)
    assert str(error.value) == (
        f"there is nothing to train on in {tmp_path / 'CIRCO'} (the pairs of circo are none, the "
        "data set is for evaluation only): train on another data set, then score that run here "
        f"with `cqr evaluate --run RUN --features {features}`"
    )


@pytest.mark.parametrize("chosen", [(), ("reference=removed",)])
def test_a_run_of_another_data_set_is_scored(run, features, chosen):
    material = collected(run, features, "scored", *chosen)
    found = evaluate.evaluate(run, material, CPU)
    assert (found.metrics["dataset"], found.metrics["split"]) == ("circo", "val")
    assert (found.metrics["queries"], found.metrics["gallery"]) == (6, 70)
    assert list(found.metrics["recall"]) == ["5", "10", "25", "50"]
    for k in (5, 10, 25, 50):
        expected = np.mean([precision(row, k) for row in found.queries.itertuples()])
        assert found.metrics["measures"][f"mAP@{k}"] == pytest.approx(100 * expected)
        hits = [row.target in list(row.found[:k]) for row in found.queries.itertuples()]
        assert found.metrics["recall"][str(k)] == pytest.approx(100 * np.mean(hits))
    assert found.metrics["measures"]["mAP@50"] > 0


def precision(row, k):
    """AP@k by the authors' definition, image by image."""
    total = hits = 0
    for rank, path in enumerate(row.found[:k], start=1):
        if path in row.targets:
            hits += 1
            total += hits / rank
    return total / min(len(row.targets), k)


def test_the_submission_names_coco_s_numbers(run, features):
    material = collected(run, features, "submitted")
    [path] = submission.submit(run, material, CPU)
    assert path == run.path / "submission" / "circo.test.json"
    content = json.loads(path.read_text())
    assert list(content) == ["0", "1", "2", "3", "4"]
    for numbers in content.values():
        assert len(set(numbers)) == len(numbers) == 50
        assert all(type(n) is int and 0 <= n < 70 for n in numbers)
    removed = submission.submit(
        run, collected(run, features, "submitted", "reference=removed"), CPU
    )
    again = json.loads(next(iter(removed)).read_text())
    for i in range(5):
        kept = [n for n in content[str(i)] if n != 10 * i + 5]
        assert again[str(i)][: len(kept)] == kept
        assert 10 * i + 5 not in again[str(i)]
