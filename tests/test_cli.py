"""The commands as a user types them: help that teaches, errors that say what to do."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import typer

import command_line
from cqr.commands import choices, trainer
from cqr.pipeline import detectors, exports
from cqr.trainer.datasets import recognise
from cqr.trainer.training.settings import Settings

COMMANDS = (
    "scenes", "extract", "import", "export", "inspect", "data", "train", "evaluate",
    "compare", "submit", "index", "search", "serve",
)  # fmt: skip


PLAIN = {"COLUMNS": "100", "NO_COLOR": "1"}


def process(*words, **environment):
    return subprocess.run(
        [sys.executable, "-m", "cqr.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **PLAIN, **environment},
        timeout=120,
    )


def cqr(*words, **environment):
    return command_line.cqr(*words, **PLAIN | environment)


def test_the_version_is_that_of_the_package():
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"cqr {version('cqr')}\n")


def test_names_that_a_terminal_cannot_write_are_written_otherwise(tmp_path, write_features):
    boxes = [[[0, 0, 5, 5]]]
    file = write_features(tmp_path / "caf\u00e9.h5", ["a.png"], np.ones((1, 1, 4)), boxes)
    done = process("inspect", file, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "caf\\xe9.h5" in done.stdout.replace("\n", "")


def test_help_lists_every_command():
    done = process("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert re.search(rf"│ {name} ", done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_says_what_it_reads_and_writes_with_an_example(name):
    done = cqr(name, "--help")
    assert done.returncode == 0
    for word in ("Reads", "Writes", f"Example: cqr {name} "):
        assert word in re.sub(r"\s+", " ", done.stdout + " ").replace("writes", "Writes")
    assert "<bool>" not in done.stdout  # a flag takes no value


def test_the_defaults_in_the_help_are_those_of_the_settings():
    shown = {}
    for name, parameter in inspect.signature(trainer.train).parameters.items():
        for option in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(option, typer.models.OptionInfo) and isinstance(option.show_default, str):
                shown[name] = option.show_default
    settings = {f.name: f.default for f in dataclasses.fields(Settings)} | {
        "k": "all",
        "text_encoder": "none",
        "snr": "off",
    }
    del shown["as_"], shown["precision"]  # no settings
    assert shown == {name: str(settings[name]) for name in shown}
    assert set(shown) == {f.name for f in dataclasses.fields(Settings)} - {"options"}


NO_FILE = "no feature file a.h5; make it with: cqr extract --images DIR --out a.h5"


@pytest.mark.parametrize(
    ("line", "sentence", "by"),
    [
        (
            "evaluate",
            "there is no run in artifacts/runs yet: train one with `cqr train --features FILE`",
            process,
        ),
        ("evaluate --run x", "x is not a run (it has no run.json): see . for runs", cqr),
        ("train --features a.h5", NO_FILE, cqr),
        ("inspect a.h5", NO_FILE, cqr),
        ("extract --images x", "x does not exist; name a folder of pictures with --images", cqr),
    ],
)
def test_what_a_user_can_cause_is_one_sentence(line, sentence, by):
    done = by(*line.split())
    assert done.returncode == 1
    assert done.stderr == f"Error: {sentence}\n"
    assert done.stdout == ""


def test_the_choices_that_are_offered_are_those_there_are():
    assert set(choices.DetectorName) == {"auto", *detectors.NAMES}
    assert tuple(choices.DataSetName) == recognise.NAMES
    assert tuple(choices.Format) == exports.FORMATS


@pytest.mark.parametrize(
    "line",
    [
        "train --features a.h5 --model lfb",
        "train --features a.h5 --as photos",
        "extract --images x --detector coco",
        "export a.h5 --format csv",
    ],
)
def test_a_choice_that_is_none_is_answered_with_those_there_are(line):
    done = cqr(*line.split(), COLUMNS="200")
    assert done.returncode == 2
    known = {"--model": "'lbf'", "--as": "'css'", "--detector": "'grid'", "--format": "'parquet'"}
    assert known[line.split()[-2]] in done.stderr


def test_what_matters_first_is_shown_first():
    text = cqr("train", "--help").stdout
    panels = re.split(r"╭─ ", text)[1:]
    assert [panel.split(" ─")[0] for panel in panels] == [
        "Options", "The model", "Around the model: ABE and SNR", "Learning", "The data",
        "This machine",
    ]  # fmt: skip
    shown = re.findall(r"--[\w-]+(?= )", panels[0])
    assert shown[:6] == ["--features", "--data", "--model", "--start", "--epochs", "--seed"]
    assert not re.search(r"\b(TEXT|PATH|INTEGER|FLOAT)\b|<(text|path|int|float)", text)


def test_an_unknown_option_is_a_usage_error():
    done = cqr("train", "--feature", "a.h5")
    assert done.returncode == 2
    assert "No such option" in done.stderr


def test_train_and_evaluate_as_typed(drawn_scenes):
    features = drawn_scenes()
    options = ["--epochs", 2, "--set", "width=32", "--set", "embed_dim=32", "--device", "cpu"]
    options += ["--max-words", 4, "--reorder", 0.25]
    done = process("train", "--features", features, *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Wrote artifacts/runs/css-lbf-001\nNext: cqr evaluate\n"
    what, how, *more = done.stderr.splitlines()
    assert what.startswith("Data set  css: 72 train, 72 test queries; 84 images")
    assert how.startswith("Run       artifacts/runs/css-lbf-001: lbf, 2 epochs, seed 0")
    assert not any(line.startswith(("Protocol", "Model")) for line in more)
    assert "6 queries to choose the epoch by, which know R@k within 41 points" in done.stderr
    assert "texts are cut, being longer than the 4 words that the model reads" in done.stderr
    done = cqr("evaluate", "--text-encoder", "x")
    why = "artifacts/runs/css-lbf-001 was trained without one; leave it out"
    assert done.stderr == f"Error: --text-encoder x: {why}\n"
    done = cqr("evaluate", "--device", "cpu", "-v")  # by a process: tests/report/test_report.py
    assert done.returncode == 0, done.stderr
    assert "the reference is removed from it" in done.stderr
    assert "Texts     25% of an epoch's with two runs of words exchanged\n" in done.stderr
    rates = "Rates     0.002 by AdamW, of linear maps 0.012 by Muon; weight decay 0.01\n"
    assert rates in done.stderr
    assert re.search(r"│ 95 % interval +│ +│ +\d+\.\d to \d+\.\d │", done.stdout)
    assert re.search(r"│ lbf +│ +72 │", done.stdout)
    assert re.search(r"│ chance ", done.stdout)
    assert "Wrote artifacts/runs/css-lbf-001/evaluation/metrics.json" in done.stdout
