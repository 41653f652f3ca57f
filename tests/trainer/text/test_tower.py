"""The text towers of joint spaces: against the libraries themselves."""

import shutil
from dataclasses import replace

import pytest
import torch

from cqr.errors import UserError
from cqr.trainer.text import tower
from cqr.trainer.text.joint import Joint

transformers = pytest.importorskip("transformers", reason="pip install 'cqr[text]'")
import joint_space  # noqa: E402
import tiny_backbones  # noqa: E402

TEXTS = ["make it red", "a", "with longer sleeves and a collar", ""]


@pytest.fixture(autouse=True)
def _nothing_loaded():
    tower._load.cache_clear()


def joint_of(folder, library="transformers", **changes):
    return Joint.of({"joint": joint_space.described(folder, library, **changes)})


@pytest.fixture
def clip(tmp_path):
    return tiny_backbones.tiny_clip(tmp_path / "clip")


@torch.no_grad()
def test_vectors_of_clip_are_those_of_the_whole_model(clip):
    read = tower.load(joint_of(clip)).encode(TEXTS)
    model = transformers.CLIPModel.from_pretrained(clip)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(clip)
    for i, text in enumerate(TEXTS[:3]):
        ids = tokenizer(text, return_tensors="pt")
        expected = model.get_text_features(**ids).pooler_output[0]
        torch.testing.assert_close(read.vector[i], expected)
        states = model.text_model(**ids).last_hidden_state[0, 1:-1]  # between the marks
        kept = read.tokens[i][read.mask[i]]
        torch.testing.assert_close(kept.float(), states, atol=2e-3, rtol=2e-3)
    assert read.tokens.dtype == torch.float16
    assert not read.vector[3].any()  # nothing is said
    assert read.mask.any(1).all()


@torch.no_grad()
def test_vectors_of_siglip_are_those_of_texts_padded_to_the_context(tmp_path):
    folder = tiny_backbones.tiny_siglip(tmp_path / "siglip")
    dim = tiny_backbones.WIDTH
    read = tower.load(joint_of(folder, family="siglip", context=64, dim=dim)).encode(TEXTS[:3])
    model = transformers.SiglipModel.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for i, text in enumerate(TEXTS[:3]):
        ids = tokenizer(text, padding="max_length", max_length=64, return_tensors="pt").input_ids
        assert ids.shape == (1, 64)
        expected = model.get_text_features(input_ids=ids).pooler_output[0]
        torch.testing.assert_close(read.vector[i], expected)
        assert read.mask[i].sum() == len(tokenizer(text, add_special_tokens=False).input_ids)


@torch.no_grad()
def test_vectors_of_open_clip_are_its_own(tmp_path):
    open_clip = pytest.importorskip("open_clip", reason="pip install 'cqr[vision]'")
    folder = joint_space.tiny_open_clip(tmp_path / "oc")
    reader = tower.load(joint_of(folder, "open_clip"))
    texts = [*TEXTS[:3], "wow!"]  # its mark for padding is also the piece "!"
    read = reader.encode(texts)
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    ids = open_clip.get_tokenizer("ViT-B-32")(texts)
    torch.testing.assert_close(read.vector, model.encode_text(ids))
    assert read.mask.sum(1).tolist() == [len(open_clip.SimpleTokenizer().encode(t)) for t in texts]
    x = model.token_embedding(ids) + model.positional_embedding
    states = model.ln_final(model.transformer(x, attn_mask=model.attn_mask))
    torch.testing.assert_close(read.tokens[0, :3].float(), states[0, 1:4], atol=2e-3, rtol=2e-3)
    assert reader.tokens("wow!") == ["wow", "!"]
    assert reader.temperature == pytest.approx(model.logit_scale.exp().item())


def test_a_text_alone_and_among_others_is_the_same_and_long_ones_are_cut(clip):
    reader = tower.load(joint_of(clip))
    long = "word " * 40  # a token a byte, and 75 beside the marks
    together = reader.encode([*TEXTS, long])
    for i, text in enumerate([*TEXTS, long]):
        alone = reader.encode([text])
        assert torch.equal(alone.vector[0], together.vector[i])
        assert torch.equal(alone.tokens[0], together.tokens[i][together.mask[i]])
    assert together.mask[-1].sum() == 75 == reader.spec.max_words
    assert reader.cut([*TEXTS, long]) == 1
    assert "".join(reader.tokens("red")) == "red"


def test_the_temperature_is_that_of_the_weights(clip):
    model = transformers.CLIPModel.from_pretrained(clip)
    expected = model.logit_scale.exp().item()
    assert tower.load(joint_of(clip)).temperature == pytest.approx(expected)


def test_a_tower_that_was_moved_is_read_there(clip, tmp_path):
    joint = joint_of(clip)
    here = tower.load(joint).encode(TEXTS).vector
    shutil.move(clip, tmp_path / "there")
    moved = joint.moved_to(str(tmp_path / "there"))
    assert moved.id == joint.id
    assert torch.equal(tower.load(moved).encode(TEXTS).vector, here)


def refusal(joint):
    with pytest.raises(UserError) as said:
        tower.load(joint)
    assert "\n" not in str(said.value)
    return str(said.value)


def test_what_is_gone_or_another_is_refused_in_a_sentence(clip, tmp_path):
    joint = joint_of(clip)
    other = tiny_backbones.tiny_clip(tmp_path / "other", seed=1)
    said = refusal(joint.moved_to(str(other)))
    assert f"{other / 'model.safetensors'} differs" in said
    assert "extract the pictures again" in said
    (clip / "tokenizer.json").write_text("{}")
    assert "tokenizer.json differs" in refusal(joint)
    (clip / "model.safetensors").unlink()
    assert f"lacks {clip / 'model.safetensors'}" in refusal(joint)
    shutil.rmtree(clip)
    assert f"is not in {clip} any longer" in refusal(joint)
    assert "does not read" in refusal(replace(joint, library="keras"))


def test_vectors_of_another_width_than_the_features_are_refused(clip):
    assert "have 25" in refusal(joint_of(clip, dim=25))


def test_a_tower_of_the_hub_that_cannot_be_had_is_refused_in_a_sentence(clip, monkeypatch):
    import huggingface_hub

    def absent(*_, **__):
        raise OSError("no network here\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    assert "cannot be had from the Hugging Face hub (no network here" in refusal(
        replace(joint_of(clip), model="openai/clip")
    )


def test_what_a_file_says_of_its_space_must_be_whole():
    assert Joint.of({"name": "grid"}) is None
    assert Joint.of({"joint": None}) is None
    with pytest.raises(UserError, match="is missing"):
        Joint.of({"joint": {"id": "x"}})


def test_the_phrases_are_some_hundred_and_distinct():
    phrases = tower.phrases()
    assert len(set(phrases)) == len(phrases) >= 200
    assert all(p == p.strip() and p.isascii() and p for p in phrases)
