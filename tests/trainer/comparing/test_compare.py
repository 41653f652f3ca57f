"""Comparisons end to end on drawn features: rows, seeds, failures, kills, and what is written."""

import contextlib
import fcntl
import json
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from command_line import cqr
from cqr.errors import UserError
from cqr.report import comparison as report
from cqr.trainer.comparing import cell as cells
from cqr.trainer.comparing import console as comparison_console
from cqr.trainer.comparing import results as compared
from cqr.trainer.comparing import run as compare
from cqr.trainer.comparing import words
from cqr.trainer.comparing.plan import _file_name, begin, prepare
from cqr.trainer.evaluation.published import read as read_published
from cqr.trainer.ranking import bootstrap
from cqr.trainer.training.material import Wanted, collect
from cqr.trainer.training.runs import Run
from cqr.trainer.training.start import describe
from cqr.trainer.training.train import train

TINY = [
    *("epochs=2", "batch=16", "warmup=5", "lr=0.003", "validation=0.2"),
    *("lbf.width=32", "lbf.heads=2", "lbf.fusion_depth=1", "lbf.embed_dim=48"),
]


def prepared(features, models=("lbf",), seeds=2, shared=TINY, **more):
    return prepare(features, models, seeds=seeds, wanted=Wanted(), shared=shared, **more)


def finish(cell):
    """What the process of a cell does, in this one."""
    describe(cell.path, cell.row.material, replace(cell.row.settings, seed=cell.seed), None).save()
    cells.work([cell.path], "cpu", 0.01)


def words_of(features, *more):
    words = ["compare", "--features", str(features), "--device", "cpu"]
    return [*words, *(word for item in TINY for word in ("--set", item)), *more]


def test_the_command_trains_every_row_and_tells_of_the_one_that_fails(drawn_scenes):
    features = drawn_scenes()
    rows = "lbf,broken=lbf:heads=5"
    done = cqr(*words_of(features, "--seeds", "1", "--models", rows, "--jobs", "2"))
    folder = Path("artifacts/comparisons/css")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(
        "Error: 1 of 2 runs failed (broken, seed 0): the table says why"
    )
    why = "lbf cannot be built: width 32 is not a multiple of heads 5; change it with --set"
    assert f"broken, seed 0 failed: {why}\n" in done.stdout
    assert "Equal for every row: 2 epochs over 60 training queries in batches of 16" in done.stdout
    assert re.search(r"│ broken +│ +- │.*│ 0 of 1 │", done.stdout)
    written = re.findall(r"Wrote (.*)", done.stdout)
    assert written == [f"{folder}/comparison.html", f"{folder}/rows.svg"]

    alone = describe(
        Path("alone"), collect(features), Run.load(folder / "runs/lbf-0").settings, None
    )
    alone.save()
    train(alone, collect(features), device="cpu")
    found = load_file(folder / "runs/lbf-0/weights.safetensors")
    assert all(torch.equal(v, found[k]) for k, v in load_file(alone.weights).items())

    table = pd.read_parquet(folder / "runs.parquet").set_index("row")
    metrics = json.loads((folder / "runs/lbf-0/evaluation/metrics.json").read_text())
    assert table.loc["lbf", "R@5"] == metrics["recall"]["5"]
    assert table.loc["broken", "error"] == why
    content = json.loads((folder / "comparison.json").read_text())
    assert content["rows"][1]["errors"] == {"0": why}
    assert content["rows"][0]["recall"]["5"] == {"mean": metrics["recall"]["5"], "std": None}


def test_a_killed_comparison_goes_on_and_ends_like_one_that_was_not(drawn_scenes):
    features = drawn_scenes()
    comparison = prepared(features)
    done, killed = comparison.cells()
    begin(comparison)
    finish(done)
    process = subprocess.Popen(
        [sys.executable, "-m", "cqr.cli", *words_of(features, "--seeds", "2")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while not (killed.path / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.005)
    [child] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait()
    ends = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and time.monotonic() < ends:
        time.sleep(0.01)
    assert not Path(f"/proc/{child}").exists()
    assert not killed.done
    (killed.path / ".weights.safetensors.0.partial").touch()
    kept = {p: p.stat().st_mtime_ns for p in done.path.rglob("*") if p.is_file()}
    compare.run(comparison, jobs=2, how=compare.How("cpu"))
    assert killed.done
    assert {p: p.stat().st_mtime_ns for p in done.path.rglob("*") if p.is_file()} == kept
    assert not list(killed.path.rglob("*.partial"))
    whole = replace(Run.load(killed.path), path=Path("whole"))
    whole.save()
    train(whole, collect(features), device="cpu")
    for file in ("weights", "checkpoint"):
        one, two = (load_file(getattr(run, file)) for run in (whole, Run.load(killed.path)))
        assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_seeds_of_a_row_may_be_one_batched_model(drawn_scenes):
    features = drawn_scenes()
    same = ["--set", "lbf.dropout=0", "--set", "select=last", "--seeds", "2"]
    words_ = words_of(features, *same, "--models", "lbf,tirg")
    done = cqr(*words_, "--batched")
    assert done.returncode == 1
    assert "4 runs; 2 rows, each with its seeds as one model, at a time\n" in done.stderr
    why = "tirg cannot be trained with several seeds as one batched model"
    for seed in (0, 1):
        assert f"tirg, seed {seed}: failed" in done.stderr
        assert f"tirg, seed {seed} failed: {why}" in done.stdout
    runs = [Run.load(f"artifacts/comparisons/css/runs/lbf-{seed}") for seed in (0, 1)]
    for run in runs:
        assert [line["together"] for line in run.history()] == [2, 2]
        alone = replace(run, path=Path(f"alone-{run.settings.seed}"))
        alone.save()
        train(alone, collect(features), device="cpu")
        losses = [[line["loss"] for line in one.history()] for one in (run, alone)]
        assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    again = cqr(*words_)  # what is done stays, the rest is trained one by one
    assert again.returncode == 0, again.stderr
    table = pd.read_parquet("artifacts/comparisons/css/runs.parquet")
    assert table["error"].isna().all()
    assert [run.history() for run in runs] == [Run.load(run.path).history() for run in runs]


@pytest.fixture(scope="module")
def trained_rows(scenes_in, tmp_path_factory):
    """Two rows of which one sees the whole image only, with two seeds, done, and their folder."""
    place = tmp_path_factory.mktemp("rows")
    with contextlib.chdir(place):
        features = scenes_in(place)
        comparison = prepared(features, ["lbf", "whole=lbf:input=whole"], vary=["k=1,9,4"])
        begin(comparison)
        for cell in comparison.cells():
            finish(cell)
        shutil.copytree("artifacts/comparisons", "as they were trained")
    return comparison, place


@pytest.fixture
def compared_rows(trained_rows, monkeypatch):
    """In their folder, with nothing left there of another test."""
    comparison, place = trained_rows
    monkeypatch.chdir(place)
    shutil.rmtree("artifacts/comparisons")
    shutil.copytree("as they were trained", "artifacts/comparisons")
    return comparison


def test_what_is_written_agrees_with_the_runs(compared_rows):
    comparison = compared_rows
    assert [row.label for row in comparison.rows] == ["lbf", "whole", "lbf:k=1", "lbf:k=4"]
    assert comparison.curves[0].points == [("1", "lbf:k=1"), ("9", "lbf"), ("4", "lbf:k=4")]
    content = compared.write(compared.gather(comparison))
    compared.check_whole(content, comparison)
    runs = Path("artifacts/comparisons/css/runs")
    recall = {
        label: [
            json.loads((path / "evaluation/metrics.json").read_text())["recall"]
            for path in (runs / f"{name}-0", runs / f"{name}-1")
        ]
        for label, name in (("lbf", "lbf"), ("whole", "whole"))
    }
    first, second, *_ = content["rows"]
    assert first["features"] == "artifacts/css.h5"
    for row in (first, second):
        for k, found in row["recall"].items():
            values = [one[k] for one in recall[row["row"]]]
            assert found["mean"] == pytest.approx(statistics.mean(values))
            assert found["std"] == pytest.approx(statistics.stdev(values))
        run = runs / f"{row['row']}-0"
        log = [json.loads(text) for text in (run / "log.jsonl").read_text().splitlines()]
        weights = load_file(run / "weights.safetensors")
        assert row["parameters"] == sum(value.numel() for value in weights.values())
        assert row["seconds"]["mean"] > 0
        assert len(log) == 2
    for row in content["rows"]:
        others = [other for other in content["rows"] if other is not row]
        for k, found in row["against"].items():
            best = max(others, key=lambda other: other["recall"][k]["mean"])
            assert found["row"] == best["row"]
            gap = row["recall"][k]["mean"] - best["recall"][k]["mean"]
            assert found["difference"] == pytest.approx(gap)
            assert found["low"] <= found["difference"] <= found["high"]
    table = pd.read_parquet(comparison.folder / "runs.parquet")
    assert sorted(zip(table["row"], table["seed"], strict=True)) == sorted(
        (row.label, seed) for row in comparison.rows for seed in (0, 1)
    )
    assert list(table.loc[table["row"] == "whole", "input"]) == ["whole", "whole"]


def test_the_page_and_the_tables_show_it(compared_rows, capsys):
    content = compared.write(compared.gather(replace(compared_rows, against="whole")))
    paths = report.write(content, compared_rows, examples=6)
    assert [path.name for path in paths] == ["comparison.html", "rows.svg", "k.svg"]
    page = paths[0].read_text()
    cell = words.plus_minus(content["rows"][0]["recall"]["5"])
    assert f"<td>{cell}</td>" in page
    assert "src=" not in page
    best = max(content["rows"], key=lambda row: row["recall"]["1"]["mean"])
    assert f">{best['row']} finds most: R@1 " in page
    assert page.count("<svg xmlns") == 3
    comparison_console.tables(content)
    said = capsys.readouterr().out
    assert cell in said
    assert "Rows differ in: input, k." in said
    against = [row["against"]["1"] and row["against"]["1"]["row"] for row in content["rows"]]
    assert against == ["whole", None, "whole", "whole"]


def test_the_page_shows_the_same_queries_of_every_row(compared_rows):
    content = compared.write(compared.gather(compared_rows))
    [path, *_] = report.write(content, compared_rows, examples=6)
    text = path.read_text()
    labels = [row.label for row in compared_rows.rows]
    runs = Path("artifacts/comparisons/css/runs")
    folders = ["lbf-0", "whole-0", *(cell.path.name for cell in compared_rows.cells()[2:4])]
    tables = [
        pd.read_parquet(runs / name / "evaluation/queries.parquet").set_index("query_id")
        for name in folders
    ]
    caption = compared_rows.rows[0].material.dataset.images.set_index("path")["caption"]
    examples = text.split('<article class="example">')[1:]
    assert len(examples) == 6
    scores = json.loads((runs / "lbf-0/evaluation/metrics.json").read_text())["pointing"]
    far = scores["chance"] + (100 - scores["chance"]) / 4
    points = max(scores["attention"], scores["change"]) >= far
    for example in examples:
        name = re.search(r"<code>(.*?)</code>", example)[1]
        assert re.findall(r"<h5>(.*?) <span", example) == labels
        lists = re.findall(r'<ol class="found">(.*?)</ol>', example, re.DOTALL)
        for table, shown in zip(tables, lists, strict=True):
            query = table.loc[name]
            items = re.findall(r"<li(.*?)>.*?<title>(.*?)\n", shown)
            assert [path for _, path in items] == list(query["found"][:5])
            right = [caption[path] == caption[query["target"]] for _, path in items]
            assert [bool(kind) for kind, _ in items] == right
        assert "Reference, as lbf is given it" in example
        assert ("data-weights" in example) == points
    ranks = pd.concat([table["rank"] for table in tables], axis=1)
    differ = (ranks == 1).any(axis=1) & ((ranks > 5) | (ranks == 0)).any(axis=1)
    names = re.findall(r"<code>(.*?)</code>", text)
    split = min(3, differ.sum())
    assert differ[names[:split]].all()
    assert not differ[names[split:]].any()
    assert all(f">{value:.2f}</td>" in text for value in _kinds(runs, "lbf"))


def _kinds(runs, label):
    """R@1 of each kind of query, the mean over both seeds."""
    found = [
        json.loads((runs / f"{label}-{seed}/evaluation/metrics.json").read_text())["breakdown"]
        for seed in (0, 1)
    ]
    return [
        statistics.mean(one["kind"][kind]["recall"]["1"] for one in found)
        for kind in ("add", "make", "remove")
    ]


def test_published_numbers_have_columns_of_their_own(compared_rows, capsys):
    file = Path("published.csv")
    file.write_text("row,source,R@5,R@1\nlbf,A paper <3,55.5,\ntirg,Another,1,2\n")
    features = compared_rows.rows[0].features
    comparison = prepared(features, ["lbf", "whole=lbf:input=whole"], published=file)
    content = compared.write(compared.gather(comparison))
    said = [row["published"] for row in content["rows"]]
    assert said == [{"R@5": 55.5, "source": "A paper <3"}, None]
    [page, _] = report.write(content, comparison)
    text = page.read_text()
    assert '<th scope="col">R@5 published</th></tr>' in text
    assert "<td>55.50</td></tr>" in text
    assert ">Published: lbf: A paper &lt;3.</p>" in text
    comparison_console.tables(content)
    assert re.search(r"│ lbf .* 55.50 │\n", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("row,R@1\n", "its columns must be row, source, and any of R@1, R@5, R@10, R@50"),
        ("row,source,R@2\n", "its columns must be row, source, and any of R@1"),
        ("row,source,R@1\na,b,1\na,b,2\n", "each row must come once, and have a source"),
        ("row,source,R@1\na,,1\n", "each row must come once, and have a source"),
        ("row,source,R@1\na,b,many\n", "could not convert string to float: 'many'"),
    ],
)
def test_published_numbers_that_are_refused(tmp_path, text, message):
    file = tmp_path / "published.csv"
    file.write_text(text)
    with pytest.raises(UserError, match=f"--published {file}.*{message}"):
        read_published(file, ["R@1", "R@5", "R@10", "R@50"])


def test_seeds_that_are_missing_are_told(compared_rows):
    (compared_rows.cells()[-1].path / "evaluation/metrics.json").unlink()
    content = compared.write(compared.gather(compared_rows))
    last = content["rows"][-1]
    assert (last["seeds"], last["errors"]) == ([0], {"1": "not done yet"})
    with pytest.raises(UserError, match=r"1 of 8 runs failed \(lbf:k=4, seed 1\)"):
        compared.check_whole(content, compared_rows)


def test_more_rows_and_seeds_are_welcome_and_anything_else_is_named(drawn_scenes):
    features = drawn_scenes()
    begin(prepared(features, ["lbf", "a=lbf:k=2"]))
    begin(prepared(features, ["a=lbf:k=2", "b=lbf:k=3", "lbf"], seeds=3))
    where = "artifacts/comparisons/css was begun with"
    wrong = [
        ({"shared": [*TINY, "epochs=9"]}, "epochs=2 in the row a, not 9"),
        ({"shared": [*TINY, "lbf.width=64"]}, "width=32 in the row a, not 64"),
        ({"models": ["lbf", "a=lbf:k=4", "b=lbf:k=3"]}, "k=2 in the row a, not 4"),
        ({"models": ["lbf", "a=lbf:k=2"]}, "the row b, which is not given now"),
        ({"seeds": 2}, "3 seeds, not 2"),
    ]
    same = {"models": ["lbf", "a=lbf:k=2", "b=lbf:k=3"], "seeds": 3}
    for other, said in wrong:
        with pytest.raises(UserError, match=f"{where} {said}: give the same, or another --out"):
            begin(prepared(features, **same | other))
    plan = Path("artifacts/comparisons/css/plan.json")
    old = json.loads(plan.read_text())
    for settings in old["rows"].values():
        del settings["learners"]  # as it was written before there was such a setting
    plan.write_text(json.dumps(old))
    with pytest.raises(UserError, match=f"{where} learners=1 in the row a, not 2"):
        begin(prepared(features, **same | {"shared": [*TINY, "learners=2"]}))
    begin(prepared(features, **same))
    drawn_scenes(name="other", seed=1)
    elsewhere = prepare(
        features.with_name("other.h5"), ["lbf"], seeds=3, wanted=Wanted(), shared=TINY,
        folder=Path("artifacts/comparisons/css"),
    )  # fmt: skip
    with pytest.raises(UserError, match=f"{where} .*css.h5 in the row lbf, not .*other.h5"):
        begin(elsewhere)


def test_files_of_other_pictures_and_rows_that_are_not_there_are_refused(drawn_scenes):
    features = drawn_scenes()
    other = drawn_scenes(name="other", seed=1)
    with pytest.raises(UserError, match=r"css.h5 and .*other.h5 do not have the same queries"):
        prepared(features, ["lbf", f"lbf:features={other}"])
    with pytest.raises(UserError, match="--against tirg: there is no such row; there are lbf"):
        prepared(features, against="tirg")
    with pytest.raises(UserError, match="--k 40 is not between 1 and the 9 regions"):
        prepared(features, ["lbf:k=40"])


def test_runs_of_another_plan_are_not_taken_for_this_one(drawn_scenes):
    features = drawn_scenes()
    first = prepared(features, seeds=1)
    begin(first)
    finish(first.cells()[0])
    (first.folder / "plan.json").unlink()
    compare.run(first, jobs=1)  # the same, which is done
    (first.folder / "plan.json").unlink()
    with pytest.raises(UserError, match="holds another run than is planned: move it away"):
        compare.run(prepared(features, seeds=1, shared=[*TINY, "lr=0.002"]), jobs=1)
    assert not (first.folder / "plan.json").exists()


def test_another_process_is_kept_out(drawn_scenes):
    comparison = prepared(drawn_scenes())
    comparison.folder.mkdir(parents=True)
    with (comparison.folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another cqr is at work in artifacts/comparisons/css"):
            compare.run(comparison, jobs=1)


def test_a_cell_that_is_killed_or_says_nothing_is_told_and_the_rest_go_on(
    drawn_scenes, monkeypatch, capsys
):
    """With processes that end at once in place of those that train."""
    comparison = prepared(drawn_scenes(), seeds=3)
    ends = iter([f"kill -{signal.SIGKILL} $$", "exit 3", "echo one >&2; echo two >&2; exit 1"])
    real = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda command, **how: real(["sh", "-c", next(ends)], **how)
    )
    compare.run(comparison, jobs=1)
    assert [cell.error for cell in comparison.cells()] == [
        "killed by SIGKILL (out of memory?)", "it ended without a word", "two",
    ]  # fmt: skip
    content = compared.write(compared.gather(comparison))
    assert content["rows"][0]["errors"]["2"] == "two"
    [page] = report.write(content, comparison)
    assert '<th scope="row">lbf, seed 2</th><td>two</td>' in page.read_text()
    comparison_console.tables(content)
    assert "lbf, seed 2 failed: two\n" in capsys.readouterr().out


def test_labels_become_different_folders():
    labels = ["a b", "a-b", "a/b", "a:b", "../a", "é", "x" * 80, "x" * 81]
    names = [_file_name(label) for label in labels]
    assert len(set(names)) == len(labels)
    assert all(re.fullmatch(r"[\w=-][\w.=-]*", name) and len(name) < 70 for name in names)


def test_weights_of_queries_make_the_mean_over_parts():
    queries = pd.DataFrame({"category": ["dress"] * 3 + ["shirt"]})
    weights = bootstrap.weights_of(queries, "category")
    hits = np.array([1, 0, 0, 1])
    assert (weights * hits).mean() == pytest.approx((1 / 3 + 1) / 2)
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("depth", ["vep_depth=0", "tep_depth=0"])
def test_lbf_without_a_stack_of_self_attention_trains(drawn_scenes, depth):
    comparison = prepared(drawn_scenes(), [f"lbf:{depth}"], seeds=1)
    [cell] = comparison.cells()
    finish(cell)
    assert cell.done
    model = Run.load(cell.path).trained_model()
    assert sorted((len(model.vep), len(model.tep))) == [0, 1]
