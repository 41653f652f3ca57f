"""VAL: attention of channels and places, and among places, of an image's map with the text.

Chen et al., "Image Search with Text Feedback by Visiolinguistic Attention Learning" (CVPR
2020), by its code, yanbeic/VAL `nets/attention.py` and `train_val.py`, of one level.  With
x a map of g x g places of d channels:

    v = F([x, phi_t])                                          phi_t at every place
    j = sigmoid(F(mean of v over places)) * sigmoid(F_g(mean of v over channels))
    s = F of two heads of attention over the places, each of its half of v
    phi_xt = mean over places of (w_j j x + w_s s),      that of a target the mean of x

F is a 1 x 1 convolution, BN and ReLU, F_g such with a kernel of g x g and a border of 0;
w_j = 1 and w_s = 0 at first.  The ReLU below a sigmoid, so that no gate is less than a
half, is the code's; so is dropout of a tenth on the weights of the attention.  Its maps
are three of a CNN, each compared by itself; ours is one: regions, mapped to d by the
encoder, put on cells.  Its loss is a hinge with hard negatives; ours is the training's.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.maps import on_map
from cqr.trainer.models.whole import WholeConfig, WholeModel
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

HEADS = 2


@dataclass(frozen=True)
class VALConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`, whose `pool` is over the map.

    Attributes:
        side: g; every region is put on the cell of g x g that its middle lies in.  Ours.
        dropout: on the attention's weights.  0.1 is the code's.
    """

    side: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 1:
            raise ValueError(f"side {self.side} is less than 1")
        if self.embed_dim % HEADS:
            raise ValueError(f"embed_dim {self.embed_dim} is not even")


class VAL(WholeModel):
    """phi_xt by joint and self-attention; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: VALConfig) -> None:
        super().__init__(region_dim, text, config)
        d = config.embed_dim
        self.side, self.pool = config.side, config.pool
        self.merge = _convolution(2 * d, d)
        self.channels = _convolution(d, d)
        self.places = _convolution(1, 1, config.side)
        self.heads = nn.ModuleList(_Head(d // HEADS, config.dropout) for _ in range(HEADS))
        self.mix = _convolution(d, d)
        self.weights = nn.Parameter(torch.tensor([1.0, 0.0]))  # w_j, w_s

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x d unit vectors of images to be found."""
        return F.normalize(self._over(self._map(regions)), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        x = self._map(regions)
        text = self.text(words)[..., None, None].expand(-1, -1, *x.shape[2:])
        v = self.merge(torch.cat([x, text.to(x.dtype)], 1))
        channels = torch.sigmoid(self.channels(v.mean((2, 3), keepdim=True)))
        places = torch.sigmoid(self.places(v.mean(1, keepdim=True)))
        flat = v.flatten(2).transpose(1, 2)  # B, g g, d
        each = [head(part) for head, part in zip(self.heads, flat.chunk(HEADS, -1), strict=True)]
        among = self.mix(torch.cat(each, -1).transpose(1, 2).unflatten(2, x.shape[2:]))
        joint, self_ = self.weights
        return F.normalize(self._over(joint * channels * places * x + self_ * among), dim=-1)

    def _map(self, regions: RegionBatch) -> Tensor:
        return on_map(self.image.local(regions), regions, self.side, "val")

    def _over(self, image: Tensor) -> Tensor:
        return image.mean((2, 3)) if self.pool == "mean" else image.amax((2, 3))


class _Head(nn.Module):
    """softmax(A (B)^T / sqrt(d_h)) C of the places: the code's keys, values and queries."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.keys, self.values, self.queries = (
            nn.Linear(width, width, bias=False) for _ in range(3)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, v: Tensor) -> Tensor:
        weights = self.keys(v) @ self.values(v).transpose(1, 2) / v.shape[-1] ** 0.5
        out: Tensor = self.drop(weights.softmax(-1)) @ self.queries(v)
        return out


def _convolution(width: int, out: int, kernel: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, out, kernel, padding="same", bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )
