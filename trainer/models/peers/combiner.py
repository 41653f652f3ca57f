"""Combiner: a weighted mean of image and text, and what must be added to it.

Baldrati et al., "Conditioned and Composed Image Retrieval Combining and Partially
Fine-Tuning CLIP-Based Features" (CLIP4Cir, CVPR Workshops 2022), by its code,
ABaldrati/CLIP4Cir `combiner.py`:

    p = [drop(relu(W_t phi_t)), drop(relu(W_x phi_x))]
    s = sigmoid(w drop(relu(W_s p)))                                  one number a query
    phi_xt = W_o drop(relu(W_c p)) + s phi_t + (1 - s) phi_x

The authors' phi_x and phi_t are CLIP's, in one space already; ours are the encoders',
which learn with the rest, unless the features are CLIP's own.  The training's learnable
scale stands for their fixed factor of 100.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.models.whole import WholeConfig, WholeModel
from cqr.trainer.text.vocabulary import TextSpec


@dataclass(frozen=True)
class CombinerConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`.

    Attributes:
        projection: width of both projections, as a multiple of d.  4 is the authors'
            (2,560 for CLIP's 640).
        hidden: width of what follows, likewise.  8 is the authors' (5,120).
        dropout: at all three places and in s.  0.5 is the code's.
    """

    projection: int = 4
    hidden: int = 8
    dropout: float = 0.5


class Combiner(WholeModel):
    """phi_xt by mean and residual; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: CombinerConfig) -> None:
        super().__init__(region_dim, text, config)
        d = config.embed_dim
        projection, hidden = config.projection * d, config.hidden * d
        self.project_text = nn.Linear(d, projection)
        self.project_image = nn.Linear(d, projection)
        self.combine = nn.Linear(2 * projection, hidden)
        self.output = nn.Linear(hidden, d)
        self.share = nn.Sequential(
            nn.Linear(2 * projection, hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(hidden, 1),
            nn.Sigmoid(),
        )
        self.drop = nn.Dropout(config.dropout)

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        both = torch.cat(
            [
                self.drop(F.relu(self.project_text(text))),
                self.drop(F.relu(self.project_image(image))),
            ],
            -1,
        )
        share = self.share(both)
        learned = self.output(self.drop(F.relu(self.combine(both))))
        out: Tensor = learned + share * text + (1 - share) * image
        return out
