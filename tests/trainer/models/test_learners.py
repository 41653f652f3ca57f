"""ABE learners around any model: against numpy, and what they do in a training."""

import math

import numpy as np
import pytest
import torch

from around_models import (
    NAMES,
    B,
    D,
    E,
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
from cqr.errors import UserError
from cqr.trainer.evaluation import evaluate
from cqr.trainer.evaluation.attended import attended
from cqr.trainer.features import RegionBatch
from cqr.trainer.models.learners import Learners, divergence
from cqr.trainer.text.vocabulary import WordBatch
from cqr.trainer.training.settings import Settings

CPU = torch.device("cpu")
M = 4


def around(name, learners=M, weight=1.0, margin=1.0, **options):
    """A model of vectors E / M wide, and its learners, away from where their weights start."""
    one = model(name, embed_dim=E // learners, **options)
    made = Learners(one, region_dim=D, learners=learners, divergence=weight, margin=margin)
    for part in (made.trunk, made.masks):
        for parameter in part.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return made.eval()


def masks(made, features):
    """M x K x D of an image's features K x D."""
    trunk = np.maximum(linear(made.trunk[0], features), 0)
    answers = 1 / (1 + np.exp(-linear(made.masks, trunk)))
    return np.stack(np.split(answers, made.learners, -1))


def by_learner(made, batch, encode):
    """M x B x E / M: the model's vectors of the features under each learner's mask."""
    seen = np.stack([masks(made, f) * f for f in array(batch.features)])
    return np.stack(
        [
            array(encode(RegionBatch(torch.tensor(one).float(), batch.boxes, batch.mask)))
            for one in seen.transpose(1, 0, 2, 3)
        ]
    )


@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_those_of_the_model_under_each_mask_side_by_side(name):
    made, batch, read = around(name), regions(), words()
    for ours, encode in (
        (made.encode_image(batch), made.model.encode_image),
        (made.encode_query(batch, read), lambda seen: made.model.encode_query(seen, read)),
    ):
        expected = np.concatenate(by_learner(made, batch, encode), -1) / 2  # sqrt(M)
        np.testing.assert_allclose(array(ours), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(expected, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("name", ["lbf", "tirg"])
def test_a_vector_does_not_depend_on_what_is_padded_or_beside_it(name):
    made, batch, read = around(name), regions(), words()
    wider = RegionBatch(
        torch.cat([batch.features, torch.randn(B, 2, D)], 1),
        torch.cat([batch.boxes, torch.rand(B, 2, 4)], 1),
        torch.cat([batch.mask, torch.zeros(B, 2, dtype=torch.bool)], 1),
    )
    query = made.encode_query(batch, read)
    torch.testing.assert_close(made.encode_query(wider, read), query)
    for i in range(B):
        parts = (t[i : i + 1] for t in (batch.features, batch.boxes, batch.mask))
        said = WordBatch(read.tokens[i : i + 1], read.mask[i : i + 1])
        torch.testing.assert_close(made.encode_query(RegionBatch(*parts), said), query[i : i + 1])


def test_what_a_training_step_is_given():
    made, read = around("compose-ae", learners=2, weight=0.3, margin=1.5), words()
    reference, target = regions(), regions((3, 5, 2, 6), seed=2)
    query, found, extra = made(reference, read, target)
    assert query.shape == found.shape == (B, 2, E // 2)
    joined = query.flatten(1) / math.sqrt(2)
    torch.testing.assert_close(joined, 4 * made.encode_query(reference, read))
    torch.testing.assert_close(found.flatten(1) / math.sqrt(2), 4 * made.encode_image(target))
    back, aim = extra["rotation"].value  # the model's own, by learner too
    assert back.shape == aim.shape == (B, 2, E // 2)
    torch.testing.assert_close(aim.flatten(1) / math.sqrt(2), 4 * made.encode_image(reference))
    weight, value = extra["divergence"]
    expected = np.mean([hinges(array(side) / 4, 1.5) for side in (query, found)])
    assert weight == 0.3
    assert value.item() == pytest.approx(expected, rel=1e-4)


def hinges(vectors, margin):
    """The mean of max(0, margin - squared distance) over images and pairs of learners."""
    terms = [
        max(0.0, margin - float(np.square(image[p] - image[q]).sum()))
        for image in vectors
        for q in range(len(image))
        for p in range(q)
    ]
    return np.mean(terms)


@pytest.mark.parametrize("margin", [0.5, 1.0, 3.0])
def test_divergence_is_a_hinge_on_the_distance_of_unit_vectors(margin):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 3, 4)) + 1
    unit = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    ours = divergence(torch.tensor(vectors), margin).item()
    assert ours == pytest.approx(hinges(unit, margin), rel=1e-5)
    cosines = [image[p] @ image[q] for image in unit for q in range(3) for p in range(q)]
    other = np.mean([2 * max(0.0, c - (1 - margin / 2)) for c in cosines])
    assert ours == pytest.approx(other, rel=1e-5)


def test_loss_is_the_mean_of_the_learners_losses(drawn_scenes, monkeypatch):
    """An epoch's loss, recomputed from the vectors of its steps."""
    seen, real = [], Learners.forward

    def forward(*args):
        seen.append(real(*args))
        return seen[-1]

    monkeypatch.setattr(Learners, "forward", forward)
    chosen = settings("tirg", learners=4, epochs=1, divergence=0.0)
    run, _ = trained(drawn_scenes(), chosen)
    losses = []
    for out in seen:
        q, t = array(out.query), array(out.target)
        for m in range(4):
            scores = q[:, m] @ t[:, m].T
            losses.append(np.mean(np.log(np.exp(scores).sum(1)) - np.diag(scores)))
    assert run.history()[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def likeness(run, material):
    """The mean cosine between two learners' vectors of one image."""
    made = run.trained_model()
    reader = material.reader
    batch = reader.gather(np.arange(len(reader)))
    with torch.inference_mode():
        vectors = made.encode_image(batch).unflatten(1, (made.learners, -1)) * made.learners**0.5
    cosines = (vectors @ vectors.transpose(1, 2)).mean(0)
    return float((cosines.sum() - cosines.trace()) / (made.learners * (made.learners - 1)))


@pytest.mark.parametrize("name", ["lbf", "tirg", "tirg whole"])
def test_divergence_keeps_the_learners_apart(drawn_scenes, name):
    name, _, whole = name.partition(" ")
    features = drawn_scenes()
    alike = {}
    for weight in (0.0, 1.0):
        given = {"input": whole or "regions", "epochs": 5, "batch": 8, "select": "last"}
        run, material = trained(features, settings(name, learners=3, divergence=weight, **given))
        alike[weight] = likeness(run, material)
        log = [line["divergence_loss"] for line in run.history()]
        assert all(v == 0 for v in log) if weight == 0 else log[-1] < log[0]
    assert 1 - alike[1.0] > 3 * (1 - alike[0.0]) > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("input_", ["regions", "whole"])
def test_every_model_trains_a_step_and_every_parameter_is_used(name, input_):
    made = around(name, learners=2).train()
    counts = (1, 1, 1, 1) if input_ == "whole" else (6, 4, 1, 2)
    idle = in_training(made, regions(counts), words(), regions(counts, seed=2))
    # over one region the attention of lbf and cosmo is 1 whatever its keys are
    keys = ("attention", ".asked.", ".key.", ".query.")
    own = {key for key in idle if any(k in key for k in keys)} if input_ == "whole" else set()
    assert idle == own


@pytest.mark.parametrize("name", ["lbf", "compose-ae"])
def test_a_stopped_training_goes_on_to_the_same_weights(drawn_scenes, name):
    resumed(drawn_scenes(), settings(name, learners=2, input="regions", embed=64))


def test_mixed_precision_trains_and_scores(drawn_scenes):
    chosen = settings("lbf", learners=2, epochs=1)
    run, material = trained(drawn_scenes(), chosen, precision="bf16-mixed")
    assert math.isfinite(run.history()[0]["divergence_loss"])
    assert evaluate.evaluate(run, material, CPU).metrics["queries"] == 72


def test_attention_is_the_mean_of_the_learners(drawn_scenes):
    run, material = trained(drawn_scenes(), settings("lbf", learners=2, epochs=1))
    made, reader, text = run.trained_model(), material.reader, ["make top-left red"]
    assert made.attends
    [found] = attended(made, run.words(), reader.gather(np.array([0])), text, CPU)
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-5)
    read = run.words().encode(text)
    batch = reader.gather(np.array([0]))
    each = [
        made.model.attention(
            RegionBatch(torch.tensor(one).float()[None], batch.boxes, batch.mask), read
        )
        for one in masks(made, array(batch.features)[0]) * array(batch.features)[0]
    ]
    np.testing.assert_allclose(found.weights, array(sum(each)[0] / 2), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("width", [0, 48])
def test_learners_that_cannot_share_the_width_are_refused(width):
    message = rf"--learners 5 cannot share vectors of embed_dim={width} evenly: give --set"
    with pytest.raises(UserError, match=message):
        settings("lbf", learners=5, embed=width)
    assert settings("lbf", learners=1, embed=width).learners == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"learners": 0}, "--learners 0 is less than 1"),
        ({"divergence": -1.0}, "--divergence -1.0 is less than 0"),
        ({"divergence_margin": math.nan}, "--divergence-margin nan is less than 0"),
    ],
)
def test_values_out_of_range_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        Settings(**given)
