"""SNR around any model: against numpy, and what its losses do in a training."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from around_models import (
    NAMES,
    B,
    D,
    array,
    in_training,
    linear,
    model,
    regions,
    resumed,
    settings,
    trained,
    words,
)
from command_line import cqr
from cqr.errors import UserError
from cqr.trainer.evaluation import evaluate
from cqr.trainer.evaluation.attended import attended
from cqr.trainer.features import RegionBatch
from cqr.trainer.models.learners import Learners
from cqr.trainer.models.snr import SNR
from cqr.trainer.training.material import collect
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings
from cqr.trainer.training.start import start

CPU = torch.device("cpu")


def around(name, causality=0.2, distance="half-cosine", **options):
    """A model with SNR before it, whose weights are away from where they start."""
    made = SNR(model(name, **options), region_dim=D, causality=causality, distance=distance)
    for key, parameter in made.named_parameters():
        if not key.startswith("model."):
            parameter.data += 0.3 * torch.randn_like(parameter)
    return made.eval()


def parts(made, batch):
    """F+, F~ and F-, each B x K x D, one image at a time and real regions only."""
    out = np.zeros((3, *batch.features.shape))
    for i, (features, mask) in enumerate(
        zip(array(batch.features), batch.mask.numpy(), strict=True)
    ):
        f = features[mask]
        plain = array(made.gain) * (f - f.mean(0)) / np.sqrt(f.var(0) + 1e-5) + array(made.bias)
        residual = f - plain
        hidden = np.maximum(linear(made.gate[0], residual.mean(0)), 0)
        gate = 1 / (1 + np.exp(-linear(made.gate[2], hidden)))
        out[0, i, mask] = plain + gate * residual
        out[1, i, mask] = plain
        out[2, i, mask] = plain + (1 - gate) * residual
    return out


def with_features(batch, features):
    return RegionBatch(torch.as_tensor(features).float(), batch.boxes, batch.mask)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_given_the_features_normalised_and_restituted(name):
    made, batch, read = around(name), regions(), words()
    plus = with_features(batch, parts(made, batch)[0])
    for ours, expected in (
        (made.encode_image(batch), made.model.encode_image(plus)),
        (made.encode_query(batch, read), made.model.encode_query(plus, read)),
    ):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(ours.norm(dim=1), torch.ones(B))


def test_parts_are_those_of_the_formula_whatever_is_padded():
    made, batch = around("lbf"), regions()
    noisy = with_features(batch, batch.features + 9 * ~batch.mask[..., None])
    for ours, again, expected in zip(
        made.parts(batch), made.parts(noisy), parts(made, batch), strict=True
    ):
        np.testing.assert_allclose(array(ours.features), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(again.features, ours.features)
        assert ours.mask is batch.mask


def test_an_image_of_one_region_keeps_what_the_gate_lets_through():
    """Of one region nothing is left by the normalisation but the bias."""
    made, batch = around("lbf"), regions((1, 1))
    plus, plain, minus = (array(part.features)[:, 0] for part in made.parts(batch))
    bias = np.broadcast_to(array(made.bias), plain.shape)
    np.testing.assert_allclose(plain, bias, atol=1e-5)
    np.testing.assert_allclose(plus + minus - plain, array(batch.features)[:, 0], atol=1e-4)


def distances(query, target, distance):
    """Of each query from its target, and from the target before it in the batch."""
    q, t = (x.reshape(len(x), -1) for x in (query, target))
    q, t = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, t))
    halved = 2 if distance == "half-cosine" else 1
    return tuple(
        np.array([0.5 - q[i] @ t[(i - shift) % len(t)] / halved for i in range(len(q))])
        for shift in (0, 1)
    )


@pytest.mark.parametrize("distance", ["half-cosine", "cosine"])
@pytest.mark.parametrize("name", ["lbf", "tirg", "compose-ae", "learners"])
def test_both_losses_are_those_of_the_formula(name, distance):
    made = around("lbf" if name == "learners" else name, distance=distance)
    if name == "learners":
        made.model = Learners(made.model, region_dim=D, learners=2, divergence=1.0, margin=1.0)
    reference, target, read = regions(), regions((3, 5, 2, 6), seed=2), words()
    made.eval()
    near, far = zip(
        *(
            distances(
                array(made.model.encode_query(with_features(reference, r), read)),
                array(made.model.encode_image(with_features(target, t))),
                distance,
            )
            for r, t in zip(parts(made, reference), parts(made, target), strict=True)
        ),
        strict=True,
    )

    def softplus(x):
        return np.log1p(np.exp(x))

    expected = {
        "clarification": softplus(near[0] - near[1]) + softplus(far[1] - far[0]),
        "destruction": softplus(near[1] - near[2]) + softplus(far[2] - far[1]),
    }
    out = made(reference, read, target)
    for key, values in expected.items():
        weight, value = out.extra[key]
        assert weight == 0.2
        assert value.item() == pytest.approx(values.mean(), rel=1e-4)
    own = made.model(made.parts(reference)[0], read, made.parts(target)[0])
    torch.testing.assert_close(out.query, own.query)
    assert set(out.extra) == {*own.extra, *expected}


@pytest.mark.parametrize("name", NAMES)
def test_only_what_goes_on_leaves_a_trace_in_the_running_statistics(name):
    made, read = around(name).train(), words()
    seen, found = made.parts(regions())[0], made.parts(regions(seed=2))[0]
    alone = copy.deepcopy(made.model)
    alone(seen, read, found)
    made(regions(), read, regions(seed=2))
    expected = dict(alone.named_buffers())
    assert all(torch.equal(expected[key], buffer) for key, buffer in made.model.named_buffers())


@pytest.mark.parametrize("name", NAMES)
def test_every_model_trains_a_step_and_every_parameter_is_used(name):
    made = around(name).train()
    assert not in_training(made, regions(), words(), regions(seed=2))


def contrasts(run, material):
    """By how much F+ tells a target from another's better than F~ does, and F~ than F-.

    Of the training's queries, by the trained model: means over them.
    """
    made, reader = run.trained_model(), material.reader
    queries = material.dataset.split("train")
    rows = [reader.rows(queries[column].tolist()) for column in ("reference", "target")]
    reference, target = map(reader.gather, rows)
    read = run.words().encode(queries["text"].tolist())
    told = []
    with torch.inference_mode():
        for seen, found in zip(made.parts(reference), made.parts(target), strict=True):
            out = made.model(seen, read, found)
            near, far = distances(array(out.query), array(out.target), "half-cosine")
            told.append(float((far - near).mean()))
    return told[0] - told[1], told[1] - told[2]


@pytest.mark.parametrize("name", ["lbf", "tirg"])
def test_losses_clarify_and_destroy(drawn_scenes, name):
    features = drawn_scenes()
    given = {"input": "regions", "snr": True, "epochs": 16, "batch": 8, "select": "last"}
    _, destroyed_without = contrasts(*trained(features, settings(name, causality=0.0, **given)))
    run, material = trained(features, settings(name, causality=10.0, **given))
    clarified, destroyed = contrasts(run, material)
    assert clarified > 0
    assert destroyed > max(0, destroyed_without)
    first, last = run.history()[0], run.history()[-1]
    for key in ("clarification_loss", "destruction_loss"):
        # below 2 log 2 the mean contrast is above 0, softplus being convex
        assert last[key] < min(first[key], 10 * 2 * math.log(2))


def test_a_weight_of_0_leaves_the_losses_out(drawn_scenes):
    run, _ = trained(drawn_scenes(), settings("lbf", snr=True, causality=0.0, epochs=1))
    assert "clarification_loss" not in run.history()[0]


@pytest.mark.parametrize("name", ["lbf", "compose-ae"])
def test_a_stopped_training_goes_on_to_the_same_weights(drawn_scenes, name):
    chosen = settings(name, snr=True, learners=2, input="regions", embed=64)
    run = resumed(drawn_scenes(), chosen)
    assert {"clarification_loss", "destruction_loss", "divergence_loss"} <= set(run.history()[0])
    assert isinstance(run.trained_model().model, Learners)


def test_the_commands_take_both_and_evaluation_needs_neither(drawn_scenes):
    command = "train --features artifacts/css.h5 --model tirg --input regions --epochs 1 --batch 16"
    command += " --learners 2 --divergence 0.5 --divergence-margin 1.5 --snr --causality 0.3"
    command += " --causality-distance cosine --set embed_dim=32 --device cpu"
    drawn_scenes()
    for line in (f"{command} --verbose", "evaluate -v --device cpu"):
        done = cqr(*line.split())
        assert done.returncode == 0, done.stderr
        assert "Learners  2, divergence 0.5, margin 1.5\n" in done.stderr
        assert "SNR       causality 0.3, cosine\n" in done.stderr
    made = Run.load(Path("artifacts/runs/css-tirg-001")).trained_model()
    assert (made.causality, made.distance) == (0.3, "cosine")
    assert (made.model.learners, made.model.divergence, made.model.margin) == (2, 0.5, 1.5)


def test_runs_and_weights_from_before_there_were_such_settings_are_read(drawn_scenes):
    run, material = trained(drawn_scenes(), settings("lbf", epochs=1))
    content = json.loads((run.path / "run.json").read_text())
    for key in ("learners", "divergence", "divergence_margin", "snr", "causality"):
        del content["settings"][key]
    del content["settings"]["causality_distance"]
    (run.path / "run.json").write_text(json.dumps(content))
    assert Run.load(run.path) == run
    assert evaluate.evaluate(Run.load(run.path), material, CPU).metrics["queries"] == 72


def test_mixed_precision_trains_and_scores(drawn_scenes):
    chosen = settings("film", snr=True, input="regions", epochs=1)
    run, material = trained(drawn_scenes(), chosen, precision="bf16-mixed")
    assert math.isfinite(run.history()[0]["destruction_loss"])
    assert evaluate.evaluate(run, material, CPU).metrics["queries"] == 72


def test_attention_is_the_models_over_the_same_regions(drawn_scenes):
    run, material = trained(drawn_scenes(), settings("lbf", snr=True, epochs=1))
    made, batch = run.trained_model(), material.reader.gather(np.array([3]))
    text = ["make top-left red"]
    assert made.attends
    [found] = attended(made, run.words(), batch, text, CPU)
    plus = with_features(batch, parts(made, batch)[0])
    expected = made.model.attention(plus, run.words().encode(text))[0]
    np.testing.assert_allclose(found.weights, array(expected), rtol=1e-3, atol=1e-5)


def test_one_region_is_refused(drawn_scenes, write_features):
    only = r"--snr normalises over the regions of an image, and here it has only one: give --input"
    with pytest.raises(UserError, match=only):
        settings("tirg", snr=True)  # which is given the whole image
    with pytest.raises(UserError, match=only):
        settings("lbf", snr=True, k=1)
    reader = collect(drawn_scenes()).reader
    n, root = len(reader), reader.file.image_root
    file = write_features(
        "artifacts/css.h5", reader.paths, np.ones((n, 1, 4)), np.ones((n, 1, 4)), root=root
    )
    with pytest.raises(
        UserError, match=r"--snr needs two or more .*css.h5 holds one: extract with"
    ):
        start(collect(file), settings("lbf", snr=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"causality": -0.1}, "--causality -0.1 is less than 0"),
        ({"causality_distance": "l2"}, "--causality-distance l2 is not one of half-cosine, cosine"),
    ],
)
def test_values_out_of_range_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        Settings(**given)
