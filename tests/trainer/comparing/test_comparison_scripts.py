"""Every row that a script of benchmarks/comparison/ would train is one that can be trained."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cqr.trainer.comparing import rows
from cqr.trainer.datasets.readers.css import CROWDED, GENERATED

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = sorted((ROOT / "benchmarks" / "comparison").glob("*.sh"))
STUB = f"""#!{sys.executable} -S
import json, os, pathlib, sys
name, words = pathlib.Path(sys.argv[0]).name, sys.argv[1:]
if name == "python" and words[0].endswith("trials.py"):
    os.execv({sys.executable!r}, [{sys.executable!r}, *words])
if name == "cqr":
    with open(os.environ["CALLS"], "a") as log:
        log.write(json.dumps(words) + "\\n")
    if words[0] == "data":
        pathlib.Path(words[-1]).touch()  # --list FILE
"""


def calls(script, folder):
    """The words of each `cqr` that a script calls, where nothing is done by any of them."""
    programs = folder / "programs"
    programs.mkdir()
    for name in ("cqr", "python"):
        (programs / name).write_text(STUB)
        (programs / name).chmod(0o755)
    compared = folder / "worlds" / "artifacts" / "comparisons"
    for name, file in {"tuning": "development", "tuning-muon": "development-muon"}.items():
        (compared / name).mkdir(parents=True)
        tried = ROOT / "docs" / "results" / f"{file}.parquet"
        shutil.copy(tried, compared / name / "runs.parquet")
    known = {"PATH": f"{programs}:{os.environ['PATH']}", "CALLS": str(folder / "calls")}
    words = ["sh", str(script), str(folder / "worlds")]
    done = subprocess.run(
        words, env=os.environ | known, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


def given(call, flag):
    return [call[i + 1] for i, word in enumerate(call) if word == flag]


def settled(call):
    """What each row of a call of `cqr compare` is trained with, by its label."""
    shared = given(call, "--set")
    crowded = any(name in " ".join(call) for name in ("crowd", "more"))
    specs = rows.specs(given(call, "--models"))
    specs += [spec for typed in given(call, "--vary") for _, spec in rows.vary(specs[0], typed)[1]]
    return {spec: rows.settled(spec, shared, CROWDED if crowded else GENERATED) for spec in specs}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_rows_can_be_trained(script, tmp_path):
    if script.name == "test_a_tune.sh":
        (tmp_path / "worlds").mkdir()
    compared = [call for call in calls(script, tmp_path) if call[0] == "compare"]
    assert bool(compared) == ("cqr compare" in script.read_text())
    for call in compared:
        assert settled(call)


RELATED = ("crowd-b-relations", "crowd-b-unlocated", "crowd-b-18")
AS_NOW = (*RELATED, "crowd-b-tuned", "crowd-b-texts", "crowd-b-muon")


@pytest.mark.parametrize("script", ["crowd.sh", "crowd_b.sh"])
def test_what_was_measured_before_is_not_trained_as_crowds_are_now(script, tmp_path):
    [path] = [path for path in SCRIPTS if path.name == script]
    for call in calls(path, tmp_path):
        if call[0] != "compare":
            continue
        name = Path(*given(call, "--out")).name
        for settings in settled(call).values():
            options = settings.options
            now = name in RELATED or settings.model != "lbf"
            assert now or not options["relations"]
            if name in AS_NOW:
                continue
            assert (settings.reorder, settings.muon_lr, options["tep_depth"]) == (0, 0, 1)
            assert options.get("fusion_depth", 3) <= 3
