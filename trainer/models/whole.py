"""What the models that compare one vector of an image share: its encoders, as TIRG has them.

Vo et al., "Composing Text and Image for Image Retrieval - An Empirical Odyssey"
(TIRG, CVPR 2019, arXiv 1812.07119), trains every composition with the same two
encoders, "with the only difference being in the composition module" (3.1), and so
do we: phi_x of an image, phi_t of a text, both d wide, and a query
phi_xt = compose(phi_x, phi_t) that is compared with phi_x of the target.

Letters for shapes: B batch, K regions, N words, D a region's width, d of all else.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.encoders import LBFImageEncoder, LBFTextEncoder
from cqr.trainer.models.interface import RetrievalModel, divided
from cqr.trainer.models.lbf_config import LBFConfig, Pool
from cqr.trainer.models.words import WordLSTM, word_layer
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


@dataclass(frozen=True)
class ImageConfig:
    """Choices of the image encoder, in every model of this kind.

    Attributes:
        embed_dim: d, of image, text and query.  512 is TIRG's.
        local: how the encoder "linear" makes a region d wide: "linear", which over the
            whole image is TIRG's last layer, fc; or "mlp", a two-layer map of its feature
            and box, so that the mean over many regions still holds what is where.  The
            latter is ours.
        scale: initial value of the learnable scale of both vectors.  TIRG's.
        encoder: what comes before the composition.  "linear": regions as `local` says,
            and TIRG's text encoder.  "lbf": LBF's own, so that composition is told from
            encoding: VEP and TEP, each region and word through a two-layer map, pooled.
        pool: over regions, and where a model composes regions or words, over these.
        width, heads, vep_depth, waves, encoder_dropout: of LBF's encoders, `width`, `heads`,
            `vep_depth`, `waves` and `dropout` of `LBFConfig`; not of "linear".
    """

    embed_dim: int = 512
    local: Literal["linear", "mlp"] = "linear"
    scale: float = 4.0
    encoder: Literal["linear", "lbf"] = "linear"
    pool: Pool = "mean"
    width: int = 512
    heads: int = 8
    vep_depth: int = 2
    waves: bool = False
    encoder_dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.embed_dim < 1:
            raise ValueError(f"embed_dim {self.embed_dim} is less than 1")
        if self.encoder == "lbf" and self.local != "linear":
            raise ValueError(f"local {self.local!r} is of encoder=linear, not of encoder=lbf")


@dataclass(frozen=True)
class WholeConfig(ImageConfig):
    """Choices of both encoders.

    Attributes:
        embed_dim: d, of image, text and query.  512 is TIRG's.
        local, encoder, pool, width, heads, vep_depth, waves, encoder_dropout: see `ImageConfig`.
        scale: initial value of the learnable scale of both vectors.  TIRG's.
        words: what the vector of a text is made of by the encoder "linear": "lstm", its
            last state, TIRG's; or "mean", that of the words' vectors, as ComposeAE's server
            pools BERT's.
        text_dropout: before the last layer of that text encoder.  0.1 is TIRG's code's.
        tep_depth, word_reach: of LBF's encoders, as `vep_depth`.
    """

    words: Literal["lstm", "mean"] = "lstm"
    text_dropout: float = 0.1
    tep_depth: int = 2
    word_reach: int = 0


class ImageModel(RetrievalModel):
    """Unit vectors of phi_x of images to be found.

    Args:
        region_dim: D.
        config: choices of the encoder.
    """

    def __init__(self, region_dim: int, config: ImageConfig) -> None:
        super().__init__(config.scale)
        self.image = image_encoder(region_dim, config)

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x d unit vectors of images to be found."""
        return F.normalize(self.image(regions), dim=-1)

    @property
    def divides(self) -> bool:
        """Unless a model has a vector of its own of an image, which is not the encoder's."""
        return type(self).encode_image is ImageModel.encode_image

    @torch.no_grad()
    def shares(self, regions: RegionBatch, query: Tensor) -> Tensor:
        """B x K: what each region of an image to be found adds to its score with a query.

        Raises:
            ValueError: an image's vector is not the encoder's.
        """
        if not self.divides:
            return super().shares(regions, query)
        mapped = self.image.local(regions)
        return divided(mapped, regions.mask, query, self.image.pool == "max")


class WholeModel(ImageModel):
    """Unit vectors of phi_x and of compose(phi_x, phi_t).

    Args:
        region_dim: D.
        text: what the words are.
        config: choices of the encoders.
    """

    def __init__(self, region_dim: int, text: TextSpec, config: WholeConfig) -> None:
        super().__init__(region_dim, config)
        self.text = text_encoder(text, config)

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        """phi_xt, B x d, of phi_x and phi_t, both B x d."""
        raise NotImplementedError

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        return F.normalize(self.compose(self.image(regions), self.text(words)), dim=-1)


class ImageEncoder(nn.Module):
    """phi_x, pooled over an image's real regions, each mapped to width d: "linear"."""

    def __init__(self, region_dim: int, config: ImageConfig) -> None:
        super().__init__()
        d = config.embed_dim
        self.pool = config.pool
        self.boxes = config.local == "mlp"
        self.map: nn.Module = nn.Linear(region_dim, d)
        if self.boxes:
            self.map = nn.Sequential(nn.Linear(region_dim + 4, d), nn.GELU(), nn.Linear(d, d))

    def forward(self, regions: RegionBatch) -> Tensor:
        """B x d.  Before a mean, the last map is of the mean: once an image, not a region."""
        once = regions.once
        inputs = self._inputs(once)
        if self.pool == "max":
            out: Tensor = pooled(self.map(inputs), once.mask, "max")
        elif isinstance(self.map, nn.Sequential):
            out = self.map[-1](masked_mean(self.map[:-1](inputs), once.mask))
        else:
            out = self.map(masked_mean(inputs, once.mask))
        return regions.again(out)

    def local(self, regions: RegionBatch) -> Tensor:
        """B x K x d, which pooled over the real regions is phi_x."""
        return regions.again(self.map(self._inputs(regions.once)))

    def _inputs(self, regions: RegionBatch) -> Tensor:
        features = regions.features.float()
        return torch.cat([features, regions.boxes], -1) if self.boxes else features


class TextEncoder(nn.Module):
    """phi_t: word embedding, one layer of LSTM, last state, dropout, linear: "linear".

    Args:
        whole: False leaves out what only the vector of the whole text needs.
    """

    def __init__(self, text: TextSpec, config: WholeConfig, whole: bool = True) -> None:
        super().__init__()
        d = config.embed_dim
        self.word = word_layer(text, d)
        self.lstm = WordLSTM(d, d) if config.words == "lstm" else None
        self.output = nn.Sequential(nn.Dropout(config.text_dropout), nn.Linear(d, d))
        if not whole:
            del self.output

    def forward(self, words: WordBatch, first: Tensor | None = None) -> Tensor:
        """B x d.

        Args:
            first: B x d, read before the words as if it were one.
        """
        vectors, mask = self.word(words.tokens), words.mask
        if first is not None:
            vectors = torch.cat([first.to(vectors.dtype)[:, None], vectors], 1)
            mask = torch.cat([mask.new_ones(len(mask), 1), mask], 1)
        if self.lstm is None:
            read = masked_mean(vectors, mask)
        else:
            states = self.lstm(vectors)
            last = mask.sum(1) - 1
            read = states[torch.arange(len(states), device=last.device), last]
        out: Tensor = self.output(read)
        return out

    def local(self, words: WordBatch) -> Tensor:
        """B x N x d: what is read after each word."""
        vectors: Tensor = self.word(words.tokens)
        if self.lstm is not None:
            vectors = self.lstm(vectors)
        return vectors


def image_encoder(region_dim: int, config: ImageConfig) -> ImageEncoder | LBFImageEncoder:
    """phi_x, B x d, by `forward`; by `local`, B x K x d."""
    if config.encoder == "linear":
        return ImageEncoder(region_dim, config)
    return LBFImageEncoder(region_dim, _of_lbf(config))


def text_encoder(
    text: TextSpec, config: WholeConfig, whole: bool = True
) -> TextEncoder | LBFTextEncoder:
    """phi_t, B x d, by `forward`, unless not `whole`; by `local`, B x N x d."""
    if config.encoder == "linear":
        return TextEncoder(text, config, whole)
    return LBFTextEncoder(text, _of_lbf(config))


def _of_lbf(config: ImageConfig) -> LBFConfig:
    return LBFConfig(
        width=config.width,
        heads=config.heads,
        vep_depth=config.vep_depth,
        waves=config.waves,
        tep_depth=getattr(config, "tep_depth", 0),
        word_reach=getattr(config, "word_reach", 0),
        dropout=config.encoder_dropout,
        pool=config.pool,
        embed_dim=config.embed_dim,
    )


def pooled(vectors: Tensor, mask: Tensor, pool: Pool) -> Tensor:
    """B x d: the mean or the greatest of B x K x d over what is real, at least one."""
    if pool == "mean":
        return masked_mean(vectors, mask)
    return vectors.masked_fill(~mask[..., None], -torch.inf).amax(1)


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """B x d: the mean of B x K x d over what is real, of which there is at least one."""
    return vectors.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)
