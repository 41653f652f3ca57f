"""LBF: composed-query retrieval with locally bounded features.

Hosseinzadeh and Wang, "Composed Query Image Retrieval Using Locally Bounded
Features", CVPR 2020.  The paper's figure, read from left to right, is
`LBF.image_states`, `LBF.word_states`, `LBF.fuse`, `LBF.encode_query`.

Letters for shapes: B batch, K regions, N words, D width, E embedding.
"""

from collections.abc import Iterator
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.attention import CrossBlock, Places
from cqr.trainer.models.encoders import (
    BETWEEN,
    RegionEmbedding,
    between,
    output_map,
    pooled_kept,
    tep,
    through,
    vector,
    vep,
)
from cqr.trainer.models.interface import Extra, Output, RetrievalModel, divided
from cqr.trainer.models.lbf_config import LBFConfig
from cqr.trainer.models.locating import locating, pointing, vanished
from cqr.trainer.models.words import WordEmbedding
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


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
        self.vep = vep(c)
        self.tep = tep(c)
        size = (c.width, c.heads, c.hidden * c.width, c.dropout)
        depth = range(c.fusion_depth)
        known = BETWEEN if c.relations else 0
        self.see = nn.ModuleList(
            CrossBlock(*size, known) for _ in depth if c.directions != "language"
        )
        self.read = nn.ModuleList(CrossBlock(*size) for _ in depth if c.directions != "visual")
        self.out_regions = output_map(c)
        self.out_words = output_map(c)
        self.where = nn.Linear(c.width, 1) if c.where and self.see else None
        self.nothing = nn.Parameter(torch.zeros(c.embed_dim or c.width)) if c.nothing else None

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x E unit vectors of images, to be found."""
        return F.normalize(self._seen(self.image_states(regions), regions.mask), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        visual, language = self._fused(self._told(regions), words)[-1][-1]
        seen = self._seen(visual, regions.mask)
        return self._joined(seen, regions.mask, language, words.mask)

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """As of any model, and the losses that `locate` and `where` weigh."""
        c = self.config
        if not ((c.locate or c.where) and self.see):
            return super().forward(reference, words, target)
        places = Places.of(reference.mask)
        moved, after, fused = self._moved(reference, words, places)
        seen = self._beside_nothing(pooled_kept(after, places, self.config.pool), reference.mask)
        query = self._joined(seen, reference.mask, fused[-1][1], words.mask)
        gone, extra = vanished(reference, target), {}
        if c.locate:
            extra["locate"] = Extra(c.locate, locating(moved, gone))
        if self.where is not None:
            layers = fused[1:] if c.where_layers == "all" else fused[-1:]
            said = [self._pointed(visual, reference.mask, gone) for visual, _ in layers]
            extra["where"] = Extra(c.where, torch.stack(said).mean())
        return Output(query * self.scale, self.encode_image(target) * self.scale, extra)

    def image_states(self, regions: RegionBatch) -> Tensor:
        """VEP of images to be found: B x K x D."""
        return self._vep(self.embed_regions, regions)

    def reference_states(self, regions: RegionBatch) -> Tensor:
        """VEP of reference images: B x K x D."""
        return self._vep(self.embed_reference or self.embed_regions, regions)

    def word_states(self, words: WordBatch) -> Tensor:
        """TEP: B x N x D."""
        return through(self.tep, self.embed_words(words), words.mask, self.config.word_reach)

    def fuse(
        self, visual: Tensor, regions: RegionBatch, language: Tensor, words: WordBatch
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Both streams as they are given, then after each layer, as it is asked for: the
        linguistically attended regions, B x K x D, and the visually attended words, B x N x D.
        """
        apart = between(regions.boxes) if self.config.relations else None
        yield visual, language
        for layer in range(self.config.fusion_depth):
            seen, read = visual, language
            if self.see:
                visual = self.see[layer](seen, regions.mask, read, words.mask, apart)
            if self.read:
                language = self.read[layer](read, words.mask, seen, regions.mask)
            yield visual, language

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
        states = self.fuse(self.reference_states(regions), regions, self.word_states(words), words)
        *_, (visual, language) = islice(states, self.config.fusion_depth)  # all but the last layer
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
        moved, *_ = self._moved(regions, words, Places.of(regions.mask))
        return moved.sqrt()

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

    def _told(self, regions: RegionBatch) -> RegionBatch:
        """As it is, but each image has a dropout of its own."""
        return regions.apart if self.training and self.config.dropout else regions

    def _fused(
        self, regions: RegionBatch, words: WordBatch
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """Each image once, since the text is nothing to it: its mask and regions before the
        fusion; and for each query what `fuse` gives.
        """
        once = regions.once
        before = self.reference_states(once)
        fused = self.fuse(regions.again(before), regions, self.word_states(words), words)
        return once.mask, before, list(fused)

    def _moved(
        self, regions: RegionBatch, words: WordBatch, places: Places
    ) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
        """B x K squared distances of mapped regions by the fusion, 0 where none is real; P x E of
        those after it; and what `fuse` gives.
        """
        regions = self._told(regions)
        mask, visual, fused = self._fused(regions, words)
        once = Places.of(mask)
        mapped = once.padded(self.out_regions(once.kept(visual)))
        before = places.kept(regions.again(mapped))
        after = self.out_regions(places.kept(fused[-1][0]))
        moved = places.padded((before - after).square().sum(-1, keepdim=True), 0)[..., 0]
        return moved, after, fused

    def _pointed(self, visual: Tensor, mask: Tensor, gone: Tensor) -> Tensor:
        """How well the map of fused regions tells what the text is about: `pointing`."""
        assert self.where is not None
        scores = self.where(visual)[..., 0].masked_fill(~mask, -torch.inf)
        return pointing(scores.float(), gone)

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
        return through(self.vep, embed(regions), regions.mask)
