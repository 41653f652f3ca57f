"""Checksums of feature files: any damage is seen, and none keeps HDF5 busy."""

import random
import shutil
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from cqr.errors import UserError
from cqr.pipeline import sums
from cqr.pipeline.examine import examine
from cqr.pipeline.feature_file import open_features

CASES = Path(__file__).parents[1] / "cases"


@pytest.fixture
def file(tmp_path, write_features):
    rng = np.random.default_rng(0)
    names = [f"{i:02d}.png" for i in range(12)]
    features = rng.normal(size=(12, 3, 40))
    return write_features(
        tmp_path / "f.h5", names, features, np.tile([1, 2, 30, 40], (12, 3, 1)), shard_size=6
    )


def seen(file):
    """Whether damage is said, by a refusal or a problem."""
    try:
        return examine(open_features(file)).problems != []
    except UserError as error:
        return "damaged" in str(error) or "is truncated or no feature file" in str(error)


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 0x10
    path.write_bytes(content)


def test_a_whole_file_has_no_damage(file):
    opened = open_features(file, verify=True)
    assert opened.damage() == []
    assert examine(opened).problems == []
    held = sums.Sums.read(opened.shards[0].path)
    assert {"regions/features", "whole/features", "regions/boxes"} <= held.arrays.keys()


@pytest.mark.parametrize("name", ["regions/features", "whole/features", "regions/scores"])
def test_a_flipped_bit_of_an_array_is_seen_by_inspect_and_on_request(file, name):
    shard = open_features(file).shards[1]
    flip(shard.path, shard.offsets[name] + 1)
    opened = open_features(file)  # values are not read
    problems = examine(opened).problems
    assert f"{name} of 00001.h5 is damaged (its checksum is another)" in problems
    with pytest.raises(UserError, match=rf"{name} of 00001.h5 is damaged .* --overwrite"):
        open_features(file, verify=True)


def test_a_flipped_bit_anywhere_is_seen(file):
    shard = open_features(file).shards[0].path
    rng = random.Random(0)
    for path in (file, shard):
        whole = path.read_bytes()
        places = [*range(0, 100, 7), *rng.sample(range(len(whole)), 40), *range(-20, 0, 3)]
        for at in places:
            flip(path, at)
            assert seen(file), at
            path.write_bytes(whole)


def test_a_file_that_was_written_to_is_said_to_have_lost_them(file):
    shard = open_features(file).shards[0].path
    with h5py.File(shard, "a") as content:
        content.attrs["more"] = 1
    assert examine(open_features(file)).problems == [
        "00000.h5 has lost its checksums: it was written to since"
    ]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_that_is_cut_off_is_told_by_its_size(tmp_path, libver):
    with h5py.File(tmp_path / "f.h5", "w", libver=libver) as content:
        content["a"] = np.arange(1000)
    sums.check(tmp_path / "f.h5")  # whole, and without checksums
    whole = (tmp_path / "f.h5").read_bytes()
    (tmp_path / "f.h5").write_bytes(whole[:-1])
    with pytest.raises(sums.Damaged, match=f"it has {len(whole) - 1:,} of {len(whole):,} bytes"):
        sums.check(tmp_path / "f.h5")


@pytest.mark.parametrize("case", ["features-218.bin", "features-51.bin"])
def test_a_damaged_file_of_version_1_is_one_sentence_in_bounded_time(tmp_path, case):
    """HDF5 takes a minute of CPU to open either."""
    shutil.copy(CASES / case, tmp_path / "f.h5")
    start = time.process_time()
    with pytest.raises(
        UserError,
        match=r"f.h5 is truncated or .*(does not come to an end|are cut off).*: cqr extract",
    ):
        open_features(tmp_path / "f.h5")
    assert time.process_time() - start < 2  # the other process had its own limit


def test_many_damaged_shards_are_not_all_tried(tmp_path):
    paths = [tmp_path / f"{i}.h5" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes((CASES / "features-51.bin").read_bytes() + bytes(i))
    outcomes = sums._outcomes(paths)
    assert list(outcomes) == paths
    assert all(outcomes.values())
    assert sum("does not come to an end" in said for said in outcomes.values()) == sums.HOPELESS
