"""Where backbones come from: folders, the hub's cache, the hub; and under which licence."""

import json
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch

import tiny_backbones as tiny
from cqr.errors import UserError
from cqr.pipeline.detectors import DetectorSpec, download
from cqr.pipeline.detectors.backbones import choice, licence, source

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny.tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture
def copy(clip, tmp_path):
    """The tiny CLIP, to be spoilt."""
    return Path(shutil.copytree(clip, tmp_path / "copy"))


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty cache and no net; `remote` serves folders by name, and records what was fetched."""

    class Hub:
        cache = tmp_path / "hub"
        fetched: list[str] = []  # noqa: RUF012 - one hub a test
        asked: list[str] = []  # noqa: RUF012

        def remote(self, repository, folder):
            def fetch(name, filename):
                self.fetched.append(filename)
                target = self.cache / "remote" / filename
                target.parent.mkdir(parents=True, exist_ok=True)
                return shutil.copy(folder / filename, target)

            def snapshot(name, allow_patterns=None, local_files_only=False):
                if local_files_only:
                    raise huggingface_hub.errors.LocalEntryNotFoundError("not there")
                return str(Path(*[fetch(name, file) for file in allow_patterns][:1]).parent)

            names = [path.name for path in folder.iterdir()]
            monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda *a: names)
            monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
            monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
            self.reachable(True)

        def reachable(self, answer):
            def ask(url, seconds=3.0):
                self.asked.append(url)
                return answer

            monkeypatch.setattr(download, "reachable", ask)

    Hub.fetched, Hub.asked = [], []
    hub = Hub()
    hub.reachable(False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub.cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return hub


def load(config, library="transformers", **options):
    return DetectorSpec(library, str(config), device="cpu", **options).load()


# --- the hub -------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "hf-hub:"])
def test_what_is_cached_needs_no_net(hub, clip, prefix):
    tiny.as_cached(hub.cache, "someone/tiny", clip)
    identity = load(f"{prefix}someone/tiny").identity
    assert identity["config"] == identity["joint"]["model"] == "someone/tiny"
    assert identity["licence"] == "mit"
    assert hub.asked == []


def test_a_cache_that_is_not_whole_is_no_model(hub, copy):
    (copy / "model.safetensors").unlink()
    tiny.as_cached(hub.cache, "someone/tiny", copy)
    with pytest.raises(
        UserError,
        match=r"cannot reach https://huggingface.co/someone/tiny .*into a"
        r" folder and pass that with --config FOLDER",
    ):
        load("someone/tiny")


def test_offline_is_one_sentence_with_the_address(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        UserError, match=r"HF_HUB_OFFLINE forbids to ask https://huggingface.co/a/b;"
    ):
        load("a/b")
    assert hub.asked == []


def test_the_card_is_read_before_anything_is_downloaded(hub, copy):
    tiny.save_card(copy, "apple-amlr")
    hub.remote("someone/tiny", copy)
    with pytest.raises(
        UserError,
        match=r"someone/tiny is under the licence apple-amlr, see https://huggingface.co/someone/"
        r"tiny, which is not MIT, Apache or BSD: .*--accept-licence",
    ):
        load("someone/tiny")
    assert hub.fetched == ["README.md"]
    assert load("someone/tiny", accept_licence=True).identity["licence"] == "apple-amlr"
    assert set(hub.fetched) == {path.name for path in copy.iterdir()}


def test_only_what_is_needed_is_downloaded(hub, copy):
    for name in ("pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "modeling_x.py"):
        (copy / name).write_bytes(b"large")
    hub.remote("someone/tiny", copy)
    load("someone/tiny")
    assert not {"pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"} & set(hub.fetched)
    assert not any(name.endswith(".py") for name in hub.fetched)


def test_a_hub_that_breaks_off_is_one_sentence(hub, clip, monkeypatch):
    hub.remote("someone/tiny", clip)

    def broken(*arguments, **named):
        raise OSError("connection reset\nby peer")

    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", broken)
    with pytest.raises(UserError, match=r"cannot download https://.*\(connection reset by peer\);"):
        load("someone/tiny")


def test_a_tag_of_open_clip_is_a_name_on_the_hub(hub):
    with pytest.raises(
        UserError,
        match=r"cannot reach https://huggingface.co/laion/CLIP-ViT-B-32-laion2B-s34B-b79K ",
    ):
        load("ViT-B-32/laion2b_s34b_b79k", "open_clip")
    with pytest.raises(UserError, match=r"no weights of that name alone for ViT-B-32; .*a TAG of"):
        load("ViT-B-32", "open_clip")


def test_a_name_of_timm_is_a_name_on_the_hub(hub):
    with pytest.raises(
        UserError, match=r"cannot reach https://huggingface.co/timm/resnet18.a1_in1k "
    ):
        load("resnet18.a1_in1k", "timm")
    with pytest.raises(UserError, match=r"timm has no network resnet1; "):
        load("resnet1", "timm")


# --- folders -------------------------------------------------------------------------------------


def test_code_in_a_folder_is_never_run(copy, tmp_path):
    """As BGE-VL's configuration names code of its own: it is a CLIP all the same."""
    config = json.loads((copy / "config.json").read_text())
    config["auto_map"] = {"AutoModel": "code.Model", "AutoConfig": "code.Config"}
    config["architectures"] = ["Own_CLIP"]
    (copy / "config.json").write_text(json.dumps(config))
    (copy / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert load(copy).identity["joint"]["family"] == "clip"
    assert not (tmp_path / "ran").exists()


class Hostile:
    def __reduce__(self):
        return (open, ("ran", "w"))


def test_a_pickle_may_hold_tensors_only(copy):
    state = safetensors.torch.load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")
    assert load(copy).dim == tiny.JOINT
    torch.save({**state, "x": Hostile()}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot read the model in"):
        load(copy)
    assert not Path("ran").exists()


def test_weights_that_lack_tensors_are_refused(copy):
    state = safetensors.torch.load_file(copy / "model.safetensors")
    del state["visual_projection.weight"]
    safetensors.torch.save_file(state, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"1 tensors do not fit \(visual_projection.weight\)"):
        load(copy)


def test_damaged_files_are_one_sentence(copy):
    (copy / "model.safetensors").write_bytes(b"\x00" * 99)
    with pytest.raises(UserError, match="cannot read the model in"):
        load(copy)
    (copy / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: it is damaged"):
        load(copy)


def test_other_types_of_models_are_named(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(UserError, match=r"a model of the type bert; those of clip, "):
        load(copy)


@pytest.mark.parametrize(
    ("library", "config", "says"),
    [
        ("transformers", None, "needs --config NAME"),
        ("transformers", "local-dir:/nowhere", "the folder /nowhere does not exist"),
        ("open_clip", "./nowhere", "the folder ./nowhere does not exist"),
        ("transformers", "{clip}#half", "has the option half; behind # may stand"),
        ("transformers", "{clip}#30", "must be a multiple of 8, is 30"),
        ("transformers", "{clip}#32,64", "one number of pixels"),
        ("timm", "{clip}", "cannot load"),
        ("open_clip", "{clip}", "holds no whole model of open_clip"),
        ("timm", "resnet18#values", "only CLIP has"),
    ],
)
def test_what_a_user_can_mistake(library, config, says, clip):
    with pytest.raises(UserError, match=says):
        DetectorSpec(library, config and config.format(clip=clip), device="cpu").load()


def test_a_library_that_is_absent_names_the_extra(monkeypatch, clip):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match=r"needs transformers .*: pip install 'cqr\[vision\]'"):
        load(clip)


def test_folders_are_recognised(tmp_path, clip):
    assert choice.recognise(clip) == "transformers"
    assert choice.recognise(tiny.tiny_open_clip(tmp_path / "open")) == "open_clip"
    assert choice.recognise(tiny.tiny_timm(tmp_path / "timm")) == "timm"
    with pytest.raises(UserError, match="holds no model of transformers, open_clip or timm"):
        choice.recognise(tmp_path)


@pytest.mark.parametrize("name", ["a#b", "a"])
def test_a_folder_may_have_a_mark_in_its_name(tmp_path, name):
    (tmp_path / name).mkdir()
    parsed = source.parse(str(tmp_path / name), None, torch.device("cpu"))
    assert parsed.folder == tmp_path / name
    parsed = source.parse(f"{tmp_path / name}#448,own", None, torch.device("cpu"))
    assert (parsed.folder, parsed.side, parsed.own) == (tmp_path / name, 448, True)


# --- licences ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("card", "licence_"),
    [
        ("---\nlicense: mit\n---\n# X\nlicense: gpl\n", "mit"),
        ("---\r\ntags:\r\n- a\r\nlicense: 'Apache-2.0'\r\n---\r\n", "apache-2.0"),
        ("---\nlicense:\n- bsd-3-clause\n---\n", "bsd-3-clause"),
        ("---\nlicense: other\nlicense_name: dinov3-license\n---\n", "dinov3-license"),
        ("---\nlicense: other\n---\n", "other"),
        ("---\nlicense:\ntags: [mit]\n---\n", None),
        ("license: mit\n", None),
        ("", None),
    ],
)
def test_a_card_states_its_licence(tmp_path, card, licence_):
    path = tmp_path / "README.md"
    path.write_text(card, newline="")
    assert licence.stated(path, "someone/model") == licence_


def test_without_a_card_what_is_known_counts(tmp_path):
    assert licence.stated(None, "laion/CLIP-ViT-B-32-laion2B-s34B-b79K") == "mit"
    assert licence.stated(tmp_path / "absent", "timm/vit_small_patch16_dinov3") == "dinov3-license"
    assert licence.stated(None, "/models/copy", "dinov3_vit") == "dinov3-license"
    assert licence.stated(None, "MobileCLIP2-S0") == "apple-amlr"
    assert licence.stated(None, "facebook/metaclip-b32") == "cc-by-nc-4.0"
    assert licence.stated(None, "/models/mine", "clip") is None


@pytest.mark.parametrize("name", sorted(licence.FREE))
def test_free_licences_need_no_word(name):
    licence.check(name, "m", accepted=False)


@pytest.mark.parametrize("name", ["cc-by-nc-4.0", "apple-amlr", "other", "gpl-3.0", "openrail"])
def test_others_need_one(name):
    licence.check(name, "m", accepted=True)
    with pytest.raises(UserError, match=f"m is under the licence {name}, .*--accept-licence"):
        licence.check(name, "m", accepted=False)


def test_a_folder_under_another_licence_needs_one_too(copy, tmp_path):
    tiny.save_card(copy, "cc-by-nc-4.0")
    with pytest.raises(UserError, match="--accept-licence"):
        load(copy)
    assert load(copy, accept_licence=True).identity["licence"] == "cc-by-nc-4.0"
    tiny.save_card(copy, None)
    assert load(copy).identity["licence"] is None
    weights = tmp_path / "w.safetensors"
    weights.touch()
    with pytest.raises(UserError, match="MobileCLIP2-S0 is under the licence apple-amlr"):
        DetectorSpec("open_clip", "MobileCLIP2-S0", weights, "cpu").load()


def test_all_that_auto_would_take_is_free():
    for candidate in choice.CANDIDATES:
        assert licence.stated(None, candidate.config) in licence.FREE
