"""A user's own table of queries: what is one question, and what it is held against."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.queries import tasks
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.evaluation import evaluate
from cqr.trainer.training.material import Wanted, collect, collect_for
from cqr.trainer.training.runs import Run
from small_datasets import TINY, evaluated, write

PATHS = [f"{i:02d}.jpg" for i in range(12)]


def table(text, *given, paths=PATHS):
    root = write({"own.csv": text})
    pictures = Pictures(root, list(paths))
    return read(find(pictures), pictures, given=given)


SEVERAL = """reference,text,target,split
00,bigger,01,train
00,bigger,02,train
03,bigger,04,test
03.jpg,bigger,05,test
03,smaller,06,test
07,bigger,02,test
03,bigger,04,val
08,bigger,09,val
"""


def test_rows_alike_are_one_question_with_several_targets_and_a_pair_each():
    data = table(SEVERAL)
    assert len(data.split("train")) == 2  # a pair each
    [work] = tasks(data, "test")
    assert work.queries["query_id"].tolist() == ["3", "5", "6"]
    right = [[work.gallery[place] for place in some] for some in work.correct]
    assert right == [["04.jpg", "05.jpg"], ["06.jpg"], ["02.jpg"]]


def test_the_gallery_of_a_split_is_its_own_pictures_and_those_of_no_row():
    data = table(SEVERAL)
    named = ["10.jpg", "11.jpg"]
    assert data.gallery("test") == [f"0{i}.jpg" for i in (2, 3, 4, 5, 6, 7)] + named
    assert data.gallery("val") == [f"0{i}.jpg" for i in (3, 4, 8, 9)] + named
    assert "the gallery is the pictures of the test rows, and those that no row names" in (
        data.protocol.sentence()
    )


def test_columns_that_cqr_has_too_stay_the_user_s(write_features):
    rows = "".join(f"{i:02d},t{i},{i + 4:02d},{s},z,7,x,{i},w,v,u\n"
                   for i, s in enumerate(["train"] * 4 + ["test"] * 4))  # fmt: skip
    text = (
        "reference,text,target,split,own_image,rank,found,scores,members,targets,table_rank\n"
        + rows
    )
    root = write({"own.csv": text})
    evaluation = evaluated(write_features, root, PATHS)
    kept = evaluation.queries
    assert kept["table_table_rank"].tolist() == ["7"] * 4
    assert kept["table_rank"].tolist() == ["u"] * 4
    assert kept["table_scores"].tolist() == ["4", "5", "6", "7"]
    assert kept["table_own_image"].tolist() == ["z"] * 4
    assert (kept["rank"] >= 1).all()  # the reference alone is removed, whatever own_image says
    [note] = [note for note in table(text).notes if "another name" in note]
    assert "own_image as table_own_image" in note
    assert "rank as table_table_rank" in note
    bare = write({"own.csv": "".join(
        ",".join(line.split(",")[:4]) + "\n" for line in text.splitlines())}, "bare")  # fmt: skip
    same = evaluated(write_features, bare, PATHS)
    assert same.metrics["recall"] == evaluation.metrics["recall"]
    assert same.queries["rank"].tolist() == kept["rank"].tolist()


def own_galleries():
    rng = np.random.default_rng(0)
    lines = ["reference,text,target,split,gallery"]
    for i in range(8):
        names = [f"{n:02d}" for n in rng.permutation(12) if n not in (i, i + 1)][:3]
        lines.append(f"{i:02d},t{i},{i + 1:02d},{'test' if i > 3 else 'train'},"
                     f"{';'.join([*names, f'{i:02d}', f'{i + 1:02d}.jpg'])}")  # fmt: skip
    return "\n".join(lines) + "\n"


def test_each_question_is_held_against_the_gallery_that_it_lists(write_features):
    text = own_galleries()
    data = table(text)
    assert "the gallery is each question's own list" in data.protocol.sentence()
    [work] = tasks(data, "test")
    lists = [line.split(",")[4].split(";") for line in text.splitlines()[5:]]
    for query, own, right in zip(range(4, 8), work.own, work.correct, strict=True):
        there = {work.gallery[place].removesuffix(".jpg") for place in own if place >= 0}
        listed = {name.removesuffix(".jpg") for name in lists[query - 4]}
        assert there == listed - {f"{query:02d}"}
        assert [work.gallery[place] for place in right] == [f"{query + 1:02d}.jpg"]
    evaluation = evaluated(write_features, Path("data"), PATHS)
    assert evaluation.metrics["chance"]["1"] == pytest.approx(25)  # one of four
    assert evaluation.metrics["recall"]["5"] == 100
    for row in evaluation.queries.itertuples():
        assert row.found[row.rank - 1] == row.target
        assert {path for path in row.found if path} == set(row.gallery) - {row.reference}


def test_a_folder_of_the_longest_name_has_no_table_beside_it(tmp_path):
    """NAME.queries.csv would be longer than a file's name may be."""
    root = tmp_path / ("a" * 250)
    root.mkdir()
    with pytest.raises(UserError, match="has no queries to learn from"):
        find(Pictures(root, list(PATHS)))


def test_a_list_in_parquet_may_have_any_name():
    paths = ["a;b.jpg", "c.jpg", "d.jpg"]
    frame = pd.DataFrame({"reference": ["c"], "text": "t", "target": ["a;b"], "split": "test",
                          "gallery": [["a;b", "d"]]})  # fmt: skip
    frame.to_parquet("own.parquet")
    pictures = Pictures(Path("nowhere"), paths)
    data = read(find(pictures, Path("own.parquet")), pictures)
    assert data.gallery("test") == ["a;b.jpg", "d.jpg"]
    [work] = tasks(data, "test")
    assert [c.tolist() for c in work.correct] == [[0]]
    assert read(find(pictures, Path("own.parquet")), pictures, given=["gallery=all"]).gallery(
        "test"
    ) == paths  # fmt: skip


def test_a_table_of_test_rows_alone_is_evaluated_and_not_trained_on(write_features):
    rows = "".join(f"{i:02d},t,{(i + 3) % 12:02d}\n" for i in range(12))
    trained = evaluated(write_features, write({"own.csv": "reference,text,target\n" + rows}), PATHS)
    assert trained.metrics["queries"] == 2  # every fifth of 12
    only = Path("only.csv")
    only.write_text("reference,text,target,split\n01,t,04,test\n01,t,05,test\n02,t,05,test\n")
    run = Run.load(next(Path("artifacts/runs").iterdir()))
    with pytest.raises(UserError, match="there is nothing to train on in only"):
        collect(run.features, Wanted(only))
    material = collect_for(run, None, Wanted(only), split="scored", max_missing=0)
    found = evaluate.evaluate(run, material, torch.device("cpu"))
    assert found.metrics["queries"] == 2
    assert found.metrics["gallery"] == 12  # every picture is in no training row
    assert TINY  # the model is the smallest


def test_a_run_from_before_there_was_a_choice_of_gallery_is_scored_by_the_default(write_features):
    rows = "".join(f"{i:02d},t,{(i + 3) % 12:02d}\n" for i in range(12))
    evaluated(write_features, write({"own.csv": "reference,text,target\n" + rows}), PATHS)
    file = next(Path("artifacts/runs").glob("*/run.json"))
    file.write_text(file.read_text().replace('"gallery": "test"', '"unknown": 1'))
    run = Run.load(file.parent)
    assert run.protocol == {"reference": "removed", "unknown": 1}
    material = collect_for(run, None, Wanted(), split="scored", max_missing=0)
    assert dict(material.dataset.options) == {"reference": "removed", "gallery": "test"}
    named = {"04.jpg", "07.jpg", "09.jpg", "00.jpg"}
    assert set(material.dataset.gallery("test")) == named


def test_rows_without_a_target_that_say_why_are_passed_over():
    text = "reference,text,target,kind\n" + "".join(
        f"{i:02d},t,{i + 1:02d},right\n{i:02d},u,,none\n{i:02d},t,,wrong\n" for i in range(6)
    )
    data = table(text)
    assert len(data.queries) == 6
    assert data.notes[0] == (
        "own.csv: 12 of 18 rows have no target, as their kind says (none or wrong), and are "
        "passed over"
    )
