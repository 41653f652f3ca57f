"""Zero-shot: a picture and a text of one joint space, added; nothing is trained.

With x the model's own vector of a picture and t that of a text, and u(v) = v / |v|:

    i = u(u(x) - mean u(x))         over the gallery
    c = u(u(t) - mean u(t))         over plain phrases, `cqr.trainer.text.phrases.txt`
    query = u(i + s c)              image = i              s = scale

Means are taken out since all pictures of such a space lie in one direction and all texts in
another (Liang et al., "Mind the Gap", NeurIPS 2022), which says nothing of either.  s is how
much wider scores of pictures against pictures spread over the gallery than scores of texts do
(`training.untrained`); without it a sum answers with the picture alone.  That it is measured
on the gallery is ours.

`slerp` takes the way from i to c on the sphere instead, s / (1 + s) of it (Jang et al.,
"Spherical Linear Interpolation and Text-Anchoring for Zero-shot Composed Image Retrieval",
ECCV 2024, who choose that share by hand).  `raw-sum` is u(x + t), with images u(x), nothing
centred: for models that were trained so, as BGE-VL's CLIP models were (Zhou et al.,
"MegaPairs", 2024).

A text's weight multiplies s.  A text whose vector is 0 says nothing: the query is the picture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

Compose = Literal["auto", "sum", "raw-sum", "slerp", "product"]


@dataclass(frozen=True)
class ZeroShotConfig:
    """The one choice.

    Attributes:
        compose: how picture and text meet; "auto" is "raw-sum" for models that were
            trained so, else "sum".

    Raises:
        ValueError: "product", of the two scores, since it is not the score of any one vector,
            and an index holds one for each question.
    """

    compose: Compose = "auto"

    def __post_init__(self) -> None:
        if self.compose == "product":
            raise ValueError(
                "a product of scores is not the score of one vector, which is all that an index "
                "holds, and it did no better than sum"
            )


class ZeroShot(RetrievalModel):
    """Vectors of a joint space; its weights are the means of its images and texts, and s.

    Args:
        region_dim: E, of the joint space.
        text: not used.
        config: the choice.
    """

    mean_image: Tensor
    mean_text: Tensor

    def __init__(
        self, *, region_dim: int, text: TextSpec | None = None, config: ZeroShotConfig | None = None
    ) -> None:
        super().__init__(scale=None)
        self.composition = (config or ZeroShotConfig()).compose
        self.register_buffer("mean_image", torch.zeros(region_dim))
        self.register_buffer("mean_text", torch.zeros(region_dim))
        self.register_buffer("scale", torch.tensor(1.0))

    weighs = True
    answers_text = True

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x E unit vectors of images to be found."""
        return F.normalize(self._placed(regions.own, self.mean_image), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x E unit vectors of reference images with texts."""
        image, text = self._placed(regions.own, self.mean_image), self._text(words)
        scale = self.scale if words.weight is None else self.scale * words.weight[:, None]
        return F.normalize(_COMPOSE.get(self.composition, _sum)(image, text, scale), dim=-1)

    def encode_text(self, words: WordBatch) -> Tensor:
        """B x E unit vectors of texts."""
        return F.normalize(self._text(words), dim=-1)

    def _text(self, words: WordBatch) -> Tensor:
        assert words.vector is not None
        placed = self._placed(words.vector, self.mean_text)
        return placed * (words.vector != 0).any(-1, keepdim=True)

    def _placed(self, vectors: Tensor, mean: Tensor) -> Tensor:
        if self.composition == "raw-sum":
            return vectors.float()
        return centred(vectors, mean)


def centred(vectors: Tensor, mean: Tensor) -> Tensor:
    """u(u(v) - mean): N x E float32 unit vectors."""
    return F.normalize(F.normalize(vectors.float(), dim=-1) - mean, dim=-1)


def _sum(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    return image + scale * text


def _slerp(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """sin((1 - a) w) i + sin(a w) c, with w the angle and a = s / (1 + s)."""
    said = (text != 0).any(-1, keepdim=True)
    angle = (image * text).sum(-1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6).arccos()
    share = scale / (1 + scale)
    between = torch.sin((1 - share) * angle) * image + torch.sin(share * angle) * text
    return torch.where(said, between, image)


_COMPOSE: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sum": _sum,
    "raw-sum": _sum,
    "slerp": _slerp,
}
