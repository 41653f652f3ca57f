"""What an explanation points at, how often that is right, and why a result was found."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from around_models import settings, trained
from cqr.trainer.datasets.queries import MEANT, PHRASE
from cqr.trainer.datasets.readers import css
from cqr.trainer.evaluation import evaluate, pointing
from cqr.trainer.evaluation.explained import Shown, best, explained, has, shown_of
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.features import RegionBatch
from cqr.trainer.models import MODELS
from cqr.trainer.models.learners import Learners
from cqr.trainer.models.snr import SNR
from cqr.trainer.text.vocabulary import Vocabulary
from peers_in_numpy import B, array, model, regions, words

CPU = torch.device("cpu")
TEXTS = ["make big red ball blue", "remove left ball"]
READS = Vocabulary.of(TEXTS)


# shares of a score


def scores_and_shares(one):
    batch = regions()
    query, image = one.encode_query(regions(seed=4), words()), one.encode_image(batch)
    return batch, (query * image).sum(1), one.shares(batch, query.detach())


DIVIDES = [
    ("lbf", {"pool": "max"}),
    ("lbf", {"pool": "mean"}),
    ("lbf", {"pool": "max", "embed_dim": 0}),
    ("concatenation", {"pool": "max"}),
    ("tirg", {"local": "mlp"}),
    ("film", {"encoder": "lbf", "width": 16, "heads": 4, "pool": "max"}),
]


@pytest.mark.parametrize(("name", "options"), DIVIDES)
def test_shares_sum_to_the_score(name, options):
    one = model(name, **options)
    assert one.divides
    batch, scores, shares = scores_and_shares(one)
    assert shares.shape == batch.mask.shape
    torch.testing.assert_close(shares.sum(1), scores.detach())
    assert (shares[~batch.mask] == 0).all()
    assert (shares[0].abs() > 1e-4).sum() > 1  # no one region has it all


def test_shares_of_what_goes_around_a_model_sum_too():
    inner = model("lbf", pool="max", embed_dim=16)
    around = Learners(inner, region_dim=10, learners=2, divergence=1.0, margin=1.0).eval()
    _, scores, shares = scores_and_shares(around)
    torch.testing.assert_close(shares.sum(1), scores.detach())
    snr = SNR(inner, region_dim=10, causality=0.1, distance="cosine").eval()
    _, scores, shares = scores_and_shares(snr)
    torch.testing.assert_close(shares.sum(1), scores.detach())


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_nothing_is_pooled_with_the_regions_and_has_a_share(pool):
    one = model("lbf", pool=pool, nothing=True)
    batch, scores, shares = scores_and_shares(one)
    query = array(one.encode_query(regions(seed=4), words()))
    mapped, nothing = array(one.out_regions(one.image_states(batch))), array(one.nothing)
    rest = []
    for i in range(B):
        rows = np.concatenate([mapped[i][batch.mask[i].numpy()], nothing[None]])
        image = rows.max(0) if pool == "max" else rows.mean(0)
        image /= np.linalg.norm(image)
        assert scores[i].item() == pytest.approx(query[i] @ image, abs=1e-5)
        own = image * (rows.argmax(0) == len(rows) - 1)
        if pool == "mean":
            own = nothing / np.linalg.norm(rows.sum(0))
        rest.append(query[i] @ own)
    np.testing.assert_allclose(array(scores - shares.sum(1)), rest, rtol=1e-3, atol=1e-5)
    assert model("lbf").nothing is None


def test_each_dimension_belongs_to_the_region_whose_it_is():
    one = model("lbf", pool="max")
    batch = regions()
    query = array(one.encode_query(batch, words()))
    mapped = array(one.out_regions(one.image_states(batch)))
    shares = array(one.shares(batch, torch.from_numpy(query).float()))
    for i in range(B):
        own = mapped[i][batch.mask[i].numpy()]
        length = np.linalg.norm(own.max(0))
        expected = np.zeros(len(own))
        for e in range(own.shape[1]):
            expected[own[:, e].argmax()] += query[i, e] * own[:, e].max() / length
        np.testing.assert_allclose(shares[i, : len(own)], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_says_whether_its_score_divides(name):
    one = model(name)
    assert one.divides == (name not in ("maaf", "cosmo", "val", "clvc-net"))
    if name == "tirg":
        assert not model("tirg", form="last-conv", side=3).divides
    if not one.divides:
        with pytest.raises(ValueError, match="does not divide"):
            one.shares(regions(), torch.zeros(B, 32))


# pointing


class Told:
    """A model whose words and change point where they are told."""

    attends = changes = True

    def __init__(self, attention, change):
        self.told, self.moved = torch.tensor(attention), torch.tensor(change)

    def attention(self, regions, words):
        return self.told[: len(regions)]

    def changed(self, regions, words):
        return self.moved[: len(regions)]


class Reader:
    """Two pictures of 100 x 50 with three and two regions."""

    kind = "regions"

    def __init__(self):
        self.file = type("File", (), {"sizes": np.array([[100, 50]] * 2)})

    def rows(self, names):
        return np.array([{"a": 0, "b": 1}.get(name, -1) for name in names])

    def gather(self, rows):
        boxes = torch.tensor(
            [
                [[0, 0, 0.2, 0.4], [0.5, 0.5, 0.7, 0.9], [0.5, 0, 0.7, 0.4]],
                [[0, 0, 0.2, 0.4], [0.5, 0.5, 0.7, 0.9], [0, 0, 0, 0]],
            ]
        )[torch.from_numpy(rows)]
        mask = torch.tensor([[True] * 3, [True, True, False]])[torch.from_numpy(rows)]
        return RegionBatch(torch.zeros(len(rows), 3, 4), boxes, mask)


QUERIES = pd.DataFrame(
    {
        "reference": ["a", "b", "a", "elsewhere"],
        "text": [*TEXTS, "add a ball", TEXTS[0]],
        PHRASE: ["big red ball", "left ball", None, "big red ball"],
        MEANT[0]: [50.0, 1.0, math.nan, 0.0],
        MEANT[1]: [25.0, 0.0, math.nan, 0.0],
        MEANT[2]: [70.0, 20.0, math.nan, 1.0],
        MEANT[3]: [45.0, 20.0, math.nan, 1.0],
    }
)


def test_pointing_is_counted_by_boxes_of_the_object_meant():
    # words of the first text: make, big, red, ball, blue; those that refer look at region 1
    look = [[[0.9, 0, 0.1], [0, 0.8, 0.2], [0.5, 0.4, 0.1], [0, 0.6, 0.4], [0, 0, 1]]] * 2
    one = Told(look, [[0.1, 0.2, 0.3], [0.3, 0.2, 9.0]])  # padding is never pointed at
    found = pointing.measure(one, READS, Reader(), QUERIES, CPU)
    assert found == {
        "queries": 2,
        "chance": pytest.approx(100 * (1 / 3 + 1 / 2) / 2),
        "attention": 50.0,  # right of the first; of the second, words 1 and 2 look at region 1
        "change": 50.0,  # wrong of the first, right of the second
    }


def test_nothing_is_measured_where_no_object_is_known():
    one = Told([[[1.0, 0, 0]] * 5] * 3, [[1.0, 0, 0]] * 3)
    reader = Reader()
    assert pointing.measure(one, READS, reader, QUERIES.drop(columns=PHRASE), CPU) is None
    assert pointing.measure(one, READS, reader, QUERIES.iloc[2:], CPU) is None
    far = QUERIES.assign(**dict(zip(MEANT, (98.0, 48.0, 99.0, 49.0), strict=True)))
    assert pointing.measure(one, READS, reader, far, CPU) is None
    reader.kind = "whole"
    assert pointing.measure(one, READS, reader, QUERIES, CPU) is None
    assert pointing.measure(model("tirg"), READS, Reader(), QUERIES, CPU) is None


def test_words_that_refer():
    assert pointing.referring(READS, TEXTS[0], "big red ball") == slice(1, 4)
    assert pointing.referring(READS, TEXTS[0], "green cube") == slice(0, 5)

    class Marked:
        def tokens(self, text):
            return ["[CLS]", *text.split(), "[SEP]"]

    assert pointing.referring(Marked(), TEXTS[0], "big red ball") == slice(2, 5)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (None, Shown("attention")),
        (
            {"queries": 9, "chance": 20.0, "attention": 60.0, "change": 90.0},
            Shown("change", 90.0, 20.0, 9),
        ),
        ({"queries": 9, "chance": 20.0, "attention": 41.0}, Shown("attention", 41.0, 20.0, 9)),
        (
            {"queries": 9, "chance": 20.0, "attention": 39.0, "change": 5.0},
            Shown(None, 39.0, 20.0, 9),
        ),
    ],
)
def test_the_best_way_is_shown_unless_it_is_near_chance(measured, expected):
    assert best(measured) == expected
    assert ("39.0 % of the 9 queries" in best(measured).said) == (expected.way is None)


def test_what_a_text_changes_is_shown_as_a_row_of_shares():
    one, batch = model("lbf"), regions()
    read = READS
    [first, *_] = explained(one, read, batch, [TEXTS[0]] * B, CPU, "change")
    moved = one.changed(batch, read.encode([TEXTS[0]] * B))
    assert first.words == [TEXTS[0]]
    np.testing.assert_allclose(first.weights[0], array(moved[0] / moved[0].sum()), rtol=1e-4)
    assert (moved[~batch.mask] == 0).all()
    assert not has(model("tirg"), "change")
    assert not has(one, None)
    assert not model("lbf", fusion_depth=0).changes
    assert not model("lbf", directions="language").changes


def test_change_is_the_distance_between_mapped_states():
    one, batch, read = model("lbf"), regions(), words()
    before = one.image_states(batch)
    *_, (after, _) = one.fuse(before, batch, one.word_states(read), read)
    expected = np.linalg.norm(
        array(one.out_regions(after)) - array(one.out_regions(before)), axis=-1
    )
    expected[~batch.mask.numpy()] = 0
    np.testing.assert_allclose(array(one.changed(batch, read)), expected, rtol=1e-4, atol=1e-5)


# generated scenes know the object


def test_generated_scenes_say_which_object_is_meant(drawn_scenes):
    features = drawn_scenes()
    run, material = trained(features, settings("lbf", epochs=1, select="last"))
    queries = material.dataset.queries
    refers = queries["kind"] != "add"
    assert (queries[PHRASE].notna() == refers).all()
    assert (queries[MEANT[0]].notna() == refers).all()
    by_file = {}
    for split in ("train", "test"):
        content = json.loads((material.dataset.root / f"{split}.json").read_text())
        by_file |= {image["file"]: image["objects"] for image in content["images"]}
    for row in queries[refers].itertuples():
        said = set(getattr(row, PHRASE).split())
        fits = [
            one
            for one in by_file[row.reference]
            if said - {"object"} <= {one["cell"], one["size"], one["color"], one["shape"]}
        ]
        assert [one["box"] for one in fits] == [[getattr(row, edge) for edge in MEANT]]
    found = evaluate.evaluate(run, material, CPU)
    measured = found.metrics["pointing"]
    assert measured["queries"] == (refers & (queries["split"] == "test")).sum()
    assert 0 < measured["chance"] < 100
    assert {"attention", "change"} <= measured.keys()
    Stored(run.evaluation()).write(found)
    assert shown_of(run) == best(measured)
    peer, _ = trained(features, settings("tirg", epochs=1, select="last"))
    assert evaluate.evaluate(peer, material, CPU).metrics["pointing"] is None
    assert css.PHRASE == PHRASE
