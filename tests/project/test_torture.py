"""A short part of `make torture`: kills and failing writes in `cqr import`, by a seed."""

import random
import shutil

import numpy as np
import pytest

import torture
from cqr.pipeline.exports import export
from cqr.pipeline.feature_file import open_features

IMPORT = torture.STAGES["import"]


@pytest.fixture
def places(tmp_path, write_features):
    base, scratch = tmp_path / "base", tmp_path / "scratch"
    base.mkdir()
    scratch.mkdir()
    paths = [f"{i}.png" for i in range(6)]
    numbers = np.random.default_rng(0).random((6, 9, 8), np.float32)
    boxes = np.concatenate([numbers[..., :2], 100 + numbers[..., 2:4]], -1)
    file = open_features(write_features(tmp_path / "x.h5", paths, numbers, boxes))
    export(file, base / "exported", "npz", lambda *_: None)
    return base, scratch


def test_nothing_is_lost_by_kills(places):
    assert torture.killed(IMPORT, *places, kills=3, rng=random.Random(0)) == []


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler; kills are tried above")
def test_nothing_is_lost_by_writes_that_fail(places):
    found, stopped = torture.failed(IMPORT, *places, number=6, rng=random.Random(0))
    assert found == []
    assert stopped >= 4  # else the faults were none
