"""`cqr submit --check` of files that other programs made, and results that are kept by name."""

import dataclasses
import json
from pathlib import Path

import pytest

from cqr.errors import UserError
from cqr.trainer.datasets import recognise
from cqr.trainer.datasets.readers import cirr, table
from cqr.trainer.evaluation.checking import check_files
from cqr.trainer.text.vocabulary import Vocabulary
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings

NAMES = [f"test1-{i}" for i in range(60)]


@pytest.fixture
def root(tmp_path):
    """A CIRR of two questions, of which there are no pictures."""
    folder = tmp_path / "data"
    (folder / "captions").mkdir(parents=True)
    (folder / "image_splits").mkdir()
    entries = [
        {
            "pairid": number,
            "reference": NAMES[number],
            "caption": "more dogs",
            "img_set": {"members": NAMES[number : number + 6]},
        }
        for number in (7, 8)
    ]
    (folder / "captions/cap.rc2.test1.json").write_text(json.dumps(entries))
    paths = {name: f"./test1/{name}.png" for name in NAMES}
    (folder / "image_splits/split.rc2.test1.json").write_text(json.dumps(paths))
    return folder


def answers(metric="recall", depth=50):
    return {
        "version": "rc2",
        "metric": metric,
        **{str(n): (NAMES[n + 1 :] + NAMES[:n])[:depth] for n in (7, 8)},
    }


def checked(tmp_path, root, content, name="theirs.json"):
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return check_files([file], root)[file].file


def test_a_file_of_another_program_is_told_by_what_it_holds(tmp_path, root):
    assert checked(tmp_path, root, answers()) == "cirr.recall.json"
    assert checked(tmp_path, root, answers("recall_subset", 3)) == "cirr.recall_subset.json"
    assert checked(tmp_path, root, answers(), "cirr.recall.json") == "cirr.recall.json"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"7": NAMES[8:57]}, "would be refused: it has 1 wrong answer: query 7 names 49 images"),
        ({"9": []}, "would be refused: it answers 1 query not asked, first 9"),
        ({"metric": "mAP"}, "is none of cirr.recall.json, cirr.recall_subset.json"),
    ],
)
def test_what_is_wrong_is_said_once(tmp_path, root, change, said):
    with pytest.raises(UserError) as error:
        checked(tmp_path, root, {**answers(), **change})
    assert said in str(error.value)
    assert "cqr submit" not in str(error.value)


@pytest.mark.parametrize("content", ["{", "[" * 50_000, "[]", "null", '{"7": 1, "7": 1}'])
def test_what_is_no_submission_is_said(tmp_path, root, content):
    with pytest.raises(UserError, match=r"would be refused: it (is n|has a key twice)"):
        checked(tmp_path, root, content)


def test_a_check_names_its_data_set(tmp_path, root):
    with pytest.raises(UserError, match="name its folder by --data"):
        check_files([tmp_path / "x.json"], None)
    with pytest.raises(UserError, match="there is no file"):
        check_files([tmp_path / "x.json"], root)


def test_an_image_that_comes_twice_in_a_set_is_named(root):
    file = root / "captions/cap.rc2.test1.json"
    entries = json.loads(file.read_text())
    entries[1]["img_set"]["members"][1] = NAMES[8]
    file.write_text(json.dumps(entries))
    with pytest.raises(UserError, match=rf"entry 1 .from 0. names {NAMES[8]} twice in its image"):
        cirr._queries(root, "test1")


def test_training_entries_need_no_image_set(root):
    entry = {"pairid": 1, "reference": "a", "caption": "x", "target_hard": "b"}
    (root / "captions/cap.rc2.train.json").write_text(json.dumps([entry]))
    assert cirr._queries(root, "train")["members"].tolist() == [[]]
    (root / "captions/cap.rc2.val.json").write_text(json.dumps([entry]))
    with pytest.raises(UserError, match="img_set"):
        cirr._queries(root, "val")


def test_results_by_another_protocol_are_kept_apart():
    @dataclasses.dataclass
    class Read:
        name: str
        options: dict

    run = Run(
        Path("r"), Path("x.h5"), None, "table", {"gallery": "unseen"}, 8, {}, Settings(),
        Vocabulary(("a",), 4), None, "2026",
    )  # fmt: skip
    usual = vars(table.Options())
    assert "gallery" in usual

    def folder(name, **options):
        chosen = recognise.unusual(Read(name, options), run.dataset, run.protocol)
        return run.evaluation(name, chosen).name

    assert folder("table", gallery="unseen") == "evaluation"
    assert folder("table", gallery="all") == "evaluation-gallery=all"
    assert folder("css", rules="auto", reference="picture") == "evaluation-css"
    assert folder("css", rules="auto", reference="drawing") == "evaluation-css-reference=drawing"
    assert run.evaluation("table", {"text": "a/../b c"}).name == "evaluation-text=a_.._b_c"
