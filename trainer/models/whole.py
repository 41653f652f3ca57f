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
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.models.words import WordLSTM, word_layer
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


@dataclass(frozen=True)
class ImageConfig:
    """Choices of the image encoder, in every model of this kind.

    Attributes:
        embed_dim: d, of image, text and query.  512 is TIRG's.
        local: how a region becomes d wide before the mean over regions: "linear",
            which over the whole image is TIRG's last layer, fc; or "mlp", a
            two-layer map of its feature and box, so that the mean over many
            regions still holds what is where.  The latter is ours.
        scale: initial value of the learnable scale of both vectors.  TIRG's.
    """

    embed_dim: int = 512
    local: Literal["linear", "mlp"] = "linear"
    scale: float = 4.0

    def __post_init__(self) -> None:
        if self.embed_dim < 1:
            raise ValueError(f"embed_dim {self.embed_dim} is less than 1")


@dataclass(frozen=True)
class WholeConfig(ImageConfig):
    """Choices of both encoders.

    Attributes:
        embed_dim: d, of image, text and query.  512 is TIRG's.
        local: see `ImageConfig`.
        scale: initial value of the learnable scale of both vectors.  TIRG's.
        words: what the text's vector is made of: "lstm", its last state, TIRG's; or
            "mean", that of the words' vectors, as ComposeAE's server pools BERT's.
        text_dropout: before the text encoder's last layer.  0.1 is TIRG's code's.
    """

    words: Literal["lstm", "mean"] = "lstm"
    text_dropout: float = 0.1


class WholeModel(RetrievalModel):
    """Unit vectors of phi_x and of compose(phi_x, phi_t).

    Args:
        region_dim: D.
        text: what the words are.
        config: choices of the encoders.
    """

    def __init__(self, region_dim: int, text: TextSpec, config: WholeConfig) -> None:
        super().__init__(config.scale)
        self.image = ImageEncoder(region_dim, config)
        self.text = TextEncoder(text, config)

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        """phi_xt, B x d, of phi_x and phi_t, both B x d."""
        raise NotImplementedError

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x d unit vectors of images to be found."""
        return F.normalize(self.image(regions), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        return F.normalize(self.compose(self.image(regions), self.text(words)), dim=-1)


class ImageEncoder(nn.Module):
    """phi_x: the mean over an image's real regions, each mapped to width d."""

    def __init__(self, region_dim: int, config: ImageConfig) -> None:
        super().__init__()
        d = config.embed_dim
        self.boxes = config.local == "mlp"
        self.map: nn.Module = nn.Linear(region_dim, d)
        if self.boxes:
            self.map = nn.Sequential(nn.Linear(region_dim + 4, d), nn.GELU(), nn.Linear(d, d))

    def forward(self, regions: RegionBatch) -> Tensor:
        """B x d.  The last map, being linear, is of the mean: once an image, not a region."""
        inputs = self._inputs(regions)
        if isinstance(self.map, nn.Sequential):
            out: Tensor = self.map[-1](masked_mean(self.map[:-1](inputs), regions.mask))
        else:
            out = self.map(masked_mean(inputs, regions.mask))
        return out

    def local(self, regions: RegionBatch) -> Tensor:
        """B x K x d, whose mean over the real regions is phi_x."""
        out: Tensor = self.map(self._inputs(regions))
        return out

    def _inputs(self, regions: RegionBatch) -> Tensor:
        features = regions.features.float()
        return torch.cat([features, regions.boxes], -1) if self.boxes else features


class TextEncoder(nn.Module):
    """phi_t: word embedding, one layer of LSTM, last state, dropout, linear; all d wide."""

    def __init__(self, text: TextSpec, config: WholeConfig) -> None:
        super().__init__()
        d = config.embed_dim
        self.word = word_layer(text, d)
        self.lstm = WordLSTM(d, d) if config.words == "lstm" else None
        self.output = nn.Sequential(nn.Dropout(config.text_dropout), nn.Linear(d, d))

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


def masked_mean(vectors: Tensor, mask: Tensor) -> Tensor:
    """B x d: the mean of B x K x d over what is real, of which there is at least one."""
    return vectors.masked_fill(~mask[..., None], 0).sum(1) / mask.sum(1, keepdim=True)
