"""The peer models: each against its formula in numpy, and all of them through the one interface."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from around_models import resumed, trained
from cqr.errors import UserError
from cqr.trainer.choices import ModelName
from cqr.trainer.datasets.recommended import LIGHT
from cqr.trainer.evaluation import evaluate
from cqr.trainer.features import RegionBatch
from cqr.trainer.models import ALL, MODELS, build, options_of
from cqr.trainer.models.maps import on_map
from cqr.trainer.models.peers.parameter_hashing import hashes
from cqr.trainer.text.vocabulary import WordBatch
from cqr.trainer.training import runs
from cqr.trainer.training.material import collect
from cqr.trainer.training.settings import Settings, settle
from cqr.trainer.training.steps.losses import batch_classification
from peers_in_numpy import (
    FEATURES,
    IDS,
    B,
    D,
    E,
    array,
    assert_query,
    convolve,
    features_of,
    image_vector,
    linear,
    model,
    norm,
    regions,
    relu,
    sigmoid,
    text_vector,
    unit,
    words,
)

PEERS = [name for name in MODELS if name != "lbf"]
OF_REGIONS = ("relationship", "film", "maaf", "deepset", "cosmo", "val", "clvc-net")
"""Those whose papers compose places."""
OWN_TARGET = ("maaf", "cosmo", "val", "clvc-net")
SEE_BOTH = [name for name in PEERS if not name.endswith("-only")]


# each composition against its formula


@pytest.mark.parametrize("name", [name for name in PEERS if name not in OWN_TARGET])
def test_a_target_is_the_mean_of_its_regions_through_one_layer(name):
    one, batch = model(name), regions()
    expected = unit(image_vector(one, batch))
    np.testing.assert_allclose(array(one.encode_image(batch)), expected, rtol=1e-4, atol=1e-5)


def test_the_other_encoders():
    """A map of feature and box before the mean over regions; the mean over words."""
    one, batch, read = model("text-only", local="mlp", words="mean"), regions(), words()
    first, _, second = one.image.map
    image = []
    for f, boxes, m in zip(
        array(batch.features), array(batch.boxes), batch.mask.numpy(), strict=True
    ):
        x = torch.from_numpy(linear(first, np.concatenate([f, boxes], 1)))
        image.append(linear(second, torch.nn.functional.gelu(x).numpy())[m].mean(0))
    np.testing.assert_allclose(
        array(one.encode_image(batch)), unit(np.stack(image)), rtol=1e-4, atol=1e-5
    )
    table = array(one.text.word.weight)
    rows = zip(read.tokens.numpy(), read.mask.numpy(), strict=True)
    text = np.stack([table[ids[m]].mean(0) for ids, m in rows])
    assert_query(one, linear(one.text.output[1], text), batch, read)


def test_image_only_and_text_only():
    batch, read = regions(), words()
    image, text = model("image-only"), model("text-only")
    assert_query(image, image_vector(image, batch), batch, read)
    assert_query(text, text_vector(text, read), batch, read)


def test_concatenation():
    one, batch, read = model("concatenation"), regions(), words()
    bn1, _, first, bn2, _, _, second = one.mlp
    x = np.concatenate([image_vector(one, batch), text_vector(one, read)], 1)
    x = linear(second, relu(norm(bn2, linear(first, relu(norm(bn1, x))))))
    assert_query(one, x, batch, read)


def test_show_and_tell_reads_the_image_first():
    one, batch, read = model("show-and-tell"), regions(), words()
    assert_query(one, text_vector(one, read, first=image_vector(one, batch)), batch, read)


def murmur(x):
    """The finalizer of MurmurHash3 in integers of any length."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = ((x ^ (x >> 33)) * factor) % 2**64
    return x ^ (x >> 33)


@pytest.mark.parametrize("candidates", [50, 0])
@pytest.mark.parametrize("after", ["layers", "nothing"])
def test_parameter_hashing(candidates, after):
    one = model("parameter-hashing", candidates=candidates, after=after)
    batch, read = regions(), words()
    image, p = image_vector(one, batch), text_vector(one, read)
    if candidates:
        p = linear(one.candidates, p)
    out = np.zeros((B, E))
    for m in range(E):
        for n in range(E):
            number = murmur(m * E + n + (1691 << 32))
            place, sign = (number >> 1) % p.shape[1], 1 - 2 * (number & 1)
            out[:, m] += sign * p[:, place] * image[:, n]
    out += array(one.bias)
    if after == "layers":
        out = linear(one.after[3], relu(norm(one.after[0], out)))
    assert_query(one, out, batch, read)


def test_the_hash_spreads():
    place, negative = hashes(64, 40, seed=5)
    counts = np.bincount(place.ravel(), minlength=40)
    assert len(counts) == 40
    assert counts.min() > 64  # 102.4 on average
    assert 0.45 < negative.mean() < 0.55
    assert abs(np.corrcoef(place.ravel(), negative.ravel())[0, 1]) < 0.05
    assert (place != hashes(64, 40, seed=6)[0]).mean() > 0.9


@pytest.mark.parametrize("position", [True, False])
def test_relationship_is_the_mean_over_pairs(position):
    one = model("relationship", hidden=12, depth=3, position=position)
    batch, read = regions(), words()
    text, expected = text_vector(one, read), []
    for f, boxes, m, t in zip(
        array(batch.features), array(batch.boxes), batch.mask.numpy(), text, strict=True
    ):
        o = linear(one.image.map, f[m])
        if position:
            o = np.concatenate([o, boxes[m]], 1)
        answers = []
        for a in o:
            for b in o:
                weight = np.concatenate(
                    [array(w.weight) for w in (one.one, one.other, one.asked)], 1
                )
                g = relu(weight @ np.concatenate([a, b, t]) + array(one.asked.bias))
                for layer in one.rest:
                    g = relu(linear(layer[0], g))
                answers.append(g)
        expected.append(linear(one.output, np.mean(answers, 0)))
    assert_query(one, np.stack(expected), batch, read)


def test_film_scales_and_shifts_each_channel():
    one, batch, read = model("film"), regions(), words()
    text, expected = text_vector(one, read), []
    for f, m, t in zip(array(batch.features), batch.mask.numpy(), text, strict=True):
        x = linear(one.image.map, f[m])
        for block in one.blocks:
            r = relu(linear(block.first, x))
            change = linear(block.modulation, t)
            gamma, beta = 1 + change[:E], change[E:]
            x = r + relu(gamma * norm(block.norm, linear(block.second, r)) + beta)
        expected.append(linear(one.output, x.mean(0)))
    assert_query(one, np.stack(expected), batch, read)


@pytest.mark.parametrize("layers", [1, 3])
def test_mrn(layers):
    one, batch, read = model("mrn", layers=layers), regions(), words()
    h, v = text_vector(one, read), image_vector(one, batch)
    for layer in one.layers:
        seen = np.tanh(linear(layer.seen[4], np.tanh(linear(layer.seen[1], v))))
        h = linear(layer.shortcut[1], h) + np.tanh(linear(layer.asked[1], h)) * seen
    assert_query(one, h, batch, read)


def test_tirg_gates_the_image_and_adds_a_residual():
    one, batch, read = model("tirg"), regions(), words()
    x = image_vector(one, batch)
    both = np.concatenate([x, text_vector(one, read)], 1)
    gate = sigmoid(linear(one.gate[2], relu(norm(one.gate[0], both))))
    residual = relu(norm(one.residual[0], both))
    residual = linear(one.residual[4], relu(linear(one.residual[2], residual)))
    w_gate, w_residual = array(one.weights)
    assert_query(one, w_gate * gate * x + w_residual * residual, batch, read)
    fresh = build("tirg", {}, region_dim=D, text=IDS)
    assert fresh.weights.tolist() == [1, 10]


def grid(g, seed=1):
    """A batch whose regions tile the image, each image's in an order of its own."""
    rng = np.random.default_rng(seed)
    y, x = np.divmod(np.arange(g * g), g)
    boxes = np.stack([x, y, x + 1, y + 1], 1) / g
    order = np.stack([rng.permutation(g * g) for _ in range(B)])
    features = torch.from_numpy(rng.normal(size=(B, g * g, D))).float()
    placed = torch.from_numpy(boxes[order]).float()
    return RegionBatch(features, placed, torch.ones(B, g * g, dtype=torch.bool)), order


@pytest.mark.parametrize("g", [2, 3])
def test_tirg_on_the_last_convolution(g):
    one, read = model("tirg", form="last-conv"), words()
    batch, order = grid(g)
    text, expected = text_vector(one, read), []
    for f, places, t in zip(array(batch.features), order, text, strict=True):
        x = np.zeros((g, g, E))
        x.reshape(g * g, E)[places] = linear(one.image.map, f)
        both = np.concatenate([x, np.broadcast_to(t, (g, g, E))], -1)
        gate, residual = (
            convolve(branch[3], relu(convolve(branch[1], norm(branch[0], both))))
            for branch in (one.gate, one.residual)
        )
        w_gate, w_residual = array(one.weights)
        x = w_gate * sigmoid(gate) * x + w_residual * residual
        expected.append(linear(one.fc, x.mean((0, 1))))
    assert_query(one, np.stack(expected), batch, read)
    target = linear(one.fc, image_vector(one, batch))
    np.testing.assert_allclose(array(one.encode_image(batch)), unit(target), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrong", ["one", "five", "elsewhere", "missing"])
def test_regions_that_are_no_grid_are_refused(wrong):
    batch, _ = grid({"one": 1}.get(wrong, 3))
    if wrong == "five":
        batch = RegionBatch(batch.features[:, :5], batch.boxes[:, :5], batch.mask[:, :5])
    if wrong == "elsewhere":
        batch.boxes[1, 0] = batch.boxes[1, 1]
    if wrong == "missing":
        batch.mask[2, 8] = False
    message = rf"last-conv needs regions .* and these {batch.mask.shape[1]} do not: extract with"
    with pytest.raises(UserError, match=message):
        model("tirg", form="last-conv").encode_query(batch, words())


def test_rows_of_the_grid_run_from_the_top():
    batch, order = grid(4)
    numbers = torch.from_numpy(order)[..., None].float()
    placed = on_map(numbers, batch, 0, "tirg")
    assert (placed == torch.arange(16).view(1, 1, 4, 4)).all()


def composed(one, z, q, sign):
    """ComposeAE's equations 4 and 5, in complex numbers."""

    def rotated(part):
        eta = linear(part.eta[4], relu(linear(part.eta[1], norm(part.eta[0], z))))
        gamma = linear(part.gamma[3], relu(linear(part.gamma[1], norm(part.gamma[0], q))))
        return eta, gamma, np.exp(sign * 1j * gamma) * eta

    _, _, phi = rotated(one.rotation)
    rho = mapped(one.linear, np.concatenate([phi.real, phi.imag], 1))
    eta, gamma, phi = rotated(one.rotation_conv)
    signals = np.pad(np.stack([z, eta, gamma, phi.real, phi.imag], 1), ((0, 0), (0, 0), (1, 1)))
    kernel = array(one.conv.weight)
    answers = sum(
        np.einsum("bcx,fc->bfx", signals[:, :, i : i + E], kernel[:, :, i]) for i in range(3)
    )
    answers = answers + array(one.conv.bias)[:, None]
    largest = answers.reshape(len(z), 64, 2 * E // 64, 32).max(-1).reshape(len(z), 2 * E)
    a, b = array(one.weights)
    return a * rho + b * mapped(one.linear_conv, largest)


def mapped(layers, x):
    return linear(layers[4], relu(linear(layers[2], relu(norm(layers[0], x)))))


def test_compose_ae_rotates():
    one, batch, read = model("compose-ae"), regions(), words()
    z, q = image_vector(one, batch), text_vector(one, read)
    assert_query(one, composed(one, z, q, 1), batch, read)
    fresh = build("compose-ae", {}, region_dim=D, text=IDS)
    assert fresh.weights.tolist() == [10, 1]


def test_compose_ae_goes_back_by_the_conjugate_and_decodes():
    one, read = model("compose-ae", image_reconstruction=0.3), words()
    reference, target = regions(), regions((3, 5, 2, 6), seed=2)
    z, q, y = image_vector(one, reference), text_vector(one, read), image_vector(one, target)
    theta = composed(one, z, q, 1)
    query, found, extra = one(reference, read, target)
    np.testing.assert_allclose(array(query), 4 * unit(theta), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(array(found), 4 * unit(y), rtol=1e-4, atol=1e-4)
    weight, (back, aim) = extra["rotation"]
    assert weight == 0.01
    np.testing.assert_allclose(array(back), 4 * unit(composed(one, y, q, -1)), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(array(aim), 4 * unit(z), rtol=1e-4, atol=1e-4)
    for name, w, decoder, aim in (
        ("image", 0.3, one.to_image, z),
        ("text", 0.1, one.to_text, q),
    ):
        weight, value = extra[name]
        assert weight == w
        expected = np.square(mapped(decoder, theta) - aim).mean()
        assert value.item() == pytest.approx(expected, rel=1e-4)


# what holds of every model


def encode(one, batch, read):
    with torch.no_grad():
        return one.encode_image(batch), one.encode_query(batch, read)


@pytest.mark.parametrize("local", ["linear", "mlp"])
@pytest.mark.parametrize("text", [IDS, FEATURES], ids=["ids", "features"])
@pytest.mark.parametrize("name", MODELS)
def test_vectors_have_unit_length_whatever_is_padded_masked_or_beside_them(name, text, local):
    options = {} if name == "lbf" else {"local": local}
    one, batch, read = model(name, text, **options), regions(), words()
    longer = WordBatch(*(torch.nn.functional.pad(t, (0, 3)) for t in (read.tokens, read.mask)))
    if text is FEATURES:
        read, longer = features_of(read), features_of(longer)
        longer.tokens += 9.0 * ~longer.mask[..., None]
    wider = RegionBatch(
        torch.cat([batch.features, torch.randn(B, 2, D)], 1),
        torch.cat([batch.boxes, torch.rand(B, 2, 4)], 1),
        torch.cat([batch.mask, torch.zeros(B, 2, dtype=torch.bool)], 1),
    )
    expected = encode(one, batch, read)
    for vectors in expected:
        assert vectors.shape[0] == B
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(B))
    for other in (encode(one, wider, read), encode(one, batch, longer)):
        torch.testing.assert_close(other, expected)
    for i in range(B):  # alone: a batch of one, by the running statistics
        alone = encode(
            one,
            RegionBatch(batch.features[i : i + 1], batch.boxes[i : i + 1], batch.mask[i : i + 1]),
            WordBatch(read.tokens[i : i + 1], read.mask[i : i + 1]),
        )
        torch.testing.assert_close(alone, tuple(v[i : i + 1] for v in expected))


@pytest.mark.parametrize("name", MODELS)
def test_features_may_be_of_half_precision_and_one_region(name):
    one, read = model(name), words()
    batch = regions((1, 1, 1, 1))
    half = RegionBatch(batch.features.half(), batch.boxes, batch.mask)
    same = RegionBatch(half.features.float(), batch.boxes, batch.mask)
    torch.testing.assert_close(encode(one, half, read), encode(one, same, read))


@pytest.mark.parametrize("name", MODELS)
def test_text_and_image_are_seen_by_those_that_say_so(name):
    one = model(name)
    batch, other = regions(), regions(seed=7)
    read, said = words(), words(((9, 3, 4, 0), (6, 0, 0, 0), (6, 5, 8, 9), (3, 2, 0, 0)))
    query = one.encode_query(batch, read)
    sees_image = (one.encode_query(other, read) - query).abs().amax(1) > 1e-4
    sees_text = (one.encode_query(batch, said) - query).abs().amax(1) > 1e-4
    assert sees_image.all() if name != "text-only" else not sees_image.any()
    assert sees_text.all() if name != "image-only" else not sees_text.any()


@pytest.mark.parametrize("name", [*PEERS, "tirg last-conv"])
def test_gradient_reaches_every_parameter(name):
    name, _, form = name.partition(" ")
    one = model(name, **({"form": form} if form else {})).train()
    batch, _ = grid(3)
    torch.manual_seed(0)
    out = one(batch, words(), grid(3, seed=2)[0])
    loss = batch_classification(out.query.flatten(1), out.target.flatten(1))
    for weight, value in out.extra.values():
        loss = loss + weight * (batch_classification(*value) if isinstance(value, tuple) else value)
    loss.backward()
    idle = {
        key for key, p in one.named_parameters() if (p.grad is None or not p.grad.abs().sum() > 0)
    }
    assert not idle


@pytest.mark.parametrize("name", PEERS)
def test_every_choice_is_described_and_those_meant_for_another_model_are_passed_over(name):
    config = MODELS[name].config
    said = "".join(c.__doc__ for c in config.__mro__ if dataclasses.is_dataclass(c))
    for field in dataclasses.fields(config):
        assert f"{field.name}: " in said or f"{field.name}, " in said
    assert options_of(name, {**LIGHT, "loss": "x"}, []) == options_of(name, {}, [])
    on_lbfs = options_of(name, LIGHT, ["encoder=lbf"])
    assert set(LIGHT) - set(on_lbfs) <= {"tep_depth"}
    assert all(on_lbfs[key] == value for key, value in LIGHT.items() if key in on_lbfs)


def test_the_help_names_every_model():
    said = Settings.__dataclass_fields__["model"].metadata["help"].partition(".")[0]
    assert set(re.split(", | or ", said)) == set(ALL)
    assert get_args(ModelName) == tuple(ALL)


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("tirg", "embed_dim=0", "tirg cannot be built: embed_dim 0 is less than 1"),
        ("compose-ae", "embed_dim=40", "embed_dim 40 is not a multiple of 32; change it with"),
    ],
)
def test_what_cannot_be_built_is_refused(name, option, message):
    with pytest.raises(UserError, match=message):
        build(name, options_of(name, {}, [option]), region_dim=D, text=IDS)


# training


def settings(name, *options, **given):
    given = {"epochs": 2, "batch": 16, "warmup": 5, "lr": 3e-3, "validation": 0.2} | given
    return settle({}, {"model": name, **given}, ["embed_dim=32", *options])


def test_by_default_a_peer_is_given_what_its_paper_gives_it():
    expected = {name: "regions" if name in OF_REGIONS else "whole" for name in PEERS}
    assert {name: settings(name).input for name in PEERS} == expected
    assert settings("tirg", input="regions").input == "regions"


@pytest.fixture
def many(drawn_scenes):
    return drawn_scenes(references=20, modifications=8)


@pytest.mark.parametrize("name", SEE_BOTH)
def test_those_that_see_both_beat_chance(many, name):
    options = ["dropout=0.1"] if name in ("mrn", "parameter-hashing", "compose-ae") else []
    slow = name == "show-and-tell"  # as in TIRG's paper the worst
    epochs = 20 if slow else 6
    run, material = trained(many, settings(name, *options, epochs=epochs, select="last"))
    metrics = evaluate.evaluate(run, material, torch.device("cpu")).metrics
    k, times = ("50", 1.3) if slow else ("10", 2)
    assert metrics["recall"][k] > times * metrics["chance"][k]


@pytest.mark.parametrize("name", PEERS)
def test_a_stopped_training_goes_on_to_the_same_weights(drawn_scenes, name):
    run = resumed(drawn_scenes(), settings(name))
    buffers = dict(run.trained_model().named_buffers())
    assert all(value != 0 for key, value in buffers.items() if key.endswith("batches_tracked"))


@pytest.mark.parametrize("name", PEERS)
def test_mixed_precision_trains(drawn_scenes, name):
    chosen = settings(name, epochs=1, input="regions")
    run, material = trained(drawn_scenes(), chosen, precision="bf16-mixed")
    weights = load_file(run.weights)
    assert {w.dtype for w in weights.values()} <= {torch.float32, torch.int64}
    assert evaluate.evaluate(run, material, torch.device("cpu")).metrics["queries"] == 72


STEPS = """
import sys
from pathlib import Path

import torch

sys.path.insert(0, sys.argv[1])
from around_models import settings, trained
from cqr.trainer.models.words import WordLSTM

torch.manual_seed(0)
lstm, vectors = WordLSTM(5, 7), torch.randn(2, 3, 5)
expected = lstm(vectors)
for narrow in (torch.bfloat16, torch.float16):
    with torch.autocast("cpu", narrow):
        states = lstm(vectors.requires_grad_().to(narrow))
        assert states.dtype == torch.float32 and torch.allclose(states, expected, atol=0.02)
        states.sum().backward()
for precision in ("bf16-mixed", "16-mixed"):
    chosen = settings("tirg", epochs=1, input="regions")
    run, _ = trained(Path(sys.argv[2]), chosen, precision=precision)
    assert run.history()[0]["loss"] > 0
"""


def test_an_lstm_trains_in_mixed_precision_on_a_processor_without_avx512(drawn_scenes):
    limited = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2"}
    arguments = [
        sys.executable,
        "-c",
        STEPS,
        str(Path(__file__).parents[2] / "shared"),
        str(drawn_scenes()),
    ]
    done = subprocess.run(arguments, env=limited, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr


def test_a_text_encoder_may_read_for_a_peer(drawn_scenes, write_encoder):
    features = drawn_scenes()
    for words_ in ("lstm", "mean"):
        chosen = settings(
            "compose-ae", f"words={words_}", text_encoder=str(write_encoder()), max_words=8
        )
        run, _ = trained(features, chosen)
        first, last = run.history()
        assert last["loss"] < first["loss"]


def test_losses_of_a_models_own_are_logged_and_are_part_of_the_loss(drawn_scenes):
    features = drawn_scenes()
    run, _ = trained(features, settings("compose-ae"))
    for line in run.history():
        parts = [line[f"{name}_loss"] for name in ("rotation", "image", "text")]
        assert all(part > 0 for part in parts)
        assert sum(parts) < line["loss"]
    assert "rotation_loss" not in trained(features, settings("tirg"))[0].history()[0]
    off = settings("compose-ae", "rotation=0", "image_reconstruction=0", "text_reconstruction=0")
    assert trained(features, off)[0].history()[0]["rotation_loss"] == 0


def test_tirg_trains_on_a_grid_and_refuses_a_detectors_regions(write_features, drawn_scenes):
    features = drawn_scenes()
    chosen = settings("tirg", "form=last-conv", input="regions")
    with pytest.raises(UserError, match=r"tirg with form=last-conv needs regions that tile"):
        trained(features, chosen)
    reader = collect(features).reader
    rng = np.random.default_rng(0)
    y, x = np.divmod(rng.permutation(9), 3)
    boxes = np.tile(np.stack([x, y, x + 1, y + 1], 1) * 100.0, (len(reader.paths), 1, 1))
    write_features(
        features,
        reader.paths,
        rng.normal(size=(len(reader.paths), 9, 24)),
        boxes,
        root=reader.file.image_root,
    )
    run, material = trained(features, chosen)
    assert evaluate.evaluate(run, material, torch.device("cpu")).metrics["queries"] == 72
    assert runs.Run.load(run.path).settings.options["form"] == "last-conv"
