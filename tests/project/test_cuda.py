"""Every stage on a GPU, held against the same on the CPU.

Skipped where there is none; what the stages do is tested on the CPU elsewhere, and mixed
precision too.
"""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from around_models import NAMES, interrupted, settings, trained
from cqr.pipeline.feature_file import open_features
from cqr.scenes.generate import Settings, generate
from cqr.trainer.evaluation import evaluate
from cqr.trainer.training.material import collect
from cqr.trainer.training.start import start
from cqr.trainer.training.steps import resident
from cqr.trainer.training.train import train, train_seeds

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "fashion"
    generate(folder, Settings(references=6, modifications=4))
    return folder


def cqr(*words):
    done = subprocess.run(
        [sys.executable, "-m", "cqr.cli", *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("detector", ["bundled", "grid"])
def test_features_are_those_of_the_cpu(scenes, tmp_path, detector):
    files = [tmp_path / f"{device}.h5" for device in ("cpu", "cuda")]
    for file in files:
        cqr("extract", "--images", scenes, "--k", 36, "--detector", detector,
            "--device", file.stem, "--out", file)  # fmt: skip
    one, two = (next(open_features(file).blocks()) for file in files)
    assert one.paths == two.paths
    near = {"regions/boxes": 0.5, "regions/features": 0.05, "whole/features": 0.05}
    same = one.arrays["regions/count"] == two.arrays["regions/count"]
    assert same.mean() > 0.97  # a region at a threshold may fall on either side
    for name, most in near.items():
        a, b = (part.arrays[name][same].astype(np.float32) for part in (one, two))
        assert np.quantile(abs(a - b), 0.99) < most


@pytest.mark.parametrize("name", NAMES)
def test_every_model_trains_and_scores(drawn_scenes, name):
    chosen = settings(name, epochs=1, input="regions", embed=64)
    run, material = trained(drawn_scenes(), chosen, device="cuda")
    [line] = run.history()
    assert math.isfinite(line["loss"])
    assert line["device"] == torch.cuda.get_device_name()
    assert {w.dtype for w in load_file(run.weights).values()} <= {torch.float32, torch.int64}
    assert evaluate.evaluate(run, material, GPU).metrics["queries"] == 72


@pytest.mark.parametrize("around", [{"learners": 2}, {"snr": True}])
def test_what_may_be_put_around_a_model_trains(drawn_scenes, around):
    chosen = settings("lbf", epochs=1, embed=64, **around)
    run, _ = trained(drawn_scenes(), chosen, device="cuda")
    assert math.isfinite(run.history()[0]["loss"])


def test_training_in_32_bits_is_that_of_the_cpu(drawn_scenes):
    features, chosen = drawn_scenes(), settings("lbf", "dropout=0")
    (one, material), (two, _) = (
        trained(features, chosen, device=device, precision="32-true") for device in ("cpu", "cuda")
    )
    for a, b in zip(one.history(), two.history(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
    ranks = [
        evaluate.evaluate(run, material, device).queries["rank"].to_numpy()
        for run, device in ((one, CPU), (one, GPU), (two, GPU))
    ]
    assert (ranks[0] == ranks[1]).mean() > 0.95
    assert (ranks[0] == ranks[2]).mean() > 0.8


def test_a_stopped_training_goes_on(drawn_scenes):
    """To the same weights but for the order in which a GPU adds."""
    features, chosen, how = drawn_scenes(), settings("lbf"), {"precision": "32-true"}
    whole, material = trained(features, chosen, device="cuda", **how)
    run = start(material, chosen, fresh=True)
    interrupted(run, material, device="cuda", **how)
    train(run, material, device="cuda", **how)
    for a, b in zip(whole.history(), run.history(), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)


def test_what_lies_on_the_gpu_is_compiled_or_several_trains_as_it_is_written(
    drawn_scenes, monkeypatch
):
    features, chosen = drawn_scenes(), settings("lbf", "dropout=0", select="last")
    how = {"device": "cuda", "precision": "32-true"}
    with monkeypatch.context() as patched:
        patched.setattr(resident, "SHARE", 0)
        expected = [trained(features, replace(chosen, seed=n), **how)[0].history() for n in (0, 1)]
    for compiled in (False, True):
        material = collect(features)
        runs = [start(material, replace(chosen, seed=n), fresh=True) for n in (0, 1)]
        train_seeds(runs, material, compile=compiled, **how)
        alone, _ = trained(features, chosen, compile=compiled, **how)
        for got, lines in [*zip(runs, expected, strict=True), (alone, expected[0])]:
            for a, b in zip(got.history(), lines, strict=True):
                assert a["loss"] == pytest.approx(b["loss"], abs=1e-3)


def test_the_commands_take_the_gpu_by_themselves(scenes):
    cqr("extract", "--images", scenes, "--k", 36)
    cqr("train", "--features", "artifacts/fashion.h5", "--epochs", 2)
    assert "R@1" in cqr("evaluate")
    cqr("index")
    picture = next((scenes / "images").glob("css_test_*.png"))
    found = json.loads(cqr("search", "--image", picture, "--text", "remove red circle", "--json"))
    assert found["hits"]
    cqr("compare", "--features", "artifacts/fashion.h5", "--models", "lbf,tirg", "--seeds", 1,
        "--set", "epochs=1", "--precision", "32-true", "--jobs", 2)  # fmt: skip
    table = pd.read_parquet("artifacts/comparisons/fashion/runs.parquet")
    assert set(table["device"]) == {torch.cuda.get_device_name()}
    content = json.loads(Path("artifacts/comparisons/fashion/comparison.json").read_text())
    assert torch.cuda.get_device_name() in content["machine"]
    assert content["precision"] == "32-true"
