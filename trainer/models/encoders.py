"""What LBF makes of regions, and of words, before they meet: for LBF itself, and for any composer.

Letters for shapes: B batch, K regions, N words, D width, E embedding.
"""

import torch
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.attention import Places, SelfBlock, steps
from cqr.trainer.models.lbf_config import LBFConfig, Pool
from cqr.trainer.models.words import WordEmbedding
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

WAVES = (0.5, 1, 2, 4, 8)
"""How many half turns a wave makes over a picture."""


class RegionEmbedding(nn.Module):
    """c_i = ( LN(W_v r_i + b_v) + LN(W_p p_i + b_p) ) / 2."""

    def __init__(self, region_dim: int, config: LBFConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = _embedding(region_dim, config)
        box_dim = {"corners": 4, "corners+area": 5, "none": 0}[config.position]
        if box_dim and config.waves:
            box_dim += 8 * len(WAVES)
        self.position = _embedding(box_dim, config) if box_dim else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, regions: RegionBatch) -> Tensor:
        places = Places.of(regions.mask)
        boxes = places.kept(regions.boxes)
        visual = self.visual(places.kept(regions.features).to(boxes.dtype))
        if self.position is None:
            return places.padded(places.dropout(visual, self.dropout))
        known = [boxes]
        if self.config.position == "corners+area":
            x1, y1, x2, y2 = boxes.unbind(-1)
            known.append(((x2 - x1) * (y2 - y1))[..., None])
        if self.config.waves:
            known.append(waves(boxes))
        both = visual + self.position(torch.cat(known, -1))
        mean = both / 2 if self.config.combine == "average" else both
        return places.padded(places.dropout(mean, self.dropout))


def waves(boxes: Tensor) -> Tensor:
    """P x 4 corners in [0, 1] to P x 40: their sines, then their cosines, at `WAVES`.

    The slowest sine grows as a corner does.  As Fourier features (Tancik et al., NeurIPS 2020),
    but for frequencies that are set and not drawn.
    """
    turns = torch.stack([boxes * (torch.pi * wave) for wave in WAVES], -1).flatten(-2)
    return torch.cat([turns.sin(), turns.cos()], -1)


DISTANCES = 9
"""How many distances, from 0 to 1, a pair of boxes is held against."""
BETWEEN = 4 + DISTANCES
"""The numbers that `between` tells of a pair."""


def between(boxes: Tensor) -> Tensor:
    """B x K x 4 corners to B x K x K x `BETWEEN`: how far the middle of the second is from that of
    the first, across, down and straight; of that the logarithm, and how near it is to each of
    `DISTANCES` from 0 to 1, by Gaussians (as SchNet has them, Schuett et al., NeurIPS 2017).
    """
    middles = (boxes[..., :2] + boxes[..., 2:]) / 2
    apart = middles[:, None] - middles[:, :, None]
    far = apart.norm(dim=-1, keepdim=True)
    known = torch.linspace(0, 1, DISTANCES, device=boxes.device)
    near = (-((far - known) * (DISTANCES - 1)).square()).exp()
    return torch.cat([apart, far, (4 * far + 0.2).log(), near], -1)


def vep(config: LBFConfig) -> nn.ModuleList:
    """Self-attention over regions."""
    c = config
    size = (c.width, c.heads, c.hidden * c.width, c.dropout)
    return nn.ModuleList(SelfBlock(*size) for _ in range(c.vep_depth))


def tep(config: LBFConfig) -> nn.ModuleList:
    """Self-attention over words."""
    c = config
    known = 2 * c.word_reach + 1 if c.word_reach else 0
    size = (c.width, c.heads, c.hidden * c.width, c.dropout, known)
    return nn.ModuleList(SelfBlock(*size) for _ in range(c.tep_depth))


def _embedding(dim: int, config: LBFConfig) -> nn.Sequential:
    norm = nn.LayerNorm(config.width) if config.input_norm else nn.Identity()
    return nn.Sequential(nn.Linear(dim, config.width), norm)


def through(layers: nn.ModuleList, states: Tensor, mask: Tensor, reach: int = 0) -> Tensor:
    """B x K x D by the layers of VEP or of TEP, one after another; reach: `word_reach` of TEP."""
    apart = steps(mask.shape[1], reach, mask.device) if reach else None
    for layer in layers:
        states = layer(states, mask, apart)
    return states


def output_map(config: LBFConfig) -> nn.Sequential:
    if not config.embed_dim:
        return nn.Sequential()
    return nn.Sequential(
        nn.Linear(config.width, config.embed_dim),
        nn.GELU(),
        nn.Linear(config.embed_dim, config.embed_dim),
    )


def vector(out: nn.Sequential, states: Tensor, mask: Tensor, pool: Pool) -> Tensor:
    """B x E: the states B x K x D, each through `out`, pooled over what is real.

    The maps are most of the work, so padding, half of the rows in a batch of generated scenes,
    is left out of them.  A mean and a linear map may change places, so there the last map is
    done once for all states of an image or text.
    """
    places = Places.of(mask)
    if pool == "max":
        return pooled_kept(out(places.kept(states)), places, pool)
    last: Tensor = out[-1:](pooled_kept(out[:-1](places.kept(states)), places, pool))
    return last


def pooled_kept(mapped: Tensor, places: Places, pool: Pool) -> Tensor:
    """P x E to B x E."""
    if pool == "max":
        return places.padded(mapped, -torch.inf).amax(1)
    return places.padded(mapped, 0).sum(1) / places.mask.sum(1, keepdim=True)


class LBFImageEncoder(nn.Module):
    """phi_x as LBF has it of an image to be found: VEP, a two-layer map, the pooling."""

    def __init__(self, region_dim: int, config: LBFConfig) -> None:
        super().__init__()
        self.pool, self.drops = config.pool, config.dropout > 0
        self.embed = RegionEmbedding(region_dim, config)
        self.layers = vep(config)
        self.out = output_map(config)

    def forward(self, regions: RegionBatch) -> Tensor:
        """B x d."""
        regions = self._told(regions)
        once = regions.once
        return regions.again(vector(self.out, self._states(once), once.mask, self.pool))

    def local(self, regions: RegionBatch) -> Tensor:
        """B x K x d, which pooled over the real regions is phi_x."""
        regions = self._told(regions)
        return regions.again(self.out(self._states(regions.once)))

    def _told(self, regions: RegionBatch) -> RegionBatch:
        """As it is, but each image has a dropout of its own."""
        return regions.apart if self.training and self.drops else regions

    def _states(self, regions: RegionBatch) -> Tensor:
        return through(self.layers, self.embed(regions), regions.mask)


class LBFTextEncoder(nn.Module):
    """phi_t as LBF has words before they meet an image: TEP, a two-layer map, the pooling."""

    def __init__(self, text: TextSpec, config: LBFConfig) -> None:
        super().__init__()
        self.pool = config.pool
        self.reach = config.word_reach
        self.embed = WordEmbedding(text, config.width, config.dropout, not self.reach)
        self.layers = tep(config)
        self.out = output_map(config)

    def forward(self, words: WordBatch) -> Tensor:
        """B x d."""
        return vector(self.out, self._states(words), words.mask, self.pool)

    def local(self, words: WordBatch) -> Tensor:
        """B x N x d, which pooled over the words is phi_t."""
        out: Tensor = self.out(self._states(words))
        return out

    def _states(self, words: WordBatch) -> Tensor:
        return through(self.layers, self.embed(words), words.mask, self.reach)
