"""MRN: multimodal residual networks.

Kim et al., "Multimodal Residual Learning for Visual QA" (NIPS 2016, arXiv 1606.01455),
figure 3 (b), by its code, jnhwkim/nips-mrn-vqa `netdef/MRN.lua`; as a composition in
nashory/rtic-gcn-pytorch `model/mrn.py`.

    F(h, v) = tanh(W_h h) * tanh(W_2 tanh(W_1 v))
    h_l = W'_l h_{l-1} + F_l(h_{l-1}, v),     h_0 = phi_t, v = phi_x
    phi_xt = h_L

with dropout before each W.  All of it is the paper's; L = 1 is rtic's ("for
simplicity"; MRN's best has 3).  The paper's last layer, a classifier over answers,
has no counterpart here, as in rtic.  The encoders are `whole.WholeModel`'s.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from cqr.trainer.models.whole import WholeConfig, WholeModel
from cqr.trainer.text.vocabulary import TextSpec


@dataclass(frozen=True)
class MRNConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`.

    Attributes:
        layers: L.  1 is rtic's; MRN's paper has up to 3.
        dropout: before each map.  0.5 is MRN's code's, and rtic's.
    """

    layers: int = 1
    dropout: float = 0.5


class MRN(WholeModel):
    """phi_xt = h_L; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: MRNConfig) -> None:
        super().__init__(region_dim, text, config)
        self.layers = nn.ModuleList(
            _Layer(config.embed_dim, config.dropout) for _ in range(config.layers)
        )

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        state = text
        for layer in self.layers:
            state = layer(state, image)
        return state


class _Layer(nn.Module):
    def __init__(self, d: int, dropout: float) -> None:
        super().__init__()

        def affine() -> list[nn.Module]:
            return [nn.Dropout(dropout), nn.Linear(d, d)]

        self.shortcut = nn.Sequential(*affine())
        self.asked = nn.Sequential(*affine(), nn.Tanh())
        self.seen = nn.Sequential(*affine(), nn.Tanh(), *affine(), nn.Tanh())

    def forward(self, state: Tensor, image: Tensor) -> Tensor:
        out: Tensor = self.shortcut(state) + self.asked(state) * self.seen(image)
        return out
