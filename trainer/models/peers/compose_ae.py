"""ComposeAE: the text rotates the image in a complex space; decoders keep both in the result.

Anwaar et al., "Compositional Learning of Image-Text Query for Image Retrieval" (WACV
2021, arXiv 2006.11149), equations 4 to 15, by its code, ecom-research/ComposeAE
`img_text_composition_models.py` and `main.py`.  With z = phi_x, q = phi_t:

    phi = exp(j gamma(q)) eta(z), that is (eta cos gamma, eta sin gamma)           (4)
    phi_xt = a rho(phi) + b rho_conv(phi, eta, gamma, z)                           (5)
    eta = Linear ReLU dropout Linear BN,  gamma = Linear ReLU Linear BN
    rho = Linear ReLU Linear ReLU BN of [Re phi, Im phi]
    rho_conv = such layers again, of the 2d largest answers, each in its own stretch,
        of 64 filters 3 wide along the 5 signals z, eta, gamma, Re phi, Im phi
    z^ = d_img(phi_xt), q^ = d_txt(phi_xt),  each Linear ReLU Linear ReLU BN

    loss = base(phi_xt, psi(target)) + .01 base(phi*, z) + .1 |z^ - z|^2 + .1 |q^ - q|^2   (15)
    phi* = the same composition of the target's vector by exp(-j gamma(q))    (10-12)

where base is the training's own loss.  From the code rather than the paper: rho and
rho_conv have an eta and a gamma each; the raw q does not enter rho_conv; squares are
means over coordinates; nothing is detached; a = 10, b = 1 at first; the weights of
the losses.  Ours: z before eta and gamma, which the code has behind them (its weights of
the filters fit in that order); q comes from TIRG's LSTM, as in the code without BERT, unless the
run has a text encoder; the paper's q is a frozen BERT's (`words` = mean is nearest).
The code can also be given the target's whole caption for a text; we never do that.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import Extra, Output
from cqr.trainer.models.whole import WholeConfig, WholeModel
from cqr.trainer.text.vocabulary import TextSpec, WordBatch

FILTERS = 64


@dataclass(frozen=True)
class ComposeAEConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`.

    Attributes:
        dropout: in eta.  0.5 is the code's.
        rotation: weight of the rotational symmetry loss.  The code's.
        image_reconstruction, text_reconstruction: weights of these losses.  The code's.
    """

    dropout: float = 0.5
    rotation: float = 0.01
    image_reconstruction: float = 0.1
    text_reconstruction: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2 * self.embed_dim % FILTERS:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of {FILTERS // 2}")


class ComposeAE(WholeModel):
    """phi_xt by rotation; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: ComposeAEConfig) -> None:
        super().__init__(region_dim, text, config)
        self.config = config
        d = config.embed_dim
        self.weights = nn.Parameter(torch.tensor([10.0, 1.0]))  # a, b
        self.rotation, self.rotation_conv = (_Rotation(d, config.dropout) for _ in range(2))
        self.linear, self.linear_conv = (_layers(2 * d, d) for _ in range(2))
        self.conv = nn.Conv1d(5, FILTERS, 3, padding=1)
        self.pool = nn.AdaptiveMaxPool1d(2 * d // FILTERS)
        self.to_image, self.to_text = (_layers(d, d) for _ in range(2))

    def compose(self, image: Tensor, text: Tensor, turn: float = 1.0) -> Tensor:
        """phi_xt, B x d; by the conjugate rotation if `turn` is -1."""
        _, _, real, imaginary = self.rotation(image, text, turn)
        by_linear = self.linear(torch.cat([real, imaginary], -1))
        signals = torch.stack((image, *self.rotation_conv(image, text, turn)), 1)
        by_conv = self.linear_conv(self.pool(self.conv(signals)).flatten(1))
        a, b = self.weights
        out: Tensor = a * by_linear + b * by_conv
        return out

    def forward(self, reference: RegionBatch, words: WordBatch, target: RegionBatch) -> Output:
        """Query and target vectors times the scale, and the three further losses."""
        image, text, found = self.image(reference), self.text(words), self.image(target)
        query, back = self.compose(image, text), self.compose(found, text, turn=-1.0)
        query_, found_, back_, image_ = (
            F.normalize(vector, dim=-1) * self.scale for vector in (query, found, back, image)
        )
        c = self.config
        return Output(
            query_,
            found_,
            {
                "rotation": Extra(c.rotation, (back_, image_)),
                "image": Extra(c.image_reconstruction, F.mse_loss(self.to_image(query), image)),
                "text": Extra(c.text_reconstruction, F.mse_loss(self.to_text(query), text)),
            },
        )


class _Rotation(nn.Module):
    """eta(z), gamma(q), and the real and imaginary part of exp(+-j gamma) eta, each B x d."""

    def __init__(self, d: int, dropout: float) -> None:
        super().__init__()
        self.eta = nn.Sequential(
            nn.BatchNorm1d(d), nn.Linear(d, d), nn.Dropout(dropout), nn.ReLU(), nn.Linear(d, d)
        )
        self.gamma = nn.Sequential(nn.BatchNorm1d(d), nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d))

    def forward(self, image: Tensor, text: Tensor, turn: float) -> tuple[Tensor, ...]:
        eta, gamma = self.eta(image), self.gamma(text)
        return eta, gamma, eta * torch.cos(gamma), turn * eta * torch.sin(gamma)


def _layers(width: int, d: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, d), nn.ReLU(), nn.Linear(d, d)
    )
