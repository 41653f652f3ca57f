"""What tests of detectors ask of a network's 16 bits."""

import torch


def assert_16_bits_are_near(made, width, height):
    """Features of boxes point where those of 32 bits do, and are others.

    Args:
        made: makes the backend, each time anew.
        width, height: of what it sees.
    """
    exact, half = made(), made()
    half.in_16_bits()
    batch = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255
    boxes = [torch.tensor([[0.0, 0, width, height], [20, 30, 90, 80]])] * 2
    with torch.inference_mode():
        one, two = (each.pool(each.encode(batch), boxes) for each in (exact, half))
    assert two.dtype == torch.float32
    assert not torch.equal(one, two)
    assert torch.cosine_similarity(one, two).min() > 0.999
