"""--detector auto: which detector, why, and a warning for each step down."""

import json
import pickle

import pytest
import torch

from cqr.errors import UserError
from cqr.pipeline.detectors import DetectorSpec, choose, detectron2, download
from cqr.pipeline.detectors.download import Source

FPN = "COCO-Detection/faster_rcnn_R_50_FPN_3x"


@pytest.fixture
def world(monkeypatch, tmp_path):
    """No net, nothing cached, no detectron2; a test switches on what it needs."""

    class World:
        hub = tmp_path / "hub"
        asked: list[str] = []  # noqa: RUF012 - one world a test

        def set(self, *, net=(), detectron2_problem=None):
            def reachable(url, seconds=3.0):
                self.asked.append(url)
                return any(host in url for host in net)

            monkeypatch.setattr(download, "reachable", reachable)
            monkeypatch.setattr(detectron2, "problem", lambda: detectron2_problem)

    World.asked = []
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(World.hub))
    zoo = Source("https://dl.fbaipublicfiles.com/m.pkl", tmp_path / "zoo" / "m.pkl")
    monkeypatch.setattr(detectron2, "source", lambda config: zoo)
    world = World()
    world.set(detectron2_problem="detectron2 is not installed")
    return world


def scenes(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenes.json").write_text(content)


@pytest.mark.parametrize("below", ["", "images"])
def test_generated_scenes_get_the_bundled_detector(world, tmp_path, below):
    scenes(tmp_path / "made", json.dumps({"format": "cqr-scenes", "version": 1}))
    (tmp_path / "made" / "images").mkdir()
    choice = choose(tmp_path / "made" / below, "cpu")
    assert choice.spec == DetectorSpec("bundled", device="cpu")
    assert "scenes.json" in choice.reason
    assert choice.warning is None
    assert world.asked == []


@pytest.mark.parametrize("content", ['{"format": "other"}', "[]", "{", "", "\x00", '"cqr-scenes"'])
def test_other_files_of_that_name_are_no_scenes(world, tmp_path, content):
    scenes(tmp_path / "made", content)
    assert choose(tmp_path / "made").spec.name == "grid"


def test_detectron2_before_torchvision(world, tmp_path):
    world.set(net=["fbaipublicfiles", "pytorch.org"])
    choice = choose(tmp_path)
    assert (choice.spec.name, choice.warning) == ("detectron2", None)
    world.set(net=["pytorch.org"])
    choice = choose(tmp_path)
    assert (choice.spec.name, choice.warning) == ("torchvision", None)


def test_weights_at_hand_need_no_net(world, tmp_path):
    cached = world.hub / "checkpoints" / "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    choice = choose(tmp_path)
    assert choice.spec.name == "torchvision"
    assert str(cached) in choice.reason
    assert world.asked == []


def test_the_last_step_down_says_all(world, tmp_path):
    choice = choose(tmp_path)
    assert choice.spec == DetectorSpec("grid")
    for part in ("not objects", "detectron2 is not installed", "https://download.pytorch.org"):
        assert part in choice.warning
    for flag in ("--detector torchvision", "--weights FILE", "--detector grid"):
        assert flag in choice.warning


def test_a_spec_goes_to_another_process():
    spec = DetectorSpec("torchvision", FPN, device="cuda:1")
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_detectron2_absent_is_one_sentence(monkeypatch):
    monkeypatch.setattr(detectron2.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"not installed; see https://detectron2\.readthedocs\.io"):
        DetectorSpec("detectron2", device="cpu").load()


def test_detectron2_broken_is_one_sentence(monkeypatch):
    def broken(name):
        raise ImportError("undefined symbol: _ZN3c10\n  in _C.so")

    monkeypatch.setattr(detectron2.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(detectron2.importlib, "import_module", broken)
    assert detectron2.problem() == (
        "detectron2 cannot be imported (undefined symbol: _ZN3c10 in _C.so)"
    )
