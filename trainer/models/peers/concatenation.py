"""Concatenation: a two-layer map of image and text.

TIRG's paper (arXiv 1812.07119, 3.1): phi_xt = f_MLP([phi_x, phi_t]), "two layers of
MLP with RELU, the batch-norm and the dropout rate of 0.1".  Where each of them
stands is TIRG's code's (google/tirg `img_text_composition_models.py`, `Concat`):

    f_MLP = Linear(2d, d) Dropout ReLU BN Linear(2d, 2d) ReLU BN   (applied from the right)

The encoders are `whole.WholeModel`'s.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cqr.trainer.models.whole import WholeConfig, WholeModel
from cqr.trainer.text.vocabulary import TextSpec


@dataclass(frozen=True)
class ConcatenationConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`.

    Attributes:
        dropout: before the last layer.  0.1 is the paper's.
    """

    dropout: float = 0.1


class Concatenation(WholeModel):
    """phi_xt = f_MLP([phi_x, phi_t]); see `whole.WholeModel` for the arguments."""

    def __init__(
        self,
        *,
        region_dim: int,
        text: TextSpec,
        config: ConcatenationConfig,
    ) -> None:
        super().__init__(region_dim, text, config)
        d = config.embed_dim
        self.mlp = nn.Sequential(
            nn.BatchNorm1d(2 * d),
            nn.ReLU(),
            nn.Linear(2 * d, 2 * d),
            nn.BatchNorm1d(2 * d),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(2 * d, d),
        )

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        out: Tensor = self.mlp(torch.cat([image, text], -1))
        return out
