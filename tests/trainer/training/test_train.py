"""Training end to end on drawn features: it learns, and a killed one ends like an unkilled one."""

import errno
import json
import math
import os
import signal
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

from cqr.errors import UserError
from cqr.scenes import protocol
from cqr.trainer import console
from cqr.trainer.evaluation import evaluate
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.models import encoders
from cqr.trainer.text import encoder as text_encoders
from cqr.trainer.text.vocabulary import TextSpec
from cqr.trainer.training import checkpoint, runs
from cqr.trainer.training.material import collect
from cqr.trainer.training.settings import Settings, settle
from cqr.trainer.training.start import finished, start
from cqr.trainer.training.train import train

SMALL = ["width=32", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=48"]
SMALL += ["pool=max", "locate=1"]  # what css recommends, so what the command takes by itself
SMALL += ["dropout=0.1"]  # it recommends none, but what is drawn must be continued too
CPU = torch.device("cpu")


def small(**given):
    given = {"epochs": 3, "batch": 16, "warmup": 5, "lr": 3e-3, "validation": 0.2} | given
    return settle({}, given, SMALL)


def run_of(features, settings, **more):
    material = collect(features)
    run = start(material, settings, **more)
    train(run, material, device="cpu")
    return run, material


def test_a_trained_model_finds_what_chance_does_not(drawn_scenes):
    features = drawn_scenes(references=30, modifications=8)
    run, material = run_of(features, small(epochs=15, select="last"))
    evaluation = evaluate.evaluate(run, material, CPU)
    metrics = evaluation.metrics
    assert metrics["queries"] == 240
    assert metrics["gallery"] == 270
    assert metrics["chance"]["1"] < 1
    assert metrics["recall"]["1"] > 15
    assert metrics["recall"]["10"] > 60
    assert metrics["recall"]["1"] <= metrics["recall"]["5"] <= metrics["recall"]["10"]
    kinds = metrics["breakdown"]["kind"]
    assert set(kinds) == {"add", "make", "remove"}
    places = metrics["breakdown"]["place"]
    texts = material.dataset.split("test")["text"]
    assert {place: part["queries"] for place, part in places.items()} == {
        cell: sum(cell in text.split() for text in texts) for cell in sorted(protocol.CELLS)
    }
    total = sum(part["queries"] * part["recall"]["5"] for part in kinds.values())
    assert total / 240 == pytest.approx(metrics["recall"]["5"])


def test_what_evaluate_writes_agrees_with_itself(drawn_scenes):
    run, material = run_of(drawn_scenes(), small())
    evaluation = evaluate.evaluate(run, material, CPU)
    folder = run.path / "evaluation"
    Stored(folder).write(evaluation)
    metrics = json.loads((folder / "metrics.json").read_text())
    frame = pd.read_parquet(folder / "queries.parquet")
    caption = material.dataset.images.set_index("path")["caption"]
    for row in frame.itertuples():
        wanted = caption[row.target]
        hits = [i for i, path in enumerate(row.found, 1) if path and caption[path] == wanted]
        assert (hits[0] if hits else 99) == (row.rank if row.rank <= len(row.found) else 99)
        assert row.reference not in row.found
        assert (np.diff(row.scores[np.isfinite(row.scores)]) <= 0).all()
    for k, value in metrics["recall"].items():
        assert value == pytest.approx(100 * np.mean(frame["rank"].between(1, int(k))))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(drawn_scenes):
    features = drawn_scenes()
    weights = [
        load_file(run_of(features, small(seed=seed), fresh=True)[0].weights) for seed in (3, 3, 4)
    ]
    same, other = (all(torch.equal(weights[0][name], w[name]) for name in w) for w in weights[1:])
    assert same
    assert not other


def test_what_a_query_keeps_of_its_reference_is_no_part_of_the_training(drawn_scenes):
    features, weights, first = drawn_scenes(), [], []
    for kept in (0.0, 1e6):
        settings = small(reference_weight=kept, select="last")
        run, material = run_of(features, settings, fresh=True)
        frame = evaluate.evaluate(runs.Run.load(run.path), material, CPU).queries
        weights.append(load_file(run.weights))
        first.append(frame.assign(first=frame["found"].str[0]).groupby("reference")["first"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert first[0].nunique().max() > 1
    assert (first[1].nunique() == 1).all()  # nothing of the text is left


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("at", "given"), [(1, {}), (4, {}), (7, {}), (4, {"muon_lr": 0.01}), (4, {"reorder": 0.5})]
)
def test_resuming_after_a_stop_gives_the_weights_of_an_uninterrupted_run(drawn_scenes, at, given):
    features, settings = drawn_scenes(), small(**given)
    whole, material = run_of(features, settings, fresh=True)
    run = start(material, settings, fresh=True)
    steps = 0

    def stop(*_):
        nonlocal steps
        steps += 1
        if steps == at:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(run, material, on_step=stop, device="cpu")
    assert start(material, settings).path == run.path  # the same command goes on with it
    train(run, material, device="cpu")
    assert_equal_runs(whole, run)


def test_a_crash_between_two_writes_is_mended_by_resuming(drawn_scenes, monkeypatch):
    features = drawn_scenes()
    whole, material = run_of(features, small(), fresh=True)
    run = start(material, small(), fresh=True)
    real, calls = checkpoint.save, 0

    def crash(*args):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Killed
        real(*args)

    monkeypatch.setattr(checkpoint, "save", crash)
    with pytest.raises(Killed):
        train(run, material, device="cpu")
    monkeypatch.setattr(checkpoint, "save", real)
    train(run, material, device="cpu")
    assert_equal_runs(whole, run)


def test_sigkill_at_any_moment_ends_in_the_same_weights(drawn_scenes, tmp_path):
    features = drawn_scenes()
    whole, _ = run_of(features, small(epochs=4))
    command = [
        sys.executable,
        "-m",
        "cqr.cli",
        "train",
        "--features",
        str(features),
        "--device",
        "cpu",
    ]
    command += [
        "--epochs",
        "4",
        "--batch",
        "16",
        "--warmup",
        "5",
        "--lr",
        "3e-3",
        "--validation",
        "0.2",
        "--together",
        "1",
        "--muon-lr",
        "0",
    ]
    command += [part for item in SMALL for part in ("--set", item)]
    place = tmp_path / "killed"
    place.mkdir()
    run = place / "artifacts/runs/css-lbf-001"
    for moment in ("run.json", "checkpoint.safetensors"):
        process = subprocess.Popen(command, cwd=place, stderr=subprocess.DEVNULL, env=os.environ)
        while not (run / moment).exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.wait()
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in run.parent.iterdir()] == ["css-lbf-001"]
    assert_equal_runs(whole, runs.Run.load(run))


def assert_equal_runs(one, two):
    for file in ("weights", "checkpoint"):
        a, b = (load_file(getattr(run, file)) for run in (one, two))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    logs = [[json.loads(line) for line in run.log.read_text().splitlines()] for run in (one, two)]
    timeless = [[(line["epoch"], line["loss"], line.get("score")) for line in log] for log in logs]
    assert timeless[0] == timeless[1]
    assert finished(one)
    assert finished(two)


def test_a_finished_run_is_not_continued_and_other_settings_start_anew(drawn_scenes):
    features = drawn_scenes()
    _, material = run_of(features, small(epochs=1))
    assert start(material, small(epochs=1)).path.name == "css-lbf-002"
    assert start(material, small(epochs=1)).path.name == "css-lbf-002"  # 002 is unfinished
    assert start(material, small(epochs=2)).path.name == "css-lbf-003"
    assert start(material, small(epochs=1), fresh=True).path.name == "css-lbf-004"
    assert runs.newest().path.name == "css-lbf-004"


def test_of_processes_that_train_together_one_makes_the_run(drawn_scenes, monkeypatch):
    material = collect(drawn_scenes())
    monkeypatch.setenv("RANK", "1")
    assert not start(material, small()).path.exists()
    monkeypatch.setenv("RANK", "0")
    made = start(material, small())
    monkeypatch.setenv("RANK", "1")
    assert start(material, small()) == made


@pytest.mark.parametrize("select", ["validation", "test", "last"])
def test_the_kept_epoch_is_the_one_that_was_asked_for(drawn_scenes, select):
    run, material = run_of(drawn_scenes(), small(select=select))
    log = [json.loads(line) for line in run.log.read_text().splitlines()]
    last = {k[6:]: v for k, v in load_file(run.checkpoint).items() if k.startswith("model.")}
    kept = load_file(run.weights)
    if select == "last":
        assert all("score" not in line for line in log)
        assert all(torch.equal(last[name], kept[name]) for name in kept)
    else:
        best = max(line["score"] for line in log)
        chosen = max(line["epoch"] for line in log if line["score"] == best)
        is_last = all(torch.equal(last[name], kept[name]) for name in kept)
        assert is_last == (chosen == len(log))
    if select == "test":
        evaluation = evaluate.evaluate(run, material, CPU)
        assert np.mean(list(evaluation.metrics["recall"].values())) == pytest.approx(best)


def test_both_losses_and_a_smaller_k_train(drawn_scenes):
    features = drawn_scenes()
    for given in (
        {"loss": "soft-triplet"},
        {"loss": "soft-triplet-sampled"},
        {"kappa": "squared-l2"},
    ):
        material = collect(features)
        run = start(material, small(epochs=2, k=3, **given))
        progress = train(run, material, device="cpu")
        assert progress.epoch == 2
        log = [json.loads(line) for line in run.log.read_text().splitlines()]
        assert log[1]["loss"] < log[0]["loss"]


@pytest.mark.parametrize("muon_lr", [0.0, 0.01])
def test_mixed_precision_trains(drawn_scenes, muon_lr, monkeypatch):
    """What a GPU trains in by default.  Corners, which 8 bits would move by pixels, stay."""
    material = collect(drawn_scenes())
    run = start(material, small(muon_lr=muon_lr))
    corners, forward = [], encoders.RegionEmbedding.forward

    def seen(self, regions):
        corners.append(regions.boxes[regions.mask])
        return forward(self, regions)

    with monkeypatch.context() as patch:
        patch.setattr(encoders.RegionEmbedding, "forward", seen)
        train(run, material, device="cpu", precision="bf16-mixed")
    reader = material.reader
    batch = reader.gather(np.arange(len(reader)))
    known = {tuple(box) for box in batch.boxes[batch.mask].tolist()}
    assert {tuple(box) for part in corners for box in part.tolist()} <= known
    loss = [line["loss"] for line in run.history()]
    assert loss[-1] < loss[0]
    assert {value.dtype for value in load_file(run.weights).values()} == {torch.float32}


def test_a_text_encoder_trains_resumes_exactly_and_scores(drawn_scenes, write_encoder, capfd):
    features = drawn_scenes()
    settings = small(text_encoder=str(write_encoder()), max_words=8)
    whole, material = run_of(features, settings, fresh=True)
    text_encoders._load.cache_clear()  # as another process, which has encoded nothing yet
    run = start(material, settings, fresh=True)

    def stop(*_):
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(run, material, on_step=stop, device="cpu")
    text_encoders._load.cache_clear()
    assert start(material, settings) == runs.Run.load(run.path) == run
    train(run, material, device="cpu")
    assert_equal_runs(whole, run)
    log = run.history()
    assert log[-1]["loss"] < log[0]["loss"]
    assert run.vocabulary is None
    assert run.text_encoder.spec == run.words().spec == TextSpec(max_words=8, dim=16)
    console.announce(run, material, verbose=True)
    said = capfd.readouterr().err
    assert "encoder, frozen: 16 features a word piece" in said
    assert "longer than the 8 word pieces that the model reads" in said
    texts = material.dataset.split("test")["text"]
    metrics = evaluate.evaluate(run, material, CPU).metrics
    assert metrics["unknown_words"] == {}
    assert metrics["texts_cut"] == run.words().cut(texts) > 0
    assert start(material, small()).vocabulary is not None  # another text side is another run


def test_what_is_odd_of_the_data_is_said_at_length_once(drawn_scenes, capfd):
    run, material = run_of(drawn_scenes(), small())
    odd = replace(material, notes=["two rows are odd", "a third is too"])
    console.announce(run, odd)
    assert "a third is too" in capfd.readouterr().err
    console.announce(run, odd, again=True)
    said = capfd.readouterr().err
    assert "2 notes on the data" in said
    assert "a third" not in said
    console.announce(run, odd, again=True, verbose=True)
    assert "a third is too" in capfd.readouterr().err


def test_an_encoder_that_is_another_or_gone_is_refused(drawn_scenes, write_encoder):
    features = drawn_scenes()
    folder = write_encoder()
    run, material = run_of(features, small(epochs=1, text_encoder=str(folder)))
    scored = evaluate.evaluate(run, material, CPU).metrics
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(UserError, match=r"encoder is not a folder; name that of a model"):
        evaluate.evaluate(run, material, CPU)
    again = evaluate.evaluate(run.with_text_encoder(str(moved)), material, CPU).metrics
    assert again["recall"] == scored["recall"]
    write_encoder(seed=1)
    with pytest.raises(UserError, match="not the one that the run was trained with") as caught:
        evaluate.evaluate(runs.Run.load(run.path), material, CPU)
    assert "its model.safetensors differs" in str(caught.value)
    with pytest.raises(UserError, match=r"--text-encoder x: .* was trained without one"):
        start(material, small(epochs=1)).with_text_encoder("x")


def test_texts_that_are_cut_are_counted_and_runs_of_old_are_read(drawn_scenes):
    material = collect(drawn_scenes())
    run = start(material, small(epochs=1, max_words=3))
    train(run, material, device="cpu")
    texts = material.dataset.split("test")["text"]
    cut = evaluate.evaluate(run, material, CPU).metrics["texts_cut"]
    assert cut == sum(text.count(" ") >= 3 for text in texts) > 0
    content = json.loads((run.path / "run.json").read_text())
    del content["text_encoder"], content["settings"]["text_encoder"]
    (run.path / "run.json").write_text(json.dumps(content))
    assert runs.Run.load(run.path) == run


def test_features_that_are_not_finite_are_named(drawn_scenes):
    features = drawn_scenes()
    import h5py

    name = "images/css_train_000000.png"
    with h5py.File(features.with_name("css.shards") / "00000.h5", "r+") as file:
        row = list(file["images/path"].asstr()[:]).index(name)
        file["regions/features"][row, 0, 0] = np.nan
    material = collect(features)
    with pytest.raises(UserError, match=f"the features of {name} are not finite; check them with"):
        train(start(material, small(validation=0)), material, device="cpu")


def test_a_learning_rate_that_blows_up_is_named(drawn_scenes):
    material = collect(drawn_scenes())
    run = start(material, small(lr=1e30, clip=1e30, warmup=1))
    with pytest.raises(
        UserError, match=r"the loss is not finite in epoch 1, step \d+: train with a lower"
    ):
        train(run, material, device="cpu")


def test_missing_images_stop_or_are_counted(drawn_scenes, write_features, tmp_path):
    whole = collect(drawn_scenes())
    reader = whole.reader
    keep = np.arange(len(reader)) % 7 != 3
    batch = reader.gather(np.flatnonzero(keep))
    part = write_features(
        tmp_path / "part.h5",
        [p for p, k in zip(reader.paths, keep, strict=True) if k],
        batch.features.numpy(), batch.boxes.numpy() * 300, batch.mask.sum(1).numpy(),
        root=reader.file.image_root,
    )  # fmt: skip
    missing = rf"24 of 168 images have no regions in {part}: .*; "
    with pytest.raises(UserError, match=missing + "none of these is in .*: put them there"):
        collect(part)
    picture = Path(reader.file.image_root, reader.paths[3])
    picture.parent.mkdir(exist_ok=True)
    picture.touch()
    with pytest.raises(UserError, match=missing + "extract them with `cqr .* --retry-failed`"):
        collect(part)
    material = collect(part, max_missing=0.5)
    gone = {p for p, k in zip(reader.paths, keep, strict=True) if not k}
    queries = whole.dataset.queries
    lost = queries["reference"].isin(gone) | queries["target"].isin(gone)
    train_lost = int((lost & (queries["split"] == "train")).sum())
    [note] = material.notes
    assert f"{train_lost} training queries and" in note
    run = start(material, small(epochs=1))
    train(run, material, device="cpu")
    evaluation = evaluate.evaluate(run, material, CPU)
    assert evaluation.metrics["queries"] == 72
    frame = evaluation.queries
    assert (frame.loc[frame["reference"].isin(gone), "rank"] == 0).all()


def test_a_run_without_weights_and_damaged_files_are_refused(drawn_scenes):
    material = collect(drawn_scenes())
    run = start(material, small())
    with pytest.raises(UserError, match="has no weights yet: let `cqr train` finish an epoch"):
        run.trained_model()
    run.weights.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot use .*weights.safetensors"):
        run.trained_model()
    run.checkpoint.write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"cannot resume from .*: start anew with --fresh"):
        train(run, material, device="cpu")
    text = (run.path / "run.json").read_text()
    (run.path / "run.json").write_text(text.replace('"version": 1', '"version": 9'))
    with pytest.raises(
        UserError, match="version 9, this cqr reads 'cqr-run' version 1: update cqr"
    ):
        runs.newest()
    (run.path / "run.json").write_text(text[:50])
    with pytest.raises(UserError, match=r"is damaged .*: choose another run with --run"):
        runs.newest()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": 0}, "--epochs 0 is less than 1"),
        ({"batch": 1}, "--batch 1 is less than 2"),
        ({"lr": 0.0}, "--lr 0.0 is not greater than 0"),
        ({"reference_weight": -0.1}, "--reference-weight -0.1 is less than 0"),
        ({"reference_weight": math.inf}, "--reference-weight inf is not a finite number"),
        ({"reorder": 1.5}, r"--reorder 1.5 is not in \[0, 1\]"),
        ({"lr": math.inf}, "--lr inf is not a finite number"),
        ({"max_words": 0}, "--max-words 0 is less than 1"),
        ({"seed": -1}, "--seed -1 is not in"),
        ({"validation": 1.0}, "--validation 1.0 is not in"),
        ({"loss": "hinge"}, "--loss hinge is not one of batch-classification, "),
        ({"kappa": "cosine"}, "--kappa cosine is not one of dot, squared-l2"),
        ({"select": "best"}, "--select best is not one of validation, test, last"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        settle({}, given, [])


def test_what_is_given_wins_over_what_is_recommended():
    recommended = {"epochs": 5, "lr": 0.1, "width": 64}
    settings = settle(recommended, {"epochs": 7, "lr": None}, ["heads=4"])
    assert (settings.epochs, settings.lr) == (7, 0.1)
    assert (settings.options["width"], settings.options["heads"]) == (64, 4)
    assert settings.batch == Settings.batch


def test_a_full_disk_ends_in_one_sentence_and_keeps_the_last_checkpoint(drawn_scenes, monkeypatch):
    material = collect(drawn_scenes())
    run = start(material, small(select="last"))
    real, calls = Path.write_bytes, 0

    def full(self, content):
        nonlocal calls
        calls += 1
        if calls == 4:  # the second epoch's checkpoint
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"cannot write .*: No space left on device; make room or"):
        train(run, material, device="cpu")
    assert checkpoint.progress(run.checkpoint).epoch == 1
    assert not list(run.path.glob(".*.partial"))
