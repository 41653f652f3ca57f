"""LBF's encoders under any composer: they are LBF's, and get what is recommended for them."""

import pytest
import torch
import torch.nn.functional as F

from cqr.errors import UserError
from cqr.trainer.datasets.recommended import LIGHT
from cqr.trainer.models import MODELS, build, options_of
from cqr.trainer.models.lbf import LBF
from cqr.trainer.models.lbf_config import LBFConfig
from peers_in_numpy import IDS, D, E, model, regions, words

PEERS = [name for name in MODELS if name != "lbf"]
SMALL = {"encoder": "lbf", "width": 16, "heads": 4, "vep_depth": 1}


def on_lbf(name, **options):
    depth = {} if name == "image-only" else {"tep_depth": 1}
    return model(name, **SMALL, **depth, **options)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_vectors_are_those_of_an_lbf_without_fusion(pool):
    one = on_lbf("concatenation", pool=pool)
    config = LBFConfig(
        width=16, heads=4, vep_depth=1, tep_depth=1, fusion_depth=0, pool=pool, embed_dim=E
    )
    lbf = LBF(region_dim=D, text=IDS, config=config).eval()
    for own, theirs in (
        (one.image, (lbf.embed_regions, lbf.vep, lbf.out_regions)),
        (one.text, (lbf.embed_words, lbf.tep, lbf.out_words)),
    ):
        for part, copy in zip((own.embed, own.layers, own.out), theirs, strict=True):
            copy.load_state_dict(part.state_dict())
    batch, read = regions(), words()
    torch.testing.assert_close(one.encode_image(batch), lbf.encode_image(batch))
    mean = (one.image(batch) + one.text(read)) / 2
    torch.testing.assert_close(F.normalize(mean, dim=-1), lbf.encode_query(batch, read))


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("encoder", ["linear", "lbf"])
def test_a_vector_is_its_pooled_local_vectors(encoder, pool):
    one = on_lbf("tirg", pool=pool) if encoder == "lbf" else model("tirg", pool=pool, local="mlp")
    batch, read = regions(), words()
    for local, whole, mask in (
        (one.image.local(batch), one.image(batch), batch.mask),
        (one.text.local(read), one.text(read), read.mask),
    ):
        if encoder == "linear" and mask is read.mask:
            continue  # its vector is the LSTM's last state
        for rows, real, vector in zip(local, mask, whole, strict=True):
            kept = rows[real]
            expected = kept.mean(0) if pool == "mean" else kept.max(0).values
            torch.testing.assert_close(vector, expected)


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("name", PEERS)
def test_every_composer_stands_on_lbfs_encoders(name, pool):
    one, batch, read = on_lbf(name, pool=pool), regions(), words()
    query, target = one.encode_query(batch, read), one.encode_image(batch)
    torch.testing.assert_close(query.norm(dim=1), torch.ones(len(batch)))
    other = regions()
    other.boxes = 1 - other.boxes  # what is where is part of it, in every model
    moved = (one.encode_image(other) - target).abs().amax(1)
    assert (moved > 1e-4).all()
    keys = set(one.state_dict())
    assert any(".layers.0.attention." in key for key in keys)
    plain = model(name, pool=pool)
    assert not any(".layers." in key for key in plain.state_dict())


@pytest.mark.parametrize("name", [name for name in PEERS if name != "image-only"])
def test_gradient_reaches_every_parameter_of_theirs(name):
    one = on_lbf(name, pool="max").train()
    out = one(regions(), words(), regions((3, 5, 2, 6), seed=2))
    weight = torch.randn(out.query.shape)
    total = (out.query * weight).sum() + (out.target * weight.flip(0)).sum()
    for factor, value in out.extra.values():
        total = total + factor * (
            sum(v.square().sum() for v in value) if isinstance(value, tuple) else value
        )
    total.backward()
    idle = {
        key for key, p in one.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    }
    keyed = {key for key in idle if key.endswith(".key.bias")}  # a softmax takes no note of it
    unread = {key for key in idle if name == "text-only" and key.startswith("image.")}
    assert idle - keyed - unread <= {"scale"}


def test_what_is_recommended_is_of_lbfs_encoders():
    recommended = {**LIGHT, "pool": "max", "loss": "x"}
    assert options_of("tirg", recommended, []) == options_of("tirg", {}, [])
    assert options_of("tirg", recommended, [])["pool"] == "mean"
    chosen = options_of("tirg", recommended, ["encoder=lbf"])
    assert {name: chosen[name] for name in LIGHT} == LIGHT
    assert chosen["pool"] == "max"
    assert options_of("tirg", recommended, ["encoder=lbf", "pool=mean"])["pool"] == "mean"


def test_settings_of_an_older_run_build_the_same_model():
    old = {"embed_dim": E, "local": "linear", "scale": 4.0, "words": "lstm", "text_dropout": 0.1}
    one = build("tirg", {**old, "form": "fc"}, region_dim=D, text=IDS)
    assert set(one.state_dict()) == set(model("tirg").state_dict())
    assert {
        "image.map.weight",
        "text.word.weight",
        "text.lstm.weight_ih_l0",
        "text.output.1.bias",
    } <= set(one.state_dict())


def test_a_map_of_another_encoder_is_refused():
    with pytest.raises(UserError, match="local 'mlp' is of encoder=linear"):
        build("tirg", options_of("tirg", {}, ["encoder=lbf", "local=mlp"]), region_dim=D, text=IDS)
