"""TIRG: text-image residual gating.

Vo et al., "Composing Text and Image for Image Retrieval - An Empirical Odyssey"
(CVPR 2019, arXiv 1812.07119), equations 1 to 3, by its code, google/tirg
`img_text_composition_models.py`, `TIRG` and `TIRGLastConv`.

    phi_xt = w_g sigmoid(gate([phi_x, phi_t])) * phi_x + w_r res([phi_x, phi_t])

Form "fc", over vectors (the paper's on Fashion-200k and MIT-States):
    gate = Linear(2d, d) ReLU BN,  res = Linear(2d, d) ReLU Linear(2d, 2d) ReLU BN
Form "last-conv", over a feature map, phi_t at every place of it (the paper's on CSS):
    gate, res = conv(2d, d) ReLU conv(2d, 2d) BN,  3 x 3 convolutions with a border of 0;
    the vector is fc(mean over the map), that of a target fc(mean phi_x)
with w_g = 1 and w_r = 10 at first, each layer applied from the right.

The layers are the code's: where it differs from equations 2 and 3, which have two
layers in every gate and residual, we follow it.  The map of form "last-conv": TIRG's
is the CNN's own, of 512 channels, behind a ReLU; ours is the K regions of a g x g grid,
or any regions put on g x g cells, each mapped to d by `whole.ImageEncoder.local` without
a ReLU behind that map.  `pool` = max takes the greatest over the map in place of the mean.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.maps import on_map
from cqr.trainer.models.whole import WholeConfig, WholeModel
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


@dataclass(frozen=True)
class TIRGConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`.

    Attributes:
        form: what is modified, the image's vector or its map: "fc" or "last-conv".
            Both are the paper's.
        side: of the map of "last-conv": 3 puts every region, an object say, on the cell of
            3 x 3 that its middle lies in; 0, the default, takes the cells of a grid.  Ours.
    """

    form: Literal["fc", "last-conv"] = "fc"
    side: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.side < 0:
            raise ValueError(f"side {self.side} is less than 0")


class TIRG(WholeModel):
    """phi_xt by gate and residual; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: TIRGConfig) -> None:
        super().__init__(region_dim, text, config)
        d = config.embed_dim
        self.weights = nn.Parameter(torch.tensor([1.0, 10.0]))  # w_g, w_r
        self.fc = nn.Linear(d, d) if config.form == "last-conv" else None
        self.side, self.pool = config.side, config.pool
        if config.form == "fc":
            self.gate = nn.Sequential(nn.BatchNorm1d(2 * d), nn.ReLU(), nn.Linear(2 * d, d))
            self.residual = nn.Sequential(
                nn.BatchNorm1d(2 * d),
                nn.ReLU(),
                nn.Linear(2 * d, 2 * d),
                nn.ReLU(),
                nn.Linear(2 * d, d),
            )
        else:
            self.gate, self.residual = _convolutions(d), _convolutions(d)

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        """phi_xt, of the shape of `image`, which is B x d, or B x d x g x g with text alike."""
        both = torch.cat([image, text], 1)
        gate, residual = self.weights
        out: Tensor = gate * torch.sigmoid(self.gate(both)) * image + residual * self.residual(both)
        return out

    @property
    def divides(self) -> bool:
        return self.fc is None

    def encode_image(self, regions: RegionBatch) -> Tensor:
        """B x d unit vectors of images to be found."""
        if self.fc is None:
            return super().encode_image(regions)
        if self.side == 0:
            return F.normalize(self.fc(self.image(regions)), dim=-1)
        return F.normalize(self.fc(self._over(self._map(regions))), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts.

        Raises:
            UserError: form "last-conv", and the regions are not those of a grid.
        """
        if self.fc is None:
            return super().encode_query(regions, words)
        image = self._map(regions)
        text = self.text(words)[..., None, None].expand(-1, -1, *image.shape[2:])
        return F.normalize(self.fc(self._over(self.compose(image, text))), dim=-1)

    def _map(self, regions: RegionBatch) -> Tensor:
        return on_map(self.image.local(regions), regions, self.side, "tirg with form=last-conv")

    def _over(self, image: Tensor) -> Tensor:
        """B x d of B x d x g x g."""
        return image.mean((2, 3)) if self.pool == "mean" else image.amax((2, 3))


def _convolutions(d: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(2 * d),
        nn.Conv2d(2 * d, 2 * d, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * d, d, 3, padding=1),
    )
