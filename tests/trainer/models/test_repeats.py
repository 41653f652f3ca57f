"""An image that comes more than once in a batch is encoded once, and nothing else changes."""

from dataclasses import replace

import pytest
import torch

from around_models import NAMES, model, regions, words
from cqr.trainer.features import RegionBatch

WHICH = torch.tensor([1, 0, 1, 2])
FIRST = torch.tensor([1, 0, 3])


def repeated():
    """Images b, a, b, c of the batch a, b, c, d; told, and not told, that b comes twice."""
    batch = regions()
    parts = (getattr(batch, name)[WHICH] for name in ("features", "boxes", "mask"))
    untold = RegionBatch(*parts)
    return replace(untold, first=FIRST, which=WHICH), untold


def test_once_and_again():
    told, untold = repeated()
    once = told.once
    for name in ("features", "boxes", "mask"):
        assert torch.equal(getattr(once, name), getattr(untold, name)[FIRST])
        assert torch.equal(told.again(getattr(once, name)), getattr(untold, name))
    assert once.once is once
    assert untold.once is untold
    assert untold.again(untold.boxes) is untold.boxes
    assert len(told) == len(told.to("cpu")) == 4
    assert torch.equal(told.to("cpu").which, WHICH)


def answers(name, encoder, training=False, **options):
    """Vectors, and in training the gradients of their sum, of a batch told and not told."""
    if name != "lbf" and encoder == "lbf":
        options = {"encoder": "lbf", "width": 16, "heads": 4, "vep_depth": 1, **options}
    found = []
    for batch in repeated():
        one, read = model(name, **options).train(training), words()
        torch.manual_seed(0)
        out = one(batch, read, batch)
        extra = [w * v for w, v in out.extra.values() if isinstance(v, torch.Tensor)]
        sum([(out.query * out.target).sum(), *extra]).backward()
        grads = {n: p.grad for n, p in one.named_parameters() if p.grad is not None}
        found.append(({"query": out.query, "target": out.target}, grads))
    return found


ON = [(name, encoder) for name in NAMES for encoder in ("linear", "lbf")]


@pytest.mark.parametrize(
    ("name", "encoder"), [one for one in ON if one[0] != "image-only" and one != ("lbf", "linear")]
)
def test_no_vector_changes(name, encoder):
    told, untold = answers(name, encoder)
    for one, other in zip(told, untold, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("choices", [{}, {"locate": 0.5}, {"dropout": 0.1, "locate": 0.5}])
def test_no_step_of_lbf_changes(choices):
    """With dropout each image of a batch has its own, also one that comes twice."""
    told, untold = answers("lbf", "lbf", training=True, **{"dropout": 0.0, **choices})
    for one, other in zip(told, untold, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_no_step_of_lbfs_encoders_with_dropout_changes():
    told, untold = answers("concatenation", "lbf", training=True, encoder_dropout=0.1)
    for one, other in zip(told, untold, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("locate", [0.0, 0.5])
def test_what_a_text_changes_does_not_change(locate):
    one, (told, untold) = model("lbf", locate=locate), repeated()
    torch.testing.assert_close(one.changed(told, words()), one.changed(untold, words()))


@pytest.mark.parametrize("name", ["lbf", "tirg"])
def test_what_is_sought_with_keeps_so_much_of_its_reference(name):
    one, (told, untold) = model(name), repeated()
    query, image = one.encode_query(untold, words()), one.encode_image(untold)
    assert torch.equal(one.query(untold, words()), query)
    one.reference_weight = 0.5
    mixed = query + 0.5 * image
    expected = mixed / mixed.norm(dim=1, keepdim=True)
    for batch in (told, untold):
        torch.testing.assert_close(one.query(batch, words()), expected)
        torch.testing.assert_close(one(batch, words(), batch).query, one.scale * query)
