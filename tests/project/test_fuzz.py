"""A short part of `make fuzz`: each format's control, and a few damaged files of it."""

import importlib.util
import random
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "campaigns" / "fuzz.py"
spec = importlib.util.spec_from_file_location("fuzz", SCRIPT)
fuzz = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fuzz)

NEEDS = {"graph": "faiss"}


@pytest.mark.parametrize("name", fuzz.FORMATS)
def test_damage_is_a_value_or_one_sentence(tmp_path, name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason="the rest of the formats is read without it")
    read = fuzz.FORMATS[name][1]
    path = fuzz.made(name, tmp_path)
    whole = path.read_bytes()
    assert fuzz.outcome(read, path) == "value"
    for seed in range(1 if name in fuzz.SLOW else 12):
        path.write_bytes(fuzz.damaged(whole, random.Random(f"{name} {seed}")))
        assert fuzz.outcome(read, path) in ("value", "sentence"), seed


def test_what_goes_wrong_is_told_from_what_is_refused(tmp_path):
    def fails(path):
        raise KeyError("x")

    assert fuzz.outcome(fails, tmp_path) == "raises KeyError: 'x'"


def test_damage_is_the_same_for_a_seed_and_changes_something():
    whole = bytes(range(256))
    contents = [fuzz.damaged(whole, random.Random(seed)) for seed in range(50)]
    assert contents == [fuzz.damaged(whole, random.Random(seed)) for seed in range(50)]
    assert sum(content != whole for content in contents) > 45
