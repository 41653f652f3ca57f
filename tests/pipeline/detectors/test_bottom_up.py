"""What Caffe does otherwise, recomputed in numpy; detectron2 is not needed for it.

The whole network beside its reference implementation: benchmarks/quality/bottom_up.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, pad

from cqr.pipeline.detectors import bottom_up

torch.set_num_threads(1)


def block(stride):
    """The parts of a bottleneck block of detectron2 that are altered."""
    return SimpleNamespace(
        conv1=nn.Conv2d(4, 4, 1, stride=stride),
        conv2=nn.Conv2d(4, 4, 3, padding=1),
        shortcut=nn.Conv2d(4, 4, 1, stride=stride),
    )


@pytest.fixture
def network():
    torch.manual_seed(0)
    stem = SimpleNamespace(conv1=nn.Conv2d(3, 4, 7, stride=2, padding=3))
    heads = SimpleNamespace(res5=[block(2), block(1), block(1)])
    made = SimpleNamespace(backbone=SimpleNamespace(stem=stem), roi_heads=heads)
    bottom_up.alter(made)
    return made


@pytest.mark.parametrize("size", [(16, 16), (17, 22), (13, 31)])
@torch.inference_mode()
def test_the_stem_pools_without_padding_and_rounds_up(network, size):
    pixels = torch.randn(1, 3, *size)
    stem = network.backbone.stem
    before = stem.conv1(pixels).clamp(min=0)[0].numpy()
    height, width = before.shape[1:]
    rows, columns = -(-(height - 3) // 2) + 1, -(-(width - 3) // 2) + 1
    expected = np.empty((4, rows, columns), np.float32)
    for y in range(rows):
        for x in range(columns):
            expected[:, y, x] = before[:, 2 * y : 2 * y + 3, 2 * x : 2 * x + 3].max((1, 2))
    np.testing.assert_array_equal(stem(pixels)[0].numpy(), expected)


@torch.inference_mode()
def test_res5_keeps_its_size_and_sees_as_far(network):
    """A 3 x 3 kernel widened by 2 is a 5 x 5 one with zeros between."""
    x = torch.randn(1, 4, 14, 14)
    first, *_ = network.roi_heads.res5
    assert first.conv1(x).shape == first.shortcut(x).shape == x.shape
    for part in network.roi_heads.res5:
        wide = torch.zeros(4, 4, 5, 5)
        wide[:, :, ::2, ::2] = part.conv2.weight
        expected = conv2d(pad(x, (2, 2, 2, 2)), wide, part.conv2.bias)
        torch.testing.assert_close(part.conv2(x), expected)
