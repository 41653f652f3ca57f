"""--detector auto: which detector, why, and a warning for each step down."""

import importlib.util
import json
import pickle

import huggingface_hub.constants
import pytest
import torch

import tiny_backbones
from cqr.errors import UserError
from cqr.pipeline.detectors import DetectorSpec, asked, choose, detectron2, download
from cqr.pipeline.detectors.download import Source

CLIP = "https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
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
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "models"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    world = World()
    world.set(detectron2_problem="detectron2 is not installed")
    return world


def scenes(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scenes.json").write_text(content)


@pytest.mark.parametrize("below", ["", "images"])
@pytest.mark.parametrize(
    ("said", "config"), [({}, None), ({"layout": "grid"}, None), ({"layout": "crowd"}, "crowd")]
)
def test_generated_scenes_get_the_bundled_detector(world, tmp_path, below, said, config):
    scenes(tmp_path / "made", json.dumps({"format": "cqr-scenes", "version": 1, **said}))
    (tmp_path / "made" / "images").mkdir()
    choice = choose(tmp_path / "made" / below, "cpu")
    assert choice.spec == DetectorSpec("bundled", config, device="cpu")
    assert "scenes.json" in choice.reason
    assert choice.warning is None
    assert world.asked == []


@pytest.mark.parametrize("content", ['{"format": "other"}', "[]", "{", "", "\x00", '"cqr-scenes"'])
def test_other_files_of_that_name_are_no_scenes(world, tmp_path, content):
    scenes(tmp_path / "made", content)
    assert choose(tmp_path / "made").spec.name == "grid"


def test_a_joint_backbone_before_all(world, tmp_path):
    world.set(net=["huggingface.co", "pytorch.org"])
    choice = choose(tmp_path, "cpu")
    assert choice.spec == DetectorSpec(
        "transformers", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", device="cpu"
    )
    assert f"{CLIP}, MIT, 605 MB, can be reached" in choice.reason
    assert choice.warning is None


@pytest.mark.parametrize(
    "name", ["laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "google/siglip2-base-patch16-224"]
)
def test_a_cached_backbone_needs_no_net(world, tmp_path, name):
    model = tiny_backbones.tiny_clip(tmp_path / "model")
    tiny_backbones.as_cached(tmp_path / "models", name, model)
    choice = choose(tmp_path)
    assert (choice.spec.name, choice.spec.config) == ("transformers", name)
    assert "is in the cache" in choice.reason
    assert world.asked == []


def test_other_models_in_the_cache_are_never_taken(world, tmp_path):
    model = tiny_backbones.tiny_clip(tmp_path / "model")
    for name in ("facebook/dinov3-vitb16", "apple/MobileCLIP2-S0", "facebook/metaclip-b32"):
        tiny_backbones.as_cached(tmp_path / "models", name, model)
    assert choose(tmp_path).spec.name == "grid"


def test_offline_the_hub_is_not_asked(world, tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    choice = choose(tmp_path)
    assert choice.spec.name == "grid"
    assert "HF_HUB_OFFLINE is set" in choice.tried[0]
    assert not any("huggingface" in url for url in world.asked)


def test_without_the_extra_all_is_as_it_was(world, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )
    world.set(net=["huggingface.co", "pytorch.org"], detectron2_problem="detectron2 is not")
    choice = choose(tmp_path)
    assert choice.spec.name == "torchvision"
    assert "pip install 'cqr[vision]'" in choice.reason


def test_what_a_command_line_asks_for(world, tmp_path):
    assert asked("auto", None, None, "cpu") is None
    assert asked("grid", "bundled", None, "cpu") == DetectorSpec("grid", "bundled", device="cpu")
    model = tiny_backbones.tiny_clip(tmp_path / "model")
    spec = asked("auto", f"{model}#values", None, "cpu", "crops", "torchvision/x")
    assert spec == DetectorSpec(
        "transformers",
        f"{model}#values",
        device="cpu",
        regions="crops",
        finder=DetectorSpec("torchvision", "x", device="cpu"),
    )
    with pytest.raises(UserError, match="need a --detector that they belong to; name it"):
        asked("auto", "resnet18", None, "cpu")
    with pytest.raises(UserError, match="--finder-weights needs a --finder"):
        asked("timm", "resnet18", None, "cpu", finder_weights=tmp_path)
    with pytest.raises(
        UserError, match=r"boxes needs a detector of objects, and detectron2 is not"
    ):
        asked("timm", "resnet18", None, "cpu", "boxes")
    world.set(net=["pytorch.org"])
    assert asked("timm", "resnet18", None, "cpu", "boxes").finder.name == "torchvision"


def test_detectron2_before_torchvision(world, tmp_path):
    world.set(net=["fbaipublicfiles", "pytorch.org"])
    choice = choose(tmp_path)
    assert (choice.spec.name, choice.warning) == ("detectron2", None)
    world.set(net=["pytorch.org"])
    choice = choose(tmp_path)
    assert (choice.spec.name, choice.warning) == ("torchvision", None)


def test_objects_at_hand_when_no_joint_backbone_is(world, tmp_path):
    cached = world.hub / "checkpoints" / "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth"
    cached.parent.mkdir(parents=True)
    cached.touch()
    choice = choose(tmp_path)
    assert choice.spec.name == "torchvision"
    assert str(cached) in choice.reason
    assert f"without texts: no joint backbone is in the cache, and {CLIP} cannot" in choice.reason
    assert world.asked == [CLIP]


def test_the_last_step_down_says_all(world, tmp_path):
    choice = choose(tmp_path)
    assert choice.spec == DetectorSpec("grid")
    for part in (CLIP, "detectron2 is not installed", "https://download.pytorch.org"):
        assert part in "; ".join(choice.tried)
    is_so, means, command = choice.warning.splitlines()
    assert "not objects" in is_so
    assert "texts need a training" in means
    assert f"cqr extract --images {tmp_path} --config FOLDER" in command
    assert "--detector torchvision --weights FILE" in command


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
