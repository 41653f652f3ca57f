"""Training by two processes under torchrun is training by one with the same batch."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import cqr
from around_models import losses
from cqr.errors import UserError
from cqr.trainer.training import runs
from cqr.trainer.training.steps.fabric import check_divisible

SHARED = Path(__file__).parents[2] / "shared"
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
TORCHRUN += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]  # any port that is free
LBF = ["width=32", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=48"]
LBF += ["pool=max", "dropout=0"]  # which would draw other masks
TIRG = ["embed_dim=48", "text_dropout=0"]


def command(features, settings, options):
    """`cqr train` by torchrun."""
    words = [*TORCHRUN, "-m", "cqr.cli", "train", "--features", str(features), "--device", "cpu"]
    for name, value in settings.items():
        words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return words + [part for option in options for part in ("--set", option)]


def assert_equal_weights(together, one):
    got, expected = load_file(together.weights), load_file(one.weights)
    assert got.keys() == expected.keys()
    for name in expected:
        if name.endswith("key.bias"):
            continue  # the same to all scores: its gradient is rounding, which Adam follows
        torch.testing.assert_close(got[name], expected[name], rtol=1e-3, atol=1e-4)


def test_all_that_looks_at_a_whole_batch_sees_the_whole_batch(drawn_scenes, tmp_path):
    """Batch norms, losses of the model's own, negatives that are drawn: TIRG in both modules."""
    features = drawn_scenes()
    settings = {"model": "tirg", "loss": "soft-triplet-sampled", "learners": 2, "snr": True}
    settings |= {"input": "regions", "epochs": 2, "batch": 16, "warmup": 5, "select": "last"}
    settings |= {"muon_lr": 0.0}  # which makes a step of rounding, too
    one = cqr.train(features, options=TIRG, device="cpu", progress=False, **settings)
    place = tmp_path / "two"
    place.mkdir()
    words = command(features, settings, TIRG)
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Wrote") == 1
    [together] = runs.all_runs(place / "artifacts/runs")
    # Of weights, the biases before a batch norm have no gradient but rounding, which Adam follows.
    assert len(losses(one)[0]) == 4
    torch.testing.assert_close(losses(together), losses(one), rtol=0, atol=1e-4)
    kept = {file.name for file in one.path.iterdir()}
    assert {file.name for file in together.path.iterdir()} == kept


@pytest.mark.timeout(900)  # three starts of torch, of which each takes a minute on a busy machine
def test_a_stop_is_agreed_upon_and_the_same_command_goes_on(drawn_scenes, tmp_path):
    features = drawn_scenes()
    settings = {"epochs": 6, "batch": 16, "warmup": 5, "validation": 0.2, "muon_lr": 0.0}
    settings |= {"reorder": 0.5}
    one = cqr.train(features, options=LBF, device="cpu", progress=False, **settings)
    place = tmp_path / "two"
    place.mkdir()
    words = command(features, settings, LBF)
    process = subprocess.Popen(words, cwd=place, stderr=subprocess.PIPE, text=True)
    run = place / "artifacts/runs" / one.path.name
    while not (run / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode != 0
    assert "Interrupted: what was finished is kept" in errors
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    [together] = runs.all_runs(place / "artifacts/runs")
    torch.testing.assert_close(losses(together), losses(one), rtol=0, atol=1e-4)
    assert_equal_weights(together, one)
    scores = [[line["score"] for line in r.history()] for r in (together, one)]
    assert scores[0] == scores[1]


def test_norms_and_gradients_of_rows_divided_unevenly(tmp_path):
    """Without torchrun, which takes as long to start as each of the two."""
    words = [sys.executable, SHARED / "shared_norm.py", tmp_path / "here they meet"]
    both = [
        subprocess.Popen([*words, rank], stderr=subprocess.PIPE, text=True) for rank in ("0", "1")
    ]
    try:
        said = [process.communicate(timeout=120)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0], said
    finally:
        for process in both:
            process.kill()


def test_what_cannot_be_divided_is_refused(drawn_scenes, monkeypatch):
    with pytest.raises(UserError, match=r"a batch of 15 queries .* give --batch 14 or"):
        check_divisible(15, 2)
    features = drawn_scenes()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="likeness is not trained: run it once, without torchrun"):
        cqr.train(features, model="likeness", progress=False)
