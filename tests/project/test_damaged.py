"""Damaged files, and two processes at one thing: a sentence each, never a traceback."""

import dataclasses
import io
import json
import random
from pathlib import Path

import h5py
import pytest
import torch
import typer

from cqr import cli
from cqr.atomic import alone, alone_at
from cqr.errors import UserError
from cqr.pipeline import exports, shards
from cqr.pipeline.plan import Plan
from cqr.pipeline.shards import BadShard, Header, Rows
from cqr.search.indexes import hnsw
from cqr.trainer.comparing import plan as comparing
from cqr.trainer.datasets.readers import css
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.models import ALL
from cqr.trainer.text.vocabulary import Vocabulary
from cqr.trainer.training import checkpoint, train
from cqr.trainer.training.checkpoint import Progress, save_tensors
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings, settle
from cqr.trainer.training.steps.fabric import fabric_of

TIMES = 150


@pytest.fixture
def run(tmp_path):
    made = Run(
        path=tmp_path / "run",
        features=tmp_path / "x.h5",
        data=None,
        dataset="table",
        protocol={"gallery": "all"},
        region_dim=8,
        detector={"name": "fake"},
        settings=Settings(options={"embed_dim": 8}),
        vocabulary=Vocabulary(("red", "blue"), 4),
        text_encoder=None,
        created="2026-01-01T00:00:00+00:00",
    )
    made.save()
    return made


def damaged(content, seed):
    """Bytes with a few changed, some cut out, the end gone, or JSON of another kind."""
    rng = random.Random(seed)
    bytes_ = bytearray(content)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(max(1, len(bytes_) - 2))
        match rng.randrange(5):
            case 0 if bytes_:
                bytes_[at] = rng.randrange(256)
            case 1:
                del bytes_[at : at + rng.randrange(1, 9)]
            case 2:
                bytes_[at:at] = rng.choice([b"[", b"null", b"-1", b"1e999", b'"', b"{}", b"NaN"])
            case 3:
                bytes_ = bytes_[: max(4, at)]
            case 4:
                quoted = bytes_.find(b": ", at)
                if quoted > 0:
                    bytes_[quoted + 2 : quoted + 3] = rng.choice([b"null", b"[]", b"-3", b"{"])
    return bytes(bytes_)


def try_damage(file, read):
    """Reads many damaged forms of a file; gives how many were refused."""
    good, said = file.read_bytes(), []
    read()
    for seed in range(TIMES):
        file.write_bytes(damaged(good, seed))
        try:
            read()
        except (UserError, BadShard) as error:
            said.append(str(error))
    file.write_bytes(b"[" * 100_000)
    with pytest.raises(UserError):
        read()
    file.write_bytes(good)
    read()
    assert all("\n" not in sentence and len(sentence) < 600 for sentence in said)
    return len(said)


def test_a_damaged_run(run):
    assert try_damage(run.path / "run.json", lambda: Run.load(run.path)) > TIMES / 2
    assert Run.load(run.path) == run


def test_a_damaged_log(run):
    lines = [{"epoch": e, "loss": 0.5, "seconds": 1.0, "recall": {"1": 3.0}} for e in (1, 2)]
    run.log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert run.history() == lines

    def read():
        for line in run.history():
            assert line["epoch"] + line["loss"] + sum(line.get("recall", {}).values()) is not None

    assert try_damage(run.log, read) > TIMES / 3


def test_a_damaged_plan(tmp_path):
    header = Header("id", "2026", 2, 3, {"name": "fake"}, "/p", "cqr", "0", extras={"a/b": "<i4"})
    Plan(header, (("a.png", "b.png"), ("c.png",))).save(tmp_path)
    assert try_damage(tmp_path / "plan.json", lambda: Plan.load(tmp_path)) > TIMES / 2


def test_a_damaged_folder_of_scenes(tmp_path):
    images = [{"file": f"images/{i}.png", "caption": f"scene {i}"} for i in range(4)]
    query = {"source": 0, "target": 1, "text": "make it red", "kind": "make", "attribute": None}
    manifest = {"format": "cqr-scenes", "version": 1}
    (tmp_path / "scenes.json").write_text(json.dumps(manifest))
    for split in ("train", "test"):
        content = {"images": images, "queries": [query, query | {"target": 3}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))

    def read():
        return css.read(tmp_path, None, css.Options())

    for name in ("scenes.json", "train.json", "test.json"):
        assert try_damage(tmp_path / name, read) > TIMES / 3


@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.parametrize("value", [-1, 4, 1.0, True, None, "0"])
def test_a_query_of_scenes_points_at_a_picture(tmp_path, end, value):
    images = [{"file": f"{i}.png", "caption": ""} for i in range(4)]
    query = {"source": 0, "target": 1, "text": "t", "kind": "make", "attribute": None}
    (tmp_path / "scenes.json").write_text('{"format": "cqr-scenes", "version": 1}')
    for split in ("train", "test"):
        content = {"images": images, "queries": [query | {end: value}]}
        (tmp_path / f"{split}.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"train.json .a query whose {end} is .*cqr scenes"):
        css.read(tmp_path, None, css.Options())


def test_a_damaged_evaluation(tmp_path):
    stored = Stored(tmp_path)
    stored.metrics.write_text('{"recall": {"1": 3.0}, "measures": {}, "average": null}')
    assert try_damage(stored.metrics, stored.read_metrics) > TIMES / 3
    stored.queries.write_bytes(b"PAR1 and no more PAR1")
    with pytest.raises(UserError, match="delete its folder and score the run again"):
        stored.read_queries(["rank"])


def test_a_damaged_plan_of_a_comparison(tmp_path, monkeypatch):
    class Planned:
        folder = tmp_path

        def plan(self):
            return json.loads(good)

    good = json.dumps(
        {"format": comparing.FORMAT, "version": comparing.VERSION, "data set": "t", "data": None,
         "protocol": {}, "seeds": 1, "precision": None, "features": {"a": "b"},
         "rows": {"lbf": {"features": "a", "lr": 0.1}}}
    )  # fmt: skip
    file = tmp_path / "plan.json"
    file.write_text(good)

    def read():
        found = file.read_bytes()
        comparing.begin(Planned())
        file.write_bytes(found)

    assert try_damage(file, read) > TIMES / 3


@pytest.mark.parametrize(
    "wrong",
    [{"epoch": -1}, {"step": -5}, {"epoch": 1.5}, {"loss": float("nan")}, {"best": "high"},
     {"extra": {"a": None}}, {"more": 1}],
)  # fmt: skip
def test_progress_that_cannot_be_is_not_gone_on_with(tmp_path, wrong):
    file = tmp_path / "checkpoint.safetensors"
    good = {"epoch": 1, "step": 2, "best": 0.5, "loss": 1.0, "extra": {}}
    save_tensors(file, {"a": torch.zeros(1)}, {"progress": json.dumps(good)})
    assert checkpoint.progress(file) == Progress(**good)
    save_tensors(file, {"a": torch.zeros(1)}, {"progress": json.dumps(good | wrong)})
    with pytest.raises(UserError, match=r"cannot resume from .*start anew with --fresh"):
        checkpoint.progress(file)


def test_a_checkpoint_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    def none_left(*_, **__):
        raise OSError(24, "Too many open files")

    file = tmp_path / "checkpoint.safetensors"
    file.touch()
    monkeypatch.setattr(checkpoint, "safe_open", none_left)
    with pytest.raises(UserError, match=r"too many files are open.*ulimit -n"):
        checkpoint.progress(file)


def test_a_shard_whose_failures_are_damaged(tmp_path):
    header = Header("id", "2026", 2, 3, {"name": "fake"}, "/p", "cqr", "0")
    file = tmp_path / "0.h5"
    shards.write_shard(file, header, Rows.empty(2, 3, 1))
    assert shards.shard_contents(file, header) == ([""], [])
    with h5py.File(file, "r+") as opened:
        del opened["failures/reason"]
    for read in (shards.shard_contents, shards.read_shard):
        with pytest.raises(BadShard, match="is truncated or damaged"):
            read(file, header)


def test_a_precision_that_no_model_takes():
    for precision in ("bf16-true", "16-true", "64-true"):
        with pytest.raises(UserError, match=f"--precision {precision} .*: choose 32-true"):
            fabric_of("cpu", precision)


def test_two_trainings_are_not_at_one_run(run, monkeypatch):
    with alone(run.path, "x"), pytest.raises(UserError, match=r"another cqr is training .*--fresh"):
        train.train(run, None)
    left = run.path / ".checkpoint.safetensors.0123abcd.partial"
    left.write_bytes(b"x")
    monkeypatch.setattr(train, "_train", lambda *_: [Progress(epoch=3)])
    assert train.train(run, None) == Progress(epoch=3)
    assert not left.exists()


def test_two_exports_are_not_at_one_place(tmp_path, monkeypatch):
    out = tmp_path / "out"
    with alone_at(out, "x"), pytest.raises(UserError, match="another cqr is exporting into"):
        exports.export(None, out, "npz", None)
    table = tmp_path / "out.parquet"
    with alone_at(table, "x"), pytest.raises(UserError, match="another cqr is exporting into"):
        exports.export(None, table, "parquet", None)


def test_a_graph_that_the_disk_does_not_hold(tmp_path, monkeypatch):
    faiss = pytest.importorskip("faiss", reason="pip install 'cqr[index]'")

    def full(file, data):
        raise OSError(28, "No space left on device")

    class Full(io.FileIO):
        write = full

    monkeypatch.setattr(Path, "open", lambda path, mode: Full(path, mode))
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device"):
        hnsw._save(faiss, faiss.IndexHNSWFlat(8, 4), tmp_path / "hnsw-1.faiss")
    assert list(tmp_path.iterdir()) == []


def test_what_a_stop_breaks_ends_as_a_stop(monkeypatch, capsys):
    def broken():
        cli._asked_to_stop.append(15)
        raise ImportError("numpy was interrupted half-way")

    def full():
        raise OSError(28, "No space left on device")

    def wrong():
        raise OSError(2, "No such file")

    monkeypatch.setattr(cli, "_asked_to_stop", [])
    for function, code, said in (
        (full, 1, "Error: the disk is full"),
        (broken, 130, "Interrupted"),
    ):
        with pytest.raises(typer.Exit) as ended:
            cli._in_sentences(function)()
        assert ended.value.exit_code == code
        assert said in capsys.readouterr().err
    cli._asked_to_stop.clear()
    with pytest.raises(OSError, match="No such file"):
        cli._in_sentences(wrong)()


@pytest.mark.parametrize("model", sorted(ALL))
def test_what_each_model_chooses_is_read_back(run, model):
    settings = settle({}, {"model": model}, [])
    kept = dataclasses.replace(run, settings=settings)
    kept.save()
    assert Run.load(run.path).settings == settings


def test_a_run_of_old_names_a_choice_that_only_its_training_knew_of(run):
    file = run.path / "run.json"
    content = json.loads(file.read_text())
    content["settings"]["options"]["orderless"] = 0.3
    file.write_text(json.dumps(content))
    assert Run.load(run.path) == run


@pytest.mark.parametrize("wrong", [{"width": "\0"}, {"pool": "../../etc/passwd"}, {"more": 1}])
def test_a_run_whose_model_has_no_such_choice(run, wrong):
    file = run.path / "run.json"
    content = json.loads(file.read_text())
    content["settings"]["options"] |= wrong
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=f"run.json is damaged .*{next(iter(wrong))}"):
        Run.load(run.path)
