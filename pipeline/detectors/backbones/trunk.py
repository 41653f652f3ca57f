"""Networks of timm as towers, alone or inside an open_clip model."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from cqr.pipeline.detectors.backbones.encoder import Seen, Tower
from cqr.pipeline.detectors.backbones.tokens import Probe, attention, mean


def tower(trunk: Any, pre_logits: bool, after: Callable[[Tensor], Tensor] = lambda x: x) -> Tower:
    """A tower whose embedding is what the trunk's head makes of its map, then `after`.

    A box goes the same way as the whole: its tokens are pooled in place of all, then
    pass through whatever follows the pooling.

    Args:
        trunk: a network of timm, with `forward_features` and `forward_head`.
        pre_logits: whether the embedding is what the classifier reads, not says.
        after: of B x C.
    """

    def see(pixels: Tensor) -> Seen:
        features = trunk.forward_features(pixels)
        whole = after(trunk.forward_head(features, pre_logits=pre_logits))
        if features.ndim == 4:
            features = features if _last(trunk) else features.permute(0, 2, 3, 1)
            rows, columns = features.shape[1:3]
            return Seen(features.flatten(1, 2), columns, rows, whole)
        tokens = features[:, trunk.num_prefix_tokens :]
        rows, columns = _grid(tokens.shape[1], pixels.shape[-2], pixels.shape[-1])
        return Seen(tokens, columns, rows, whole)

    def behind_pooling(pooled: Tensor) -> Tensor:
        pooled = trunk.fc_norm(pooled)
        return after(pooled if pre_logits else trunk.head(pooled))

    def as_map(pooled: Tensor) -> Tensor:
        one = pooled[:, None, None] if _last(trunk) else pooled[:, :, None, None]
        return after(trunk.forward_head(one, pre_logits=pre_logits))

    if not hasattr(trunk, "num_prefix_tokens"):
        return Tower(see, mean(as_map), "mean")
    if _has_probe(trunk):
        probe = _probe(trunk.attn_pool, behind_pooling)
        return Tower(see, attention(probe), "attention")
    return Tower(see, mean(behind_pooling), "mean")


def _last(trunk: Any) -> bool:
    """Whether its maps have the channels last."""
    return getattr(trunk, "output_fmt", "NCHW") == "NHWC"


def _grid(tokens: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of so many tokens over a picture of that shape."""
    rows = max(1, round((tokens * height / width) ** 0.5))
    if tokens % rows:
        raise ValueError(f"{tokens} tokens are no grid over {width} x {height}")
    return rows, tokens // rows


def _has_probe(trunk: Any) -> bool:
    from timm.layers.attention_pool import AttentionPoolLatent

    pool = getattr(trunk, "attn_pool", None)
    return (
        isinstance(pool, AttentionPoolLatent)
        and pool.latent_len == 1
        and pool.pos_embed is None
        and pool.pool == "token"
    )


def _probe(pool: Any, after: Callable[[Tensor], Tensor]) -> Probe:
    """timm's AttentionPoolLatent in two halves."""

    def project(tokens: Tensor) -> tuple[Tensor, Tensor]:
        shape = (*tokens.shape[:2], 2, pool.num_heads, pool.head_dim)
        keys, values = pool.kv(tokens).reshape(shape).permute(2, 0, 3, 1, 4).unbind(0)
        query = pool.q_norm(pool.q(pool.latent).reshape(1, pool.num_heads, 1, pool.head_dim))
        logits = (query * pool.scale) @ pool.k_norm(keys).transpose(-2, -1)
        return logits[:, :, 0], values

    def finish(read: Tensor) -> Tensor:
        read = pool.proj(read)
        if pool.mlp is not None:
            read = read + pool.mlp(pool.norm(read))
        return after(read)

    return Probe(project, finish)
