"""What is done otherwise where the network is on a GPU, on a CPU against what is done there."""

import dataclasses
import random
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.errors import UserError
from cqr.pipeline import assembly, compute
from cqr.pipeline import extract as extraction
from cqr.pipeline.detectors import DetectorSpec, runtimes, selection
from cqr.pipeline.detectors.regional import RegionDetector, interpolated, interpolated_there
from cqr.pipeline.detectors.selection import Candidates, Selection, select
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.feature_file import open_features
from cqr.scenes import draw, protocol
from cqr.scenes.arrange import arrange
from fake_detector import FakeDetector, FakeSpec, picture_files
from tiny_backbones import tiny_clip

torch.set_num_threads(1)

CPU = torch.device("cpu")
RULES = (Selection(), Selection((0.5,), (0.05,)), Selection((0.3, 0.6), (0.2, 0.1, 0.0)))


def found(seed, n):
    """Overlapping boxes, some of no size or no number, of few scores."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(-4, 28, (n, 2))
    boxes = np.concatenate([corners, corners + rng.integers(0, 20, (n, 2))], 1).astype(np.float32)
    boxes[rng.random(n) < 0.1] = np.nan
    scores = rng.choice([0.0, 0.01, 0.02, 0.06, 0.3, 0.9], n).astype(np.float32)
    return Candidates(*map(torch.from_numpy, (boxes, rng.integers(0, 3, n), scores)))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 60)), min_size=1, max_size=4),
    st.integers(1, 20),
    st.sampled_from(RULES),
    st.sampled_from([1, 5, 30, 2048]),
)
def test_the_best_are_enough_or_all_are_asked(draws, k, rule, best):
    pictures = [found(*draw) for draw in draws]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "BEST", best)
        got = selection._select_from_best(pictures, (40, 30), k, rule)
    for (boxes, scores), one in zip(got, pictures, strict=True):
        expected = select(one, (40, 30), k, rule)
        assert torch.equal(boxes, expected[0])
        assert torch.equal(scores, expected[1])


def test_the_best_spare_the_others(monkeypatch):
    """Where K are among them: else a test of equality would not see that all were asked."""
    monkeypatch.setattr(selection, "BEST", 30)
    monkeypatch.setattr(selection, "_whole", None)
    selection._select_from_best([found(1, 60), found(2, 60)], (40, 30), 3, Selection())


def test_what_pictures_have_in_common_is_selected_once(monkeypatch):
    one, calls = found(1, 20), []
    monkeypatch.setattr(selection, "select", lambda *given: calls.append(given) or "taken")
    assert selection.select_each([one] * 3, (40, 30), 5, Selection()) == ["taken"] * 3
    assert len(calls) == 1
    assert selection.select_each([], (40, 30), 5, Selection()) == []
    selection.select_each([one, found(2, 20)], (40, 30), 5, Selection())
    assert len(calls) == 3


def pictures_of(*shapes):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def test_pictures_of_several_sizes_are_resized_in_their_order():
    several = pictures_of((20, 30), (40, 60), (20, 30), (21, 30))
    got = interpolated_there(several, (24, 16), CPU)
    for one, picture in zip(got, several, strict=True):
        torch.testing.assert_close(one, interpolated(picture, (24, 16)))


@pytest.mark.parametrize(
    ("name", "way"), [("grid", "prepared"), ("bundled", "prepared"), ("bundled", "there")]
)
def test_what_threads_prepare_is_what_a_detector_would(monkeypatch, name, way):
    detector = DetectorSpec(name, device="cpu").load()
    assert detector.prepare is None  # there is no other device that would wait
    pictures = pictures_of((48, 64), (96, 128))
    expected = detector(pictures, 4)
    if way == "there":
        assert detector.backend.resize is interpolated  # by torch, which a GPU has too
        monkeypatch.setattr(RegionDetector, "_there", True)
        got = detector(pictures, 4)
    else:
        got = detector(pictures, 4, [detector._resized(picture) for picture in pictures])
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a.features, b.features, atol=1e-4)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)


def contents(job):
    extract(job)
    file = open_features(job.out)
    return [(block.paths, block.arrays) for block in file.blocks()]


def assert_same(one, two):
    for (paths, arrays), (others, expected) in zip(one, two, strict=True):
        assert paths == others
        for name in expected:
            np.testing.assert_array_equal(arrays[name], expected[name])


def test_readers_prepare_pictures(tmp_path, monkeypatch):
    """Also those that cannot be: the detector says so of the others' company."""
    picture_files(tmp_path / "pictures", 12)
    plain = Job(tmp_path / "pictures", tmp_path / "plain.h5", 4, FakeSpec(), shard=5, workers=1)
    expected = contents(plain)
    asked, prepared = [], []

    def prepare(self, picture):
        prepared.append(picture.shape)
        if len(prepared) == 3:
            raise ValueError("not this one")
        return torch.from_numpy(picture)

    real = FakeDetector.__call__

    def call(self, pictures, k, prepared=None):
        asked.append(prepared is not None)
        for one, picture in zip(prepared or pictures, pictures, strict=True):
            np.testing.assert_array_equal(one, picture)
        return real(self, pictures, k)

    monkeypatch.setattr(FakeDetector, "prepare", property(lambda self: lambda p: prepare(self, p)))
    monkeypatch.setattr(FakeDetector, "__call__", call)
    assert_same(contents(dataclasses.replace(plain, out=tmp_path / "prepared.h5")), expected)
    assert len(prepared) == 12
    assert {True, False} == set(asked)


@pytest.mark.parametrize("fails", [None, 1, 3])
def test_a_shard_is_written_while_the_next_is_computed(tmp_path, monkeypatch, fails):
    """Or fails to be, which is said no later than at the end, the others being kept."""
    picture_files(tmp_path / "pictures", 12)
    plain = Job(tmp_path / "pictures", tmp_path / "plain.h5", 4, FakeSpec(), shard=3, workers=1)
    expected = contents(plain)
    real, threads, writes = assembly.Task.write, set(), []

    def write(self, *given):
        threads.add(threading.current_thread() is threading.main_thread())
        writes.append(self.file.name)
        if len(writes) == fails:
            raise UserError("no room")
        real(self, *given)

    monkeypatch.setattr(assembly.Task, "write", write)
    monkeypatch.setattr(
        extraction, "Pace", lambda *given, **named: compute.Pace(*given, beside=True)
    )
    beside = dataclasses.replace(plain, out=tmp_path / "beside.h5")
    if fails:
        with pytest.raises(UserError, match="no room"):
            extract(beside)
        assert len(writes) < len(expected) + fails
        monkeypatch.setattr(assembly.Task, "write", real)
    assert_same(contents(beside), expected)
    assert threads == {False}


def test_workers_write_beside_their_work(tmp_path):
    picture_files(tmp_path / "pictures", 12)
    plain = Job(tmp_path / "pictures", tmp_path / "plain.h5", 4, FakeSpec(), shard=3, workers=1)
    expected = contents(plain)
    out = tmp_path / "beside.h5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extraction, "Pace", lambda *given, **named: compute.Pace(*given, beside=True))
        assert_same(contents(dataclasses.replace(plain, out=out, workers=2)), expected)


# 16 bits


def cosines(one, two):
    return (one * two).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(two, axis=-1)


def specs(folder):
    return [
        DetectorSpec("grid", device="cpu"),
        DetectorSpec("transformers", str(tiny_clip(folder)), device="cpu"),
        DetectorSpec("transformers", str(folder), device="cpu", regions="crops"),
    ]


def test_features_of_16_bits_point_where_those_of_32_do(tmp_path):
    for spec in specs(tmp_path / "clip"):
        exact, half = spec.load(), spec.load()
        runtimes.halve(half)
        assert half.identity == {**exact.identity, "runtime": "fp16"}
        for a, b in zip(*(each(pictures_of((60, 90), (60, 90)), 4) for each in (exact, half)),
                        strict=True):  # fmt: skip
            np.testing.assert_array_equal(a.boxes, b.boxes)
            assert not np.array_equal(a.features, b.features)
            assert cosines(a.features, b.features).min() > 0.999
            assert cosines(a.whole, b.whole) > 0.999
            assert b.features.dtype == np.float32


def test_boxes_of_16_bits_are_those_of_32():
    exact, half = (DetectorSpec("bundled", device="cpu").load() for _ in range(2))
    runtimes.halve(half)
    rng = random.Random(3)
    scenes = [protocol.reference(protocol.pairs("train"), rng) for _ in range(3)]
    drawn = [np.asarray(draw.draw(arrange(scene, rng))) for scene in scenes]
    for a, b in zip(exact(drawn, 9), half(drawn, 9), strict=True):
        assert a.count == b.count > 1
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.5)
        assert cosines(a.features[: a.count], b.features[: a.count]).min() > 0.999


def test_what_16_bits_cannot_hold_says_so():
    detector = DetectorSpec("grid", device="cpu").load()
    network = detector.backend._encoder.network
    runtimes.halve(detector)
    network.forward_features = lambda pixels: torch.full((len(pixels), 1280, 7, 7), torch.inf)
    with pytest.raises(UserError, match="16 bits may be too few for it: leave out --runtime fp16"):
        detector(pictures_of((60, 60)), 4)


def test_16_bits_are_for_a_gpu():
    detector = DetectorSpec("grid", device="cpu").load()
    with pytest.raises(UserError, match="--runtime fp16 runs on a GPU, not on a CPU: leave it out"):
        runtimes.run_by("fp16", detector)
    with pytest.raises(UserError, match="--runtime fp16 cannot run fake, torch alone can"):
        runtimes.run_by("fp16", FakeDetector(None))
    assert "runtime" not in detector.identity
