"""Our attention against torch's nn.MultiheadAttention with the same weights."""

import pytest
import torch
from torch import nn

from cqr.trainer.models.attention import Attention, CrossBlock, Places, SelfBlock, steps


def twin(ours, width, heads):
    """torch's module with our weights."""
    theirs = nn.MultiheadAttention(width, heads, batch_first=True).eval()
    parts = [ours.query, ours.key, ours.value]
    theirs.in_proj_weight.data = torch.cat([part.weight for part in parts])
    theirs.in_proj_bias.data = torch.cat([part.bias for part in parts])
    theirs.out_proj.load_state_dict(ours.output.state_dict())
    return theirs


@pytest.fixture
def inputs():
    torch.manual_seed(0)
    x, context = torch.randn(3, 4, 12), torch.randn(3, 7, 12)
    mask = torch.arange(7) < torch.tensor([[7], [3], [1]])
    return x, context, mask


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_attention_is_torchs(inputs, heads):
    x, context, mask = inputs
    ours = Attention(12, heads, dropout=0.1).eval()
    mixed, weights = twin(ours, 12, heads)(
        x, context, context, key_padding_mask=~mask, average_attn_weights=False
    )
    expected = nn.functional.layer_norm(x + mixed, (12,), ours.norm.weight, ours.norm.bias)
    every, real = Places.of(torch.ones(3, 4, dtype=torch.bool)), Places.of(mask)
    found = ours(x.flatten(0, 1), every, context[mask], real).unflatten(0, (3, 4))
    torch.testing.assert_close(found, expected)
    explained, ours_weights = ours.explain(x, context, mask)
    torch.testing.assert_close(explained, expected)
    torch.testing.assert_close(ours_weights, weights)


def test_relative_keys_and_values_are_those_of_the_paper(inputs):
    """Shaw et al. 2018, equations 1 to 4, state by state, with what each pair knows of its own."""
    _, x, mask = inputs
    ours, heads = Attention(12, 3, dropout=0.1, known=5).eval(), 3
    apart = torch.randn(3, 7, 7, 5)
    q, k, v = (part(x).unflatten(-1, (heads, -1)) for part in (ours.query, ours.key, ours.value))
    keys, values = ours.relative.keys.weight, ours.relative.values.weight
    for b, n in ((b, int(mask[b].sum())) for b in range(3)):
        for i in range(n):
            mixed = []
            for h in range(heads):
                scores = [q[b, i, h] @ (k[b, j, h] + apart[b, i, j] @ keys) / 2 for j in range(n)]
                weights = torch.stack(scores).softmax(0)
                mixed.append(
                    sum(weights[j] * (v[b, j, h] + apart[b, i, j] @ values) for j in range(n))
                )
            expected = ours.norm(x[b, i] + ours.output(torch.cat(mixed)))
            torch.testing.assert_close(ours.explain(x, x, mask, apart)[0][b, i], expected)
    places = Places.of(mask)
    found = ours(x[mask], places, x[mask], places, apart)
    torch.testing.assert_close(found, ours.explain(x, x, mask, apart)[0][mask])


def test_words_know_how_far_apart_they_stand():
    apart = steps(4, 2)
    assert apart.shape == (1, 4, 4, 5)
    assert (apart.sum(-1) == 1).all()
    assert apart[0].argmax(-1).tolist() == [[2, 3, 4, 4], [1, 2, 3, 4], [0, 1, 2, 3], [0, 0, 1, 2]]


def test_what_the_mask_hides_has_no_effect(inputs):
    x, context, mask = inputs
    noise = torch.where(mask[..., None], 0.0, torch.randn_like(context))
    block = CrossBlock(12, 3, 24, 0.0).eval()
    own = torch.ones(3, 4, dtype=torch.bool)
    torch.testing.assert_close(
        block(x, own, context, mask), block(x, own, context + noise, mask), rtol=0, atol=1e-6
    )


def test_self_block_is_attention_then_feed_forward(inputs):
    _, x, mask = inputs
    block = SelfBlock(12, 3, 24, 0.0).eval()
    attended = block.attention.explain(x, x, mask)[0]
    first, gelu, second, _ = block.feed_forward.layers
    hidden = second(gelu(first(attended)))
    norm = block.feed_forward.norm
    expected = nn.functional.layer_norm(attended + hidden, (12,), norm.weight, norm.bias)
    torch.testing.assert_close(block(x, mask)[mask], expected[mask])


def test_what_is_left_out_of_the_work_changes_no_number_that_is_drawn(inputs):
    _, x, mask = inputs
    drop = nn.Dropout(0.5)
    torch.manual_seed(1)
    expected = drop(x)[mask]
    torch.manual_seed(1)
    torch.testing.assert_close(Places.of(mask).dropout(x[mask], drop), expected, rtol=0, atol=0)


def test_padding_costs_no_gradient_and_gets_none(inputs):
    _, x, mask = inputs
    x.requires_grad_()
    block = CrossBlock(12, 3, 24, 0.0)
    block(x, mask, x, mask)[mask].square().sum().backward()
    assert x.grad[mask].abs().min() > 0
    assert not x.grad[~mask].any()


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="width 10 is not a multiple of heads 4"):
        Attention(10, 4, 0.0)


@pytest.mark.parametrize("known", [0, 4])
def test_in_16_bits_on_a_cpu_it_gives_nearly_what_it_gives_in_32(known):
    torch.manual_seed(0)
    attention = Attention(16, 4, 0.0, known)
    x, context = torch.randn(2, 5 if known else 3, 16), torch.randn(2, 5, 16)
    apart = torch.randn(2, 5, 5, known) if known else None
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    places = Places.of(torch.ones(x.shape[:2], dtype=torch.bool)), Places.of(mask)

    def run():
        out = attention(places[0].kept(x), places[0], places[1].kept(context), places[1], apart)
        return out, torch.autograd.grad(out.float().square().sum(), attention.parameters())

    exact, slopes = run()
    with torch.autocast("cpu", torch.bfloat16):
        near, slopes_near = run()
    torch.testing.assert_close(near.float(), exact, atol=0.05, rtol=0)
    for one, other in zip(slopes, slopes_near, strict=True):
        torch.testing.assert_close(other, one, atol=0.1 * float(one.abs().max()) + 0.02, rtol=0)
