"""What tests of peers share: a model of each, batches, and numpy's own arithmetic of layers."""

import numpy as np
import torch

from cqr.trainer.features import RegionBatch
from cqr.trainer.models import build
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

D, E, B, K = 10, 32, 4, 6
IDS, FEATURES = TextSpec(max_words=8, words=20), TextSpec(max_words=8, dim=7)
SMALL_LBF = {"width": 16, "heads": 4, "vep_depth": 1, "tep_depth": 1, "fusion_depth": 1}


def model(name, text=IDS, seed=0, **options):
    """In evaluation mode, every weight and statistic away from where it starts."""
    torch.manual_seed(seed)
    options = {**(SMALL_LBF if name == "lbf" else {}), "embed_dim": E} | options
    one = build(name, options, region_dim=D, text=text)
    for key, buffer in one.named_buffers():
        if key.endswith("running_mean"):
            buffer.normal_(std=0.3)
        if key.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    for key, parameter in one.named_parameters():
        if key != "scale":
            parameter.data += 0.1 * torch.randn_like(parameter)
    return one.eval()


def regions(counts=(6, 4, 1, 2), seed=1):
    torch.manual_seed(seed)
    k = max(counts)
    mask = torch.arange(k) < torch.tensor(counts)[:, None]
    parts = torch.randn(len(counts), k, D), torch.rand(len(counts), k, 4)
    return RegionBatch(*(part * mask[..., None] for part in parts), mask)


def words(ids=((2, 3, 4, 0), (5, 0, 0, 0), (6, 7, 8, 9), (2, 2, 0, 0))):
    tokens = torch.tensor(ids)
    return WordBatch(tokens, tokens != 0)


def features_of(read):
    torch.manual_seed(3)
    return WordBatch(torch.randn(20, 7)[read.tokens] * read.mask[..., None], read.mask)


def array(tensor):
    return tensor.detach().double().numpy()


def linear(layer, x):
    return x @ array(layer.weight).T + (0 if layer.bias is None else array(layer.bias))


def norm(layer, x, axis=-1):
    """Batch norm by the running statistics, of channels along an axis."""
    shape = [1] * x.ndim
    shape[axis] = -1
    mean, variance = (array(v).reshape(shape) for v in (layer.running_mean, layer.running_var))
    y = (x - mean) / np.sqrt(variance + layer.eps)
    if layer.weight is None:
        return y
    return y * array(layer.weight).reshape(shape) + array(layer.bias).reshape(shape)


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def image_vector(one, batch):
    rows = zip(array(batch.features), batch.mask.numpy(), strict=True)
    return np.stack([linear(one.image.map, f[m].mean(0)) for f, m in rows])


def lstm(cell, sequence):
    """The last state of one sequence, N x d; torch's gates are input, forget, cell, output."""
    w_in, w_state = array(cell.weight_ih_l0), array(cell.weight_hh_l0)
    bias = array(cell.bias_ih_l0) + array(cell.bias_hh_l0)
    state = memory = np.zeros(w_state.shape[1])
    for x in sequence:
        i, f, g, o = np.split(w_in @ x + w_state @ state + bias, 4)
        memory = sigmoid(f) * memory + sigmoid(i) * np.tanh(g)
        state = sigmoid(o) * np.tanh(memory)
    return state


def text_vector(one, read, first=None):
    table = array(one.text.word.weight)
    states = []
    for i, (ids, mask) in enumerate(zip(read.tokens.numpy(), read.mask.numpy(), strict=True)):
        sequence = list(table[ids[mask]])
        states.append(lstm(one.text.lstm, ([] if first is None else [first[i]]) + sequence))
    return linear(one.text.output[1], np.stack(states))


def assert_query(one, expected, batch, read):
    np.testing.assert_allclose(
        array(one.encode_query(batch, read)), unit(expected), rtol=1e-4, atol=1e-5
    )


def convolve(layer, x):
    """3 x 3 with a border of 0: x is H x W x C."""
    weight, (h, w, _) = array(layer.weight), x.shape
    wide = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    parts = [wide[i : i + h, j : j + w] @ weight[:, :, i, j].T for i in range(3) for j in range(3)]
    return sum(parts) + array(layer.bias)
