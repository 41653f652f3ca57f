"""MAAF, DeepSet, Combiner, CoSMo, VAL, CLVC-Net and the map: each by its formula in numpy.

The formulas were read in the papers' public code, and are written down here picture by
picture, place by place, without masks and padding.
"""

import numpy as np
import pytest
import torch

from cqr.trainer.models.maps import on_map
from peers_in_numpy import (
    B,
    E,
    array,
    assert_query,
    convolve,
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


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def by_query(one, batch, read):
    """Of each query: its regions' local vectors, their boxes, and its words' embeddings."""
    table = array(one.text.word.weight) if hasattr(one, "text") else None
    for f, boxes, m, ids, real in zip(
        array(batch.features),
        array(batch.boxes),
        batch.mask.numpy(),
        read.tokens.numpy(),
        read.mask.numpy(),
        strict=True,
    ):
        local = linear(one.image.map, f[m]) if hasattr(one, "image") else f[m]
        yield local, boxes[m], None if table is None else table[ids[real]]


def states_of(cell, sequence):
    """The state of an LSTM after each of a sequence."""
    w_in, w_state = array(cell.weight_ih_l0), array(cell.weight_hh_l0)
    bias = array(cell.bias_ih_l0) + array(cell.bias_hh_l0)
    state = memory = np.zeros(w_state.shape[1])
    out = []
    for x in sequence:
        i, f, g, o = np.split(w_in @ x + w_state @ state + bias, 4)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
        state = sigmoid(o) * np.tanh(memory)
        out.append(state)
    return np.stack(out)


# MAAF


def annotated_norm(layer, x):
    deviation = x.std(-1, keepdims=True, ddof=1) + 1e-6
    return array(layer.gain) * (x - x.mean(-1, keepdims=True)) / deviation + array(layer.bias)


def stream(one, x):
    """The pre-norm transformer over N x d."""
    for block in one.blocks:
        n = annotated_norm(block.norms[0], x)
        width, mixed = E // block.heads, []
        for h in range(block.heads):
            part = slice(h * width, (h + 1) * width)
            q, k, v = (linear(p, n)[:, part] for p in (block.query, block.key, block.value))
            scores = q @ k.T / np.sqrt(width)
            mixed.append((softmax(scores) if block.softmax else scores) @ v)
        x = x + linear(block.mix, np.concatenate(mixed, 1))
        x = x + linear(block.second, relu(linear(block.first, annotated_norm(block.norms[1], x))))
    return annotated_norm(one.norm, x)


@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize("output", ["both", "image", "token"])
@pytest.mark.parametrize("attention", ["softmax", "identity"])
def test_maaf_is_one_stream(output, pool, attention):
    one = model("maaf", output=output, pool=pool, attention=attention, blocks=2, stream_hidden=12)
    batch, read = regions(), words()
    over = np.mean if pool == "mean" else np.max
    token = [] if one.token is None else [array(one.token)[None]]
    queries, targets = [], []
    for local, _, spoken in by_query(one, batch, read):
        said = states_of(one.text.lstm, spoken)
        joint, alone = (
            stream(one, np.concatenate(token + part)) for part in ([local, said], [local])
        )
        if output == "token":
            queries.append(joint[0])
            targets.append(alone[0])
            continue
        image = over(joint[: len(local)], 0)
        queries.append(image if output == "image" else (image + over(joint[len(local) :], 0)) / 2)
        targets.append(over(alone, 0))
    assert_query(one, np.stack(queries), batch, read)
    found = array(one.encode_image(batch))
    np.testing.assert_allclose(found, unit(np.stack(targets)), rtol=1e-4, atol=1e-5)


# DeepSet, Combiner


@pytest.mark.parametrize("position", [True, False])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_deepset_is_a_map_of_the_pooled_maps(position, pool):
    one = model("deepset", hidden=12, depth=2, position=position, pool=pool)
    batch, read = regions(), words()
    over = np.mean if pool == "mean" else np.max
    expected = []
    for (local, boxes, _), t in zip(
        by_query(one, batch, read), text_vector(one, read), strict=True
    ):
        each = []
        for o, box in zip(local, boxes, strict=True):
            x = np.concatenate([o, t, box] if position else [o, t])
            each.append(relu(linear(one.phi[2], relu(linear(one.phi[0], x)))))
        expected.append(linear(one.rho[2], relu(linear(one.rho[0], over(each, 0)))))
    assert_query(one, np.stack(expected), batch, read)


def test_combiner_is_a_weighted_mean_and_a_residual():
    one = model("combiner", projection=2, hidden=3)
    batch, read = regions(), words()
    x, t = image_vector(one, batch), text_vector(one, read)
    p = relu(np.concatenate([linear(one.project_text, t), linear(one.project_image, x)], 1))
    share = sigmoid(linear(one.share[3], relu(linear(one.share[0], p))))
    assert share.shape == (B, 1)
    expected = linear(one.output, relu(linear(one.combine, p))) + share * t + (1 - share) * x
    assert_query(one, expected, batch, read)


# CoSMo


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_cosmo_modulates_content_then_style(pool):
    one = model("cosmo", content_heads=4, pool=pool)
    batch, read = regions((6, 4, 3, 2)), words()
    over = np.mean if pool == "mean" else np.max
    expected = []
    for (x, _, _), t in zip(by_query(one, batch, read), text_vector(one, read), strict=True):
        n = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
        for weight, content in zip(array(one.weights), one.contents, strict=True):
            n = n + weight * content_of(content, n, t)
        gates = sigmoid(equalised(one.gate, t))
        style = equalised(one.style, t)
        scale = gates[:E] * x.std(0) + style[:E]
        shift = gates[E:] * x.mean(0) + style[E:]
        expected.append(linear(one.fc, over(scale * n + shift, 0)))
    assert_query(one, np.stack(expected), batch, read)
    if pool == "mean":
        target = unit(linear(one.fc, image_vector(one, batch)))
        np.testing.assert_allclose(array(one.encode_image(batch)), target, rtol=1e-4, atol=1e-5)


def equalised(layer, t):
    return array(layer.weight) * np.sqrt(2 / E) @ t + array(layer.bias)


def content_of(content, n, t):
    width, mixed = E // content.heads, []
    asked = linear(content.asked, t)
    value = linear(content.value, linear(content.merge, np.stack([[*row, *t] for row in n])))
    for h in range(content.heads):
        part = slice(h * width, (h + 1) * width)
        q, k = linear(content.query, n)[:, part], linear(content.key, n)[:, part]
        weights = softmax(q @ k.T / np.sqrt(width))
        weights = weights + softmax(n[:, part] @ asked[part] / np.sqrt(width))[None]
        mixed.append(weights @ value[:, part])
    return linear(content.mix, np.concatenate(mixed, 1))


def test_style_starts_as_it_was():
    from cqr.trainer.models.peers.cosmo import Equalised

    torch.manual_seed(0)
    layer = Equalised(64)
    assert layer.weight.std().item() == pytest.approx(1, abs=0.05)
    assert layer(torch.zeros(1, 64)).abs().sum() == 0


# the map, VAL, CLVC-Net


def placed(local, boxes, side=3):
    """H x W x d: each region added where its middle lies."""
    out = np.zeros((side, side, local.shape[1]))
    for row, (x1, y1, x2, y2) in zip(local, boxes, strict=True):
        out[int((y1 + y2) / 2 * side), int((x1 + x2) / 2 * side)] += row
    return out


def test_regions_are_added_where_their_middles_lie():
    batch = regions()
    expected = [
        placed(f[m], b[m])
        for f, b, m in zip(
            array(batch.features), array(batch.boxes), batch.mask.numpy(), strict=True
        )
    ]
    found = on_map(batch.features, batch, 3, "x").permute(0, 2, 3, 1)
    np.testing.assert_allclose(array(found), np.stack(expected), rtol=1e-5, atol=1e-6)
    batch.boxes[:] = torch.tensor([0.9, 0.9, 1.1, 1.1])  # a middle on the very border
    assert on_map(batch.features, batch, 3, "x")[0, :, 2, 2].abs().sum() > 0


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_tirg_on_a_map_of_objects(pool):
    one, batch, read = model("tirg", form="last-conv", side=3, pool=pool), regions(), words()
    over = np.mean if pool == "mean" else np.max
    queries, targets = [], []
    for (local, boxes, _), t in zip(
        by_query(one, batch, read), text_vector(one, read), strict=True
    ):
        x = placed(local, boxes)
        both = np.concatenate([x, np.broadcast_to(t, (3, 3, E))], -1)
        gate, residual = (
            convolve(branch[3], relu(convolve(branch[1], norm(branch[0], both))))
            for branch in (one.gate, one.residual)
        )
        a, b = array(one.weights)
        queries.append(linear(one.fc, over(a * sigmoid(gate) * x + b * residual, (0, 1))))
        targets.append(linear(one.fc, over(x, (0, 1))))
    assert_query(one, np.stack(queries), batch, read)
    found = array(one.encode_image(batch))
    np.testing.assert_allclose(found, unit(np.stack(targets)), rtol=1e-4, atol=1e-5)


def plain(layers, x):
    """A 1 x 1 convolution without bias, BN and ReLU of ... x C."""
    weight = array(layers[0].weight).reshape(layers[0].weight.shape[:2])
    return relu(norm(layers[1], x @ weight.T))


def test_val_attends_to_channels_places_and_among_places():
    one, batch, read = model("val"), regions(), words()
    queries, targets = [], []
    for (local, boxes, _), t in zip(
        by_query(one, batch, read), text_vector(one, read), strict=True
    ):
        x = placed(local, boxes)
        v = plain(one.merge, np.concatenate([x, np.broadcast_to(t, (3, 3, E))], -1))
        channels = sigmoid(plain(one.channels, v.mean((0, 1))))
        kernel, wide = array(one.places[0].weight)[0, 0], np.pad(v.mean(-1), 1)
        raw = np.array(
            [[(wide[i : i + 3, j : j + 3] * kernel).sum() for j in range(3)] for i in range(3)]
        )
        places = sigmoid(relu(norm(one.places[1], raw[..., None])))
        each = []
        for head, part in zip(one.heads, np.split(v.reshape(9, E), 2, 1), strict=True):
            a, b, c = (linear(m, part) for m in (head.keys, head.values, head.queries))
            each.append(softmax(a @ b.T / np.sqrt(E / 2)) @ c)
        among = plain(one.mix, np.concatenate(each, 1)).reshape(3, 3, E)
        joint, self_ = array(one.weights)
        queries.append((joint * channels * places * x + self_ * among).mean((0, 1)))
        targets.append(x.mean((0, 1)))
    assert_query(one, np.stack(queries), batch, read)
    found = array(one.encode_image(batch))
    np.testing.assert_allclose(found, unit(np.stack(targets)), rtol=1e-4, atol=1e-5)


def layer_of(layer, x):
    """A convolution of 1 or 3 with a border of 0, BN and ReLU, of N x C or H x W x C."""
    weight = array(layer.conv.weight)
    if x.ndim == 2:
        x, weight = x[None], weight[:, :, None]
    rows, columns = weight.shape[2] // 2, weight.shape[3] // 2
    wide = np.pad(x, ((rows, rows), (columns, columns), (0, 0)))
    h, w, _ = x.shape
    out = sum(
        wide[i : i + h, j : j + w] @ weight[:, :, i, j].T
        for i in range(weight.shape[2])
        for j in range(weight.shape[3])
    )
    out = relu(norm(layer.norm, out))
    return out[0] if layer.conv.weight.dim() == 3 else out


def neighbours(x):
    """The mean of what is there within one step."""
    out = np.zeros_like(x)
    for at in np.ndindex(x.shape[:-1]):
        near = tuple(slice(max(0, i - 1), i + 2) for i in at)
        out[at] = x[near].reshape(-1, x.shape[-1]).mean(0)
    return out


def inception(block, x):
    out = []
    for branch, given in (
        (block.one, x),
        (block.two, x),
        (block.three, x),
        (block.four, neighbours(x)),
    ):
        for layer in branch:
            given = layer_of(layer, given)
        out.append(given)
    return np.concatenate(out, -1)


def gem(layer, x):
    p = layer.p.item()
    return (np.maximum(x.reshape(-1, E), 1e-6) ** p).mean(0) ** (1 / p)


def clvc(one, batch, read):
    """Both compositions' query, target, composed map and target's map, by query."""
    out = {name: [] for name in ("q", "q_", "t", "t_", "composed", "aimed")}
    for i in range(len(batch)):
        m, real = batch.mask[i].numpy(), read.mask[i].numpy()
        f, boxes = array(batch.features[i])[m], array(batch.boxes[i])[m]
        maps, spoken, seen = [], [], []
        for side in (one.by_places, one.by_words):
            maps.append(placed(linear(side.image.map, f), boxes))
            ids = read.tokens[i].numpy()[real]
            spoken.append(states_of(side.text.lstm, array(side.text.word.weight)[ids]))
            seen.append(linear(side.look, maps[-1].reshape(9, E)))
        side = one.by_places
        a = softmax(seen[0] @ spoken[0].T / 7.0) @ spoken[0]
        both = np.concatenate([seen[0], a], 1).reshape(3, 3, 2 * E)
        phi = inception(side.gamma, both) * maps[0] + inception(side.beta, both)
        out["composed"].append(phi)
        out["aimed"].append(maps[0])
        out["q"].append(linear(side.fc_query, gem(side.pool_query, phi)))
        out["t"].append(linear(side.fc_target, gem(side.pool_target, maps[0])))
        side = one.by_words
        a = softmax(spoken[1] @ seen[1].T / 4.0) @ seen[1]
        both = np.concatenate([spoken[1], a], 1)
        phi = inception(side.gamma, both) * a + inception(side.beta, both)
        out["q_"].append(linear(side.fc_query, gem(side.pool_query, phi)))
        out["t_"].append(linear(side.fc_target, gem(side.pool_target, maps[1])))
    return {name: np.stack(rows) for name, rows in out.items()}


def test_clvc_net_composes_by_places_and_by_words():
    one, batch, read = model("clvc-net"), regions(), words()
    x = clvc(one, batch, read)
    assert_query(one, np.concatenate([unit(x["q"]), unit(x["q_"])], 1), batch, read)
    found = np.concatenate([unit(x["t"]), unit(x["t_"])], 1) / np.sqrt(2)
    np.testing.assert_allclose(array(one.encode_image(batch)), found, rtol=1e-4, atol=1e-5)


def test_clvc_nets_compositions_learn_from_each_other():
    one, read = model("clvc-net"), words()
    reference, target = regions(), regions((3, 5, 2, 6), seed=2)
    asked, aimed = clvc(one, reference, read), clvc(one, target, read)
    out = one(reference, read, target)
    for i, (q, t) in enumerate((("q", "t"), ("q_", "t_"))):
        np.testing.assert_allclose(array(out.query)[:, i], 4 * unit(asked[q]), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            array(out.target)[:, i], 4 * unit(aimed[t]), rtol=1e-4, atol=1e-4
        )
    p, p_ = (softmax(10 * unit(asked[q]) @ unit(aimed[t]).T) for q, t in (("q", "t"), ("q_", "t_")))
    expected = {
        "distance": np.square(asked["q"] - asked["q_"]).mean()
        + np.square(aimed["t"] - aimed["t_"]).mean(),
        "perceptual": np.square(asked["composed"] - aimed["aimed"]).mean(),
        "mutual": ((p_ * np.log(p_ / p)).sum() + (p * np.log(p / p_)).sum()) / B,
    }
    assert out.extra.keys() == expected.keys()
    for name, value in expected.items():
        weight, found = out.extra[name]
        assert weight == 0.5
        assert found.item() == pytest.approx(value, rel=1e-3)
