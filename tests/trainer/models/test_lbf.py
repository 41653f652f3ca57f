import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from cqr.errors import UserError
from cqr.trainer.features import RegionBatch
from cqr.trainer.models import build, options_of
from cqr.trainer.models.attention import Places
from cqr.trainer.models.encoders import RegionEmbedding, between, waves
from cqr.trainer.models.lbf import LBF
from cqr.trainer.models.lbf_config import LBFConfig
from cqr.trainer.models.locating import pointing, vanished
from cqr.trainer.text.vocabulary import TextSpec, WordBatch
from cqr.trainer.training.steps.losses import batch_classification

SMALL = LBFConfig(
    width=16, heads=4, vep_depth=1, tep_depth=1, fusion_depth=2, embed_dim=24, dropout=0.0
)

IDS = TextSpec(max_words=8, words=20)


def model(**choices):
    torch.manual_seed(0)
    return LBF(region_dim=10, text=IDS, config=replace(SMALL, **choices)).eval()


@pytest.fixture
def regions():
    torch.manual_seed(1)
    features = torch.randn(4, 6, 10)
    boxes = torch.rand(4, 6, 4)
    mask = torch.arange(6) < torch.tensor([[6], [4], [1], [2]])
    return RegionBatch(features * mask[..., None], boxes * mask[..., None], mask)


def words(ids):
    return WordBatch(ids, ids != 0)


def affine(linear, x):
    return x @ linear.weight.detach().numpy().T + linear.bias.detach().numpy()


WORDS = words(torch.tensor([[2, 3, 4, 0], [5, 0, 0, 0], [6, 7, 8, 9], [2, 2, 0, 0]]))


def test_vectors_are_of_unit_length_and_scaled_in_training(regions):
    lbf = model()
    for vector in (lbf.encode_image(regions), lbf.encode_query(regions, WORDS)):
        assert vector.shape == (4, 24)
        torch.testing.assert_close(vector.norm(dim=1), torch.ones(4))
    query, image, _ = lbf(regions, WORDS, regions)
    torch.testing.assert_close(query, 4 * lbf.encode_query(regions, WORDS))
    torch.testing.assert_close(image, 4 * lbf.encode_image(regions))


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_neither_the_order_of_regions_nor_padding_matters(regions, pool):
    lbf = model(pool=pool)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    shuffled = RegionBatch(*(getattr(regions, f)[:, order] for f in ("features", "boxes", "mask")))
    longer = RegionBatch(
        torch.cat([regions.features, torch.randn(4, 2, 10)], 1),
        torch.cat([regions.boxes, torch.rand(4, 2, 4)], 1),
        torch.cat([regions.mask, torch.zeros(4, 2, dtype=torch.bool)], 1),
    )
    wider = words(torch.cat([WORDS.tokens, torch.zeros(4, 3, dtype=torch.int64)], 1))
    expected = lbf.encode_query(regions, WORDS)
    for other, read in ((shuffled, WORDS), (longer, WORDS), (regions, wider)):
        torch.testing.assert_close(lbf.encode_query(other, read), expected)


def test_a_batch_does_not_change_a_vector(regions):
    lbf = model()
    together = lbf.encode_query(regions, WORDS)
    for i in range(4):
        one = RegionBatch(
            regions.features[i : i + 1], regions.boxes[i : i + 1], regions.mask[i : i + 1]
        )
        torch.testing.assert_close(
            lbf.encode_query(one, words(WORDS.tokens[i : i + 1]))[0], together[i]
        )


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_words_may_be_features(regions, dtype):
    """One-hot features through a linear map are what ids through a table (of normed rows) are."""
    ids = model()
    table = ids.embed_words.word.weight.data[1:]  # all but the padding
    table[:] = (table - table.mean(1, keepdim=True)) / table.std(1, correction=0, keepdim=True)
    features = LBF(region_dim=10, text=TextSpec(max_words=8, dim=20), config=SMALL).eval()
    state = ids.state_dict()
    state["embed_words.word.map.weight"] = state.pop("embed_words.word.weight").T
    state["embed_words.word.map.bias"] = torch.zeros(16)
    for name in ("weight", "bias"):
        state[f"embed_words.word.norm.{name}"] = features.embed_words.word.norm.state_dict()[name]
    features.load_state_dict(state)
    one_hot = torch.nn.functional.one_hot(WORDS.tokens, 20) * WORDS.mask[..., None]
    batch = WordBatch(one_hot.to(dtype), WORDS.mask)
    expected = ids.encode_query(regions, WORDS)
    torch.testing.assert_close(features.encode_query(regions, batch), expected)
    noise = torch.randn(4, 4, 20).to(dtype) * ~WORDS.mask[..., None]
    noisy = WordBatch(batch.tokens + noise, WORDS.mask)
    torch.testing.assert_close(features.encode_query(regions, noisy), expected)


@pytest.mark.parametrize("reach", [0, 1])
def test_the_order_of_words_matters(regions, reach):
    lbf = model(word_reach=reach)
    swapped = words(WORDS.tokens[:, [1, 0, 2, 3]])
    assert not torch.allclose(
        lbf.encode_query(regions, WORDS)[0], lbf.encode_query(regions, swapped)[0]
    )


def test_what_is_known_between_two_boxes_is_how_far_their_middles_are(regions):
    x1, y1, x2, y2 = regions.boxes[0].numpy().T
    middles = np.stack([x1 + x2, y1 + y2], 1) / 2
    found = between(regions.boxes)
    for i in range(6):
        for j in range(6):
            across, down = middles[j] - middles[i]
            far = math.hypot(across, down)
            near = [math.exp(-((far * 8 - step) ** 2)) for step in range(9)]
            expected = [across, down, far, math.log(4 * far + 0.2), *near]
            np.testing.assert_allclose(found[0, i, j], expected, atol=1e-5)


def test_visual_and_positional_embeddings_are_normed_and_averaged(regions):
    torch.manual_seed(0)
    embedding = RegionEmbedding(10, SMALL).eval()

    def layer_norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    visual = layer_norm(affine(embedding.visual[0], regions.features.numpy()))
    position = layer_norm(affine(embedding.position[0], regions.boxes.numpy()))
    ours = embedding(regions).detach().numpy()
    real, expected = regions.mask.numpy(), (visual + position) / 2
    np.testing.assert_allclose(ours[real], expected[real], rtol=1e-4, atol=1e-5)


def test_waves_are_sines_and_cosines_of_corners():
    torch.manual_seed(0)
    boxes = torch.rand(3, 4)
    turns = [[x * math.pi * t for x in row for t in (0.5, 1, 2, 4, 8)] for row in boxes.tolist()]
    expected = np.concatenate([np.sin(turns), np.cos(turns)], axis=1)
    np.testing.assert_allclose(waves(boxes), expected, atol=1e-5)
    told = RegionEmbedding(10, replace(SMALL, waves=True, position="corners+area"))
    assert told.position[0].in_features == 4 + 1 + 40
    silent = RegionEmbedding(10, replace(SMALL, waves=True, position="none"))
    assert silent.position is None


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_an_image_is_its_regions_each_mapped_then_pooled(regions, pool):
    lbf = model(pool=pool)
    first, _, second = lbf.out_regions
    gelu = np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)
    for states, mask, ours in zip(
        lbf.image_states(regions).detach().numpy(),
        regions.mask.numpy(),
        lbf.encode_image(regions).detach().numpy(),
        strict=True,
    ):
        mapped = affine(second, gelu(affine(first, states[mask])))
        pooled = {"mean": np.mean, "max": np.max}[pool](mapped, axis=0)
        np.testing.assert_allclose(ours, pooled / np.linalg.norm(pooled), rtol=1e-4, atol=1e-5)


def test_each_word_attends_to_the_real_regions_with_weights_that_sum_to_one(regions):
    lbf = model()
    weights = lbf.attention(regions, WORDS)
    assert weights.shape == (4, 4, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(4, 4))
    assert (weights[~regions.mask[:, None].expand_as(weights)] == 0).all()


def test_a_separate_input_map_is_of_the_references_alone(regions):
    shared, separate = model(), model(separate_reference=True)
    separate.load_state_dict(shared.state_dict(), strict=False)
    unlike = separate.encode_query(regions, WORDS)
    assert not torch.allclose(unlike, shared.encode_query(regions, WORDS))
    torch.testing.assert_close(separate.encode_image(regions), shared.encode_image(regions))
    separate.embed_reference.load_state_dict(shared.embed_regions.state_dict())
    torch.testing.assert_close(
        separate.encode_query(regions, WORDS), shared.encode_query(regions, WORDS)
    )
    torch.testing.assert_close(separate.attention(regions, WORDS), shared.attention(regions, WORDS))


CHOICES = [
    {"position": "corners+area"}, {"position": "none"}, {"combine": "sum"}, {"input_norm": False},
    {"directions": "visual"}, {"directions": "language"}, {"joint": "visual"},
    {"joint": "language"}, {"pool": "max"}, {"embed_dim": 0}, {"vep_depth": 0}, {"tep_depth": 0},
    {"fusion_depth": 1}, {"hidden": 1}, {"heads": 2}, {"separate_reference": True},
    {"nothing": True}, {"word_reach": 2}, {"joint": "union"}, {"waves": True},
    {"relations": True},
]  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES, ids=lambda c: str(next(iter(c.items()))))
def test_every_choice_changes_the_query_and_trains(regions, choice):
    lbf = model(**choice)
    plain = model().encode_query(regions, WORDS)
    query, image, _ = lbf(regions, WORDS, regions)
    assert query.shape != plain.shape or not torch.allclose(query / 4, plain)
    torch.manual_seed(5)
    (query @ torch.randn(query.shape[1]) + image @ torch.randn(query.shape[1])).sum().backward()
    idle = {name for name, p in lbf.named_parameters() if p.grad is None}
    expected = {
        "joint=visual": ("out_words", "read.1"),
        "joint=language": ("see.1",),
        "directions=language": (),
    }.get("=".join(map(str, next(iter(choice.items())))), ())
    assert all(name.startswith(expected) for name in idle) if expected else not idle


@pytest.mark.parametrize("nothing", [False, True])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_a_union_is_one_pool_of_regions_and_words(regions, pool, nothing):
    lbf = model(joint="union", pool=pool, nothing=nothing)
    if nothing:
        torch.nn.init.normal_(lbf.nothing)
    *_, (visual, language) = lbf.fuse(
        lbf.image_states(regions), regions, lbf.word_states(WORDS), WORDS
    )
    found = lbf.encode_query(regions, WORDS)
    for row in range(len(found)):
        mapped = [*lbf.out_regions(visual[row][regions.mask[row]])]
        mapped += [*lbf.out_words(language[row][WORDS.mask[row]])]
        mapped += [lbf.nothing] if nothing else []
        one = torch.stack(mapped)
        one = one.amax(0) if pool == "max" else one.mean(0)
        torch.testing.assert_close(found[row], torch.nn.functional.normalize(one, dim=0))


def test_every_field_is_described():
    for field in dataclasses.fields(LBFConfig):
        assert f"\n        {field.name}: " in LBFConfig.__doc__


def test_options_are_parsed_by_type_and_refused_by_name():
    options = options_of(
        "lbf", {"width": 64, "loss": "x"}, ["heads=2", "input_norm=false", "pool=max"]
    )
    assert (options["width"], options["heads"], options["input_norm"]) == (64, 2, False)
    assert LBFConfig(**options).pool == "max"
    for item, message in {
        "width": "--set width is not NAME=VALUE with a NAME of lbf: combine, ",
        "depth=2": "--set depth=2 is not NAME=VALUE with a NAME of lbf: combine, ",
        "width=wide": "--set width=wide: 'wide' is not int",
        "pool=sum": "--set pool=sum: choose one of mean, max",
        "input_norm=1": "--set input_norm=1: choose true or false",
        "where=inf": "--set where=inf is not a finite number",
        "dropout=nan": "--set dropout=nan is not a finite number",
    }.items():
        with pytest.raises(UserError, match=message):
            options_of("lbf", {}, [item])
    with pytest.raises(UserError, match="no model is called 'gru'; there are lbf"):
        options_of("gru", {}, [])
    with pytest.raises(
        UserError, match="width 10 is not a multiple of heads 4; change it with --set"
    ):
        build("lbf", {"width": 10, "heads": 4}, region_dim=3, text=IDS)


@pytest.mark.parametrize("embed_dim", [0, 24])
def test_a_vector_is_the_mean_of_the_mapped_states(regions, embed_dim):
    """Whatever the order in which it is computed."""
    lbf = model(embed_dim=embed_dim)
    states, expected = lbf.image_states(regions), []
    for row, real in zip(states, regions.mask, strict=True):
        expected.append(torch.stack([lbf.out_regions(state) for state in row[real]]).mean(0))
    expected = torch.nn.functional.normalize(torch.stack(expected), dim=-1)
    torch.testing.assert_close(lbf.encode_image(regions), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_leaving_out_padding_changes_neither_loss_nor_gradient(regions, pool, monkeypatch):
    lbf = model(pool=pool, dropout=0.2).train()

    def of_a_step():
        torch.manual_seed(3)
        query, image, _ = lbf(regions, WORDS, regions)
        loss = batch_classification(query, image)
        return loss, torch.autograd.grad(loss, list(lbf.parameters()))

    loss, gradient = of_a_step()
    monkeypatch.setattr(Places, "of", lambda mask: Places(mask, None))
    expected, expected_gradient = of_a_step()
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("loss", ["locate", "where"])
def test_it_learns_which_region_the_target_has_not(regions, loss):
    """Trained by either loss alone, a text's change or the map points where the pictures differ."""
    torch.manual_seed(0)
    lbf = model(**{loss: 1.0}).train()
    target = replace(regions, features=regions.features.clone())
    target.features[[0, 1, 3], [4, 2, 1]] += 3
    optimizer = torch.optim.Adam(lbf.parameters(), 0.01)
    losses = []
    for _ in range(60):
        (extra,) = lbf(regions, WORDS, target).extra.values()
        optimizer.zero_grad()
        extra.value.backward()
        optimizer.step()
        losses.append(extra.value.item())
    assert losses[-1] < losses[0] / 3
    lbf.eval()
    says = lbf.changed(regions, WORDS)
    if loss == "where":
        *_, (fused, _) = lbf.fuse(lbf.image_states(regions), regions, lbf.word_states(WORDS), WORDS)
        says = lbf.where(fused)[..., 0].masked_fill(~regions.mask, -torch.inf)
    assert says[[0, 1, 3]].argmax(1).tolist() == [4, 2, 1]


def test_every_layer_is_taught_where_and_each_counts_alike(regions):
    lbf = model(where=1.0, where_layers="all", fusion_depth=3)
    target = replace(regions, features=regions.features.flip(0))
    gone = vanished(regions, target)
    _, *states = lbf.fuse(lbf.image_states(regions), regions, lbf.word_states(WORDS), WORDS)
    each = []
    for fused, _ in states:
        says = lbf.where(fused)[..., 0].masked_fill(~regions.mask, -torch.inf)
        each.append(pointing(says, gone))
    assert len(each) == 3
    found = lbf(regions, WORDS, target).extra["where"].value
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_without_it_nothing_is_added_and_with_it_vectors_are_the_same(regions):
    plain, told = model(), model(locate=0.5)
    told.load_state_dict(plain.state_dict())
    both = model(locate=0.5, where=0.25)
    both.load_state_dict(plain.state_dict(), strict=False)
    assert plain.config.locate == SMALL.locate == SMALL.where == 0
    out, also = plain(regions, WORDS, regions), told(regions, WORDS, regions)
    assert not out.extra
    assert also.extra["locate"].weight == 0.5
    more = both(regions, WORDS, regions)
    assert {name: weight for name, (weight, _) in more.extra.items()} == {
        "locate": 0.5,
        "where": 0.25,
    }
    torch.testing.assert_close(more.query, out.query)
    torch.testing.assert_close(out.query, also.query)
    torch.testing.assert_close(out.target, also.target)
