"""Networks computed by other libraries: the numbers of PyTorch, or one sentence."""

import importlib.util
import json
import random
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from cqr.errors import UserError
from cqr.pipeline.detectors import DetectorSpec, runtimes
from cqr.pipeline.extract import Job, extract
from cqr.pipeline.feature_file import open_features
from cqr.scenes import draw, protocol
from cqr.scenes.arrange import arrange
from cqr.search import pictures
from fake_detector import FakeDetector

torch.set_num_threads(1)

K = 9
INSTALLED = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(
            not all(map(importlib.util.find_spec, packages)),
            reason=f"pip install 'cqr[{runtimes.EXTRAS[name]}]'",
        ),
    )
    for name, packages in runtimes.PACKAGES.items()
]


def drawings():
    rng = random.Random(3)
    scenes = [protocol.reference(protocol.pairs("train"), rng) for _ in range(3)]
    return [np.asarray(draw.draw(arrange(scene, rng))) for scene in scenes]


def noises():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), np.uint8) for w, h in ((90, 60), (60, 90), (80, 80))]


@pytest.mark.parametrize("runtime", INSTALLED)
@pytest.mark.parametrize(("name", "seen"), [("grid", noises), ("bundled", drawings)])
def test_numbers_are_those_of_torch(runtime, name, seen):
    eager = DetectorSpec(name, device="cpu").load()
    other = DetectorSpec(name, device="cpu", runtime=runtime).load()
    assert other.identity == {**eager.identity, "runtime": runtime}
    assert "runtime" not in eager.identity
    for picture in (*seen(), *noises()):
        (expected,), (found,) = eager([picture], K), other([picture], K)
        assert found.count == expected.count
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)
        np.testing.assert_allclose(found.features, expected.features, atol=1e-3)
        np.testing.assert_allclose(found.whole, expected.whole, atol=1e-3)


@pytest.mark.parametrize("runtime", INSTALLED)
def test_a_batch_changes_no_number(runtime):
    detector = DetectorSpec("grid", device="cpu", runtime=runtime).load()
    batch = [noises()[0], noises()[0][::-1].copy()]
    for picture, together in zip(batch, detector(batch, K), strict=True):
        (alone,) = detector([picture], K)
        np.testing.assert_array_equal(alone.features, together.features)


INTERRUPTED = """
import gc, signal, sys
import numpy as np
from cqr.pipeline.detectors import DetectorSpec

picture = np.zeros((60, 90, 3), np.uint8)
made = [DetectorSpec("grid", device="cpu", runtime=sys.argv[1]).load() for _ in range(2)]
for one in made:
    one([picture], 9)
del one
while made:  # the first that was made goes first
    del made[0]
gc.collect()
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.parametrize("runtime", INSTALLED)
def test_a_process_can_be_interrupted_when_its_detectors_are_gone(runtime):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, runtime], capture_output=True, text=True, timeout=200
    )
    assert (done.returncode, done.stdout.strip()) == (0, "interrupted"), done.stderr[-500:]


def without(monkeypatch, *absent):
    real = runtimes.importlib.import_module

    def import_module(name):
        if name in absent:
            raise ImportError(name)
        return real(name)

    fake = SimpleNamespace(import_module=import_module)
    monkeypatch.setattr(runtimes, "importlib", fake)


class Backend:
    """One that another runtime could compute; how often it was asked to is kept."""

    def __init__(self, device="cpu"):
        self.device = torch.device(device)
        self.converted = []

    def convert(self, convert):
        self.converted.append(convert)


def detector(device="cpu"):
    return SimpleNamespace(backend=Backend(device), identity={"name": "grid", "config": "x"})


@pytest.mark.parametrize(
    ("absent", "expected"),
    [
        ((), "openvino"),
        (("openvino",), "onnxruntime"),
        (("openvino", "onnx"), "torch"),
        (("openvino", "onnxruntime"), "torch"),
    ],
)
def test_auto_takes_the_fastest_that_is_there(monkeypatch, absent, expected):
    there = {"openvino", "onnxruntime", "onnx"} - set(absent)
    fake = SimpleNamespace(import_module=lambda name: {name: 1}[name] if name in there else 1 / 0)
    monkeypatch.setattr(runtimes, "importlib", fake)
    assert runtimes.settled("auto", detector(), runtimes.FEW, None) == expected


def test_auto_is_torch_where_nothing_is_gained():
    assert runtimes.settled("auto", detector(), runtimes.FEW - 1, None) == "torch"
    assert runtimes.settled("auto", detector("cuda"), 10**6, None) == "torch"
    assert runtimes.settled("auto", FakeDetector(None), 10**6, None) == "torch"


def test_auto_goes_on_as_it_was_begun():
    assert runtimes.settled("auto", detector(), 10**6, {"name": "grid"}) == "torch"
    begun = {"name": "grid", "runtime": "onnxruntime"}
    assert runtimes.settled("auto", detector(), 1, begun) == "onnxruntime"
    assert runtimes.settled("torch", detector(), 1, begun) == "torch"  # the plan refuses it


def sentence(runtime, detector):
    with pytest.raises(UserError) as caught:
        runtimes.run_by(runtime, detector)
    assert "runtime" not in detector.identity
    return str(caught.value)


def test_what_cannot_be_is_one_sentence(monkeypatch):
    with pytest.raises(UserError, match=r"no runtime is named tvm; choose --runtime from auto, t"):
        runtimes.settled("tvm", detector(), 1, None)
    assert sentence("openvino", FakeDetector("other")) == (
        "--runtime openvino cannot run fake/other, torch alone can: leave it out"
    )
    assert "runs on a CPU, not on cuda: add --device cpu" in sentence("openvino", detector("cuda"))
    without(monkeypatch, "openvino", "onnx")
    assert sentence("openvino", detector()) == (
        "--runtime openvino needs openvino, which cannot be imported here: pip install 'cqr[cpu]'"
    )
    assert sentence("onnxruntime", detector()).endswith("pip install 'cqr[onnx]'")


def test_a_runtime_that_computes_other_numbers_is_refused(monkeypatch):
    def off(module, example):
        return lambda picture: [tensor.numpy() + 0.02 for tensor in module(torch.tensor(picture))]

    monkeypatch.setattr(runtimes, "_absent", lambda runtime: "")
    monkeypatch.setattr(runtimes, "_openvino", off)
    spoilt = DetectorSpec("grid", device="cpu", runtime="openvino").load()
    with pytest.raises(UserError, match=r"openvino computes other numbers .* --runtime torch"):
        spoilt(noises()[:1], K)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Two pictures, and room for more; a stand-in for OpenVINO that needs no library."""

    def eager(module, example):
        return lambda picture: [tensor.numpy() for tensor in module(torch.tensor(picture))]

    monkeypatch.setattr(runtimes, "_absent", lambda runtime: "")
    monkeypatch.setattr(runtimes, "_openvino", eager)
    monkeypatch.setattr(runtimes, "FEW", 2)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i, pixels in enumerate(noises()[:2]):
        Image.fromarray(pixels).save(folder / f"{i}.png")
    spec = DetectorSpec("grid", device="cpu")
    return Job(folder, tmp_path / "x.h5", K, spec, workers=1)


def add_picture(job):
    Image.fromarray(noises()[2]).save(job.folder / "2.png")


def test_a_file_that_is_continued_keeps_its_runtime(job):
    extract(replace(job, runtime="torch"))
    assert "runtime" not in open_features(job.out).detector
    add_picture(job)
    with pytest.raises(UserError, match=r"with other settings \(runtime differ\)"):
        extract(replace(job, runtime="openvino"))
    assert extract(job).kept == 2
    assert "runtime" not in open_features(job.out).detector

    extract(replace(job, overwrite=True))  # three: auto takes the faster one now
    file = open_features(job.out)
    assert file.detector["runtime"] == "openvino"
    assert file.header.command.endswith("--runtime openvino")
    assert extract(job).kept == 3
    with pytest.raises(UserError, match=r"with other settings \(runtime differ\)"):
        extract(replace(job, runtime="torch"))


def test_a_continued_file_asks_for_the_runtime_that_it_was_begun_with(job, monkeypatch):
    extract(job)
    monkeypatch.setattr(runtimes, "_absent", lambda runtime: "openvino")
    add_picture(job)
    with pytest.raises(UserError, match=r"pip install 'cqr\[cpu\]'"):
        extract(job)


def test_a_search_needs_no_runtime(job, monkeypatch):
    extract(job)
    file = open_features(job.out)
    assert file.detector["runtime"] == "openvino"
    monkeypatch.setattr(runtimes, "_absent", lambda runtime: "openvino")
    found = pictures.detector(file)
    assert json.loads(json.dumps(found.identity)) == {
        key: value for key, value in file.detector.items() if key != "runtime"
    }
    (regions,) = found(noises()[:1], K)
    np.testing.assert_allclose(file.regions("0.png").features, regions.features, atol=4e-3)


def test_a_file_from_before_large_jpegs_were_scaled_goes_on_without(job, tmp_path):
    spec = replace(job.detector, scaled=False)
    before = spec.load().identity
    assert "jpeg" not in before
    old = replace(job, runtime="torch")
    extract(old)
    plan = tmp_path / "x.shards" / "plan.json"
    content = json.loads(plan.read_text())
    assert content["header"]["detector"].pop("jpeg") == {"margin": 3}
    plan.write_text(json.dumps(content))  # shards of another set are computed again
    add_picture(job)
    extract(old)
    assert open_features(job.out).detector == json.loads(json.dumps(before))
    assert pictures.detector(open_features(job.out)).fraction(4032, 3024) == 1
