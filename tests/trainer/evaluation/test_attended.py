"""Words over regions: what is said of each query, alone and among others."""

import numpy as np
import pytest
import torch

from cqr.errors import UserError
from cqr.trainer.evaluation.attended import attended
from cqr.trainer.features import RegionBatch
from cqr.trainer.models import build
from cqr.trainer.text.vocabulary import Vocabulary

CPU = torch.device("cpu")
TEXTS = ["make red", "make it very red", "?!"]
WORDS = Vocabulary.of(TEXTS, max_words=3)


def model(**options):
    torch.manual_seed(0)
    small = {"width": 8, "heads": 2, "embed_dim": 8}
    return build("lbf", small | options, region_dim=5, text=WORDS.spec).eval()


@pytest.fixture
def regions():
    torch.manual_seed(1)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [True] + [False] * 3])
    boxes = torch.rand(3, 4, 4).sort(-1).values * mask[..., None]
    return RegionBatch(torch.randn(3, 4, 5) * mask[..., None], boxes, mask)


def test_each_word_that_is_read_is_given_the_weights_of_the_real_regions(regions):
    found = attended(model(), WORDS, regions, TEXTS, CPU)
    assert [one.words for one in found] == [["make", "red"], ["make", "it", "very"], ["?!"]]
    assert [one.weights.shape for one in found] == [(2, 4), (3, 2), (1, 1)]
    for one, boxes, mask in zip(found, regions.boxes, regions.mask, strict=True):
        np.testing.assert_allclose(one.weights.sum(1), 1, rtol=1e-5)
        np.testing.assert_array_equal(one.boxes, boxes[mask])


def test_a_query_is_attended_alike_in_any_company(regions):
    lbf = model()
    together = attended(lbf, WORDS, regions, TEXTS, CPU)
    for i, text in enumerate(TEXTS):
        parts = (t[i : i + 1] for t in (regions.features, regions.boxes, regions.mask))
        (alone,) = attended(lbf, WORDS, RegionBatch(*parts), [text], CPU)
        np.testing.assert_allclose(alone.weights, together[i].weights, rtol=1e-4, atol=1e-6)


def test_models_without_such_attention_are_refused(regions):
    for other in (
        model(directions="visual"),
        build("image-only", {}, region_dim=5, text=WORDS.spec),
    ):
        assert not other.attends
        with pytest.raises(UserError, match="only lbf's"):
            attended(other, WORDS, regions, TEXTS, CPU)
