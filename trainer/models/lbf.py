"""LBF: composed-query retrieval with locally bounded features.

Hosseinzadeh and Wang, "Composed Query Image Retrieval Using Locally Bounded
Features", CVPR 2020.  The paper's figure, read from left to right, is
`LBF.image_states`, `LBF.word_states`, `LBF.fuse`, `LBF.encode_query`.

Letters for shapes: B batch, K regions, N words, D width, E embedding.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.attention import CrossBlock, Places, SelfBlock
from cqr.trainer.models.interface import Extra, Output, RetrievalModel, divided
from cqr.trainer.models.locating import locating
from cqr.trainer.models.words import WordEmbedding
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

Pool = Literal["mean", "max"]


@dataclass(frozen=True)
class LBFConfig:
    """Every choice of the model, and whose choice it is.

    "paper" means that the paper's own slides say so; "inferred" that it follows
    from what is published; "ours" that no published source was found and the
    default is our own.

    Attributes:
        width: D of both streams.  Ours.
        heads: of every attention.  Ours.
        vep_depth: layers of self-attention over regions.  That there are several
            is the paper's; how many, ours.
        tep_depth: the same over words.
        fusion_depth: how often the cross-modal block is stacked.  Stacking is
            the paper's; how many, ours.
        hidden: width of the feed-forward maps, as a multiple of D.  Ours.
        dropout: LXMERT's value.  Ours.
        word_reach: how far TEP's attention tells apart where one word stands from another, to
            either side (`RelativePositions`); 0, the paper's: a word has its place in the text
            instead.  What is worded in another order than any text of the training is
            understood so much better; without `tep_depth` a text has no order.  Ours.
        position: what is known of a box: its corners, or corners and area.  That
            it is normalised is the paper's; the corners are LXMERT's.
        combine: how a region's visual and positional embeddings meet.
            "average" is the paper's.
        input_norm: LayerNorm on both embeddings before they are averaged.
            LXMERT's.
        separate_reference: the references of queries have input maps (visual and
            positional) of their own, the images to be found others; all else is
            shared.  For references of another domain, such as drawings (TIRG has an
            encoder for each of its two domains).  Ours.
        directions: which streams the fusion attends with; "both" is the paper's.
        joint: which fused streams are pooled into the query's vector.  Inferred
            (the figure shows a pooling on top of both).  "both": each is pooled, then the
            mean; "union", ours: one pool over the regions and the words, so that with the
            maximum a word can stand for a region that the text adds.
        pool: over the regions, and over the words.  Inferred.
        nothing: pool a learned vector with the regions, of an image and of a query's: what is
            left where the text takes the last object away, of which there are few examples
            (23 of the 3,200 training queries of 200 generated references).  Ours.
        embed_dim: E.  Each region and each word goes through a two-layer map to
            E before pooling, since a set of objects does not fit into a mean of
            narrow vectors.  0 pools the D-wide states themselves.  Ours.
        scale: initial value of the learnable scale of both vectors.  TIRG's.
        locate: weight of a loss that makes a text move the regions that the target has not, and
            no others (`locating`).  For targets that are their references but for what the
            text says.  Ours.
    """

    width: int = 512
    heads: int = 8
    vep_depth: int = 2
    tep_depth: int = 2
    fusion_depth: int = 2
    hidden: int = 2
    dropout: float = 0.1
    word_reach: int = 0
    position: Literal["corners", "corners+area", "none"] = "corners"
    combine: Literal["average", "sum"] = "average"
    input_norm: bool = True
    separate_reference: bool = False
    directions: Literal["both", "visual", "language"] = "both"
    joint: Literal["both", "visual", "language", "union"] = "both"
    pool: Pool = "mean"
    nothing: bool = False
    embed_dim: int = 512
    scale: float = 4.0
    locate: float = 0.0


class LBF(RetrievalModel):
    """Regions and words to a joint vector; regions alone to a target vector.

    Args:
        region_dim: width of a region's feature.
        text: what its words are.
        config: every other choice.
    """

    def __init__(self, *, region_dim: int, text: TextSpec, config: LBFConfig | None = None) -> None:
        c = config or LBFConfig()
        super().__init__(c.scale)
        self.config = c
        self.embed_regions = RegionEmbedding(region_dim, c)
        self.embed_reference = RegionEmbedding(region_dim, c) if c.separate_reference else None
        self.embed_words = WordEmbedding(text, c.width, c.dropout, not c.word_reach)
        self.vep = nn.ModuleList(block(c) for _ in range(c.vep_depth))
        self.tep = nn.ModuleList(block(c, c.word_reach) for _ in range(c.tep_depth))
        size = (c.width, c.heads, c.hidden * c.width, c.dropout)
        depth = range(c.fusion_depth)
        self.see = nn.ModuleList(CrossBlock(*size) for _ in depth if c.directions != "language")
        self.read = nn.ModuleList(CrossBlock(*size) for _ in depth if c.directions != "visual")
        self.out_regions = output_map(c)
        self.out_words = output_map(c)
        self.nothing = nn.Parameter(torch.zeros(c.embed_dim or c.width)) if c.nothing else None

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x E unit vectors of images, to be found."""
        return F.normalize(self._seen(self.image_states(regions), regions.mask), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        _, visual, language = self._fused(regions, words)
        seen = self._seen(visual, regions.mask)
        return self._joined(seen, regions.mask, language, words.mask)

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """As of any model, and the loss that `locate` weighs."""
        if not (self.config.locate and self.see):
            return super().forward(reference, words, target)
        before, after, language = self._fused(reference, words)
        places = Places.of(reference.mask)
        before, after = self._mapped(before, after, reference, places)
        seen = self._beside_nothing(pooled_kept(after, places, self.config.pool), reference.mask)
        query = self._joined(seen, reference.mask, language, words.mask)
        loss = locating(_moved(before, after, places), reference, target)
        extra = {"locate": Extra(self.config.locate, loss)}
        return Output(query * self.scale, self.encode_image(target) * self.scale, extra)

    def image_states(self, regions: RegionBatch) -> Tensor:
        """VEP of images to be found: B x K x D."""
        return self._vep(self.embed_regions, regions)

    def reference_states(self, regions: RegionBatch) -> Tensor:
        """VEP of reference images: B x K x D."""
        return self._vep(self.embed_reference or self.embed_regions, regions)

    def word_states(self, words: WordBatch) -> Tensor:
        """TEP: B x N x D."""
        states: Tensor = self.embed_words(words)
        for layer in self.tep:
            states = layer(states, words.mask)
        return states

    def fuse(
        self,
        visual: Tensor,
        visual_mask: Tensor,
        language: Tensor,
        language_mask: Tensor,
        depth: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Linguistically attended regions and visually attended words after `depth` layers."""
        for layer in range(self.config.fusion_depth if depth is None else depth):
            seen, read = visual, language
            if self.see:
                visual = self.see[layer](seen, visual_mask, read, language_mask)
            if self.read:
                language = self.read[layer](read, language_mask, seen, visual_mask)
        return visual, language

    @property
    def attends(self) -> bool:
        return bool(self.read)

    @torch.no_grad()
    def attention(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x N x K: how much each word attends to each region, rows summing to 1.

        The mean over the heads of the last fusion layer's word-to-region
        attention.

        Raises:
            ValueError: the model has no such direction.
        """
        if not self.read:
            raise ValueError("this model's words do not attend to regions")
        visual, language = self.fuse(
            self.reference_states(regions),
            regions.mask,
            self.word_states(words),
            words.mask,
            depth=self.config.fusion_depth - 1,
        )
        last = self.read[-1]
        assert isinstance(last, CrossBlock)
        _, weights = last.cross_attention.explain(language, visual, regions.mask)
        return weights.mean(1)

    @property
    def changes(self) -> bool:
        return bool(self.see)

    @torch.no_grad()
    def changed(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x K: the distance between a region's mapped state before and after the fusion.

        Raises:
            ValueError: the fusion leaves regions as they are.
        """
        if not self.see:
            raise ValueError("this model's texts change no region by itself")
        before, after, _ = self._fused(regions, words)
        places = Places.of(regions.mask)
        before, after = self._mapped(before, after, regions, places)
        return _moved(before, after, places).sqrt()

    @property
    def divides(self) -> bool:
        return True

    @torch.no_grad()
    def shares(self, regions: RegionBatch, query: Tensor) -> Tensor:
        """B x K: what each region of an image to be found adds to its score with a query; the
        rest, where `nothing` is pooled too, is that vector's.
        """
        mapped, mask = self.out_regions(self.image_states(regions)), regions.mask
        if self.nothing is not None:
            mapped = torch.cat([mapped, self.nothing.expand(len(mapped), 1, -1)], 1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        shares = divided(mapped, mask, query, self.config.pool == "max")
        return shares[:, : regions.mask.shape[1]]

    def _fused(self, regions: RegionBatch, words: WordBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Regions before the fusion, those of `_once`, and regions and words after it."""
        once = self._once(regions)
        before = self.reference_states(once)
        visual = before if once is regions else regions.again(before)
        return before, *self.fuse(visual, regions.mask, self.word_states(words), words.mask)

    def _once(self, regions: RegionBatch) -> RegionBatch:
        """Each image once, since nothing before the fusion depends on the text; but each has a
        dropout of its own.
        """
        return regions if self.training and self.config.dropout else regions.once

    def _mapped(
        self, before: Tensor, after: Tensor, regions: RegionBatch, places: Places
    ) -> tuple[Tensor, Tensor]:
        """P x E of the regions before and after the fusion, by `_fused`."""
        once = self._once(regions)
        if once is regions:
            mapped = self.out_regions(places.kept(before))
        else:
            real = Places.of(once.mask)
            padded = real.padded(self.out_regions(real.kept(before)))
            mapped = places.kept(regions.again(padded))
        return mapped, self.out_regions(places.kept(after))

    def _joined(
        self, seen: Tensor, mask: Tensor, language: Tensor, language_mask: Tensor
    ) -> Tensor:
        """B x E unit vectors of the fused regions, pooled, and of the fused words."""
        parts = []
        if self.config.joint != "language":
            parts.append(seen)
        if self.config.joint != "visual":
            parts.append(vector(self.out_words, language, language_mask, self.config.pool))
        if self.config.joint != "union":
            joined = torch.stack(parts).mean(0)
        elif self.config.pool == "max":
            joined = torch.stack(parts).amax(0)
        else:
            number = mask.sum(1, keepdim=True) + (self.nothing is not None)
            joined = number * parts[0] + language_mask.sum(1, keepdim=True) * parts[1]
        return F.normalize(joined, dim=-1)

    def _seen(self, states: Tensor, mask: Tensor) -> Tensor:
        """B x E of regions."""
        pooled = vector(self.out_regions, states, mask, self.config.pool)
        return self._beside_nothing(pooled, mask)

    def _beside_nothing(self, seen: Tensor, mask: Tensor) -> Tensor:
        """B x E of pooled regions, with what is left where there is none."""
        if self.nothing is None:
            return seen
        if self.config.pool == "max":
            return torch.maximum(seen, self.nothing)
        number = mask.sum(1, keepdim=True)
        return (number * seen + self.nothing) / (number + 1)

    def _vep(self, embed: nn.Module, regions: RegionBatch) -> Tensor:
        states: Tensor = embed(regions)
        for layer in self.vep:
            states = layer(states, regions.mask)
        return states


def _moved(before: Tensor, after: Tensor, places: Places) -> Tensor:
    """B x K squared distances of mapped states, 0 where none is real."""
    return places.padded((before - after).square().sum(-1, keepdim=True), 0)[..., 0]


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


class RegionEmbedding(nn.Module):
    """c_i = ( LN(W_v r_i + b_v) + LN(W_p p_i + b_p) ) / 2."""

    def __init__(self, region_dim: int, config: LBFConfig) -> None:
        super().__init__()
        self.config = config
        self.visual = _embedding(region_dim, config)
        box_dim = {"corners": 4, "corners+area": 5, "none": 0}[config.position]
        self.position = _embedding(box_dim, config) if box_dim else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, regions: RegionBatch) -> Tensor:
        places = Places.of(regions.mask)
        boxes = places.kept(regions.boxes)
        visual = self.visual(places.kept(regions.features).to(boxes.dtype))
        if self.position is None:
            return places.padded(places.dropout(visual, self.dropout))
        if self.config.position == "corners+area":
            x1, y1, x2, y2 = boxes.unbind(-1)
            boxes = torch.cat([boxes, ((x2 - x1) * (y2 - y1))[..., None]], -1)
        both = visual + self.position(boxes)
        mean = both / 2 if self.config.combine == "average" else both
        return places.padded(places.dropout(mean, self.dropout))


def block(config: LBFConfig, reach: int = 0) -> SelfBlock:
    """A layer of VEP or of TEP."""
    c = config
    return SelfBlock(c.width, c.heads, c.hidden * c.width, c.dropout, reach)


def _embedding(dim: int, config: LBFConfig) -> nn.Sequential:
    norm = nn.LayerNorm(config.width) if config.input_norm else nn.Identity()
    return nn.Sequential(nn.Linear(dim, config.width), norm)


def output_map(config: LBFConfig) -> nn.Sequential:
    if not config.embed_dim:
        return nn.Sequential()
    return nn.Sequential(
        nn.Linear(config.width, config.embed_dim),
        nn.GELU(),
        nn.Linear(config.embed_dim, config.embed_dim),
    )
