"""Parameter hashing: the text chooses the weights of a layer that the image goes through.

Noh et al., "Image Question Answering using Convolutional Neural Network with Dynamic
Parameter Prediction" (DPPnet, CVPR 2016), as TIRG's paper (arXiv 1812.07119, 3.1)
uses it: "the encoded text feature phi_t is hashed into a transformation matrix T_t,
which can be applied to image feature; it is used to replace a fc layer".

    p = W_p phi_t + b_p                       C candidate weights
    T_t[m, n] = xi(m, n) p[psi(m, n)]         psi: hash to 0 .. C-1, xi: hash to -1, 1
    phi_xt = W_o dropout(relu(BN(T_t phi_x + b)))

T_t, its sign hash, the bias, and the layers after it are DPPnet's code's
(HyeonwooNoh/DPPnet `004_train_DPPnet_fixed_cnn/vqa_train.lua`, `HasherME.lua`).  TIRG's
code of it was not published: whether p is phi_t itself, and whether layers follow
T_t, it does not say; both are options.  Ours: the hash function (DPPnet's is
xxHash), C, and that T_t follows the encoder's fc rather than replaces it, so that
its size does not grow with a detector's features.  nashory/rtic-gcn-pytorch
`model/param_hash.py` hashes weights that do not depend on the text; we do not.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cqr.trainer.models.whole import WholeConfig, WholeModel
from cqr.trainer.text.vocabulary import TextSpec


@dataclass(frozen=True)
class ParameterHashingConfig(WholeConfig):
    """Choices beyond those of `WholeConfig`.

    Attributes:
        candidates: C; 0 hashes phi_t itself.  DPPnet has 40,000 for a matrix of
            2,000 x 2,000, a hundredth of its entries, and so have we for 512 x 512.
        after: what follows T_t: "layers" as in DPPnet, or "nothing", the plain
            reading of TIRG's sentence.
        dropout: among these layers.  0.5 is DPPnet's code's.
        hash_seed: 1691 is DPPnet's code's.
    """

    candidates: int = 2621
    after: Literal["layers", "nothing"] = "layers"
    dropout: float = 0.5
    hash_seed: int = 1691


class ParameterHashing(WholeModel):
    """phi_xt from T_t phi_x; see `whole.WholeModel` for the arguments."""

    places: Tensor

    def __init__(
        self,
        *,
        region_dim: int,
        text: TextSpec,
        config: ParameterHashingConfig,
    ) -> None:
        super().__init__(region_dim, text, config)
        d, size = config.embed_dim, config.candidates or config.embed_dim
        self.candidates = nn.Linear(d, size) if config.candidates else nn.Identity()
        if isinstance(self.candidates, nn.Linear):
            nn.init.normal_(self.candidates.bias, std=0.05)  # DPPnet's
        self.bias = nn.Parameter(torch.zeros(d))
        self.after = nn.Sequential()
        if config.after == "layers":
            self.after.extend(
                [nn.BatchNorm1d(d), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(d, d)]
            )
        # the sign is folded into the place: -p follows p
        place, negative = hashes(d, size, config.hash_seed)
        self.register_buffer("places", torch.from_numpy(place + size * negative), persistent=False)

    def compose(self, image: Tensor, text: Tensor) -> Tensor:
        weights = self.candidates(text)
        matrix = torch.cat([weights, -weights], 1)[:, self.places]  # B, d, d
        out: Tensor = self.after(
            torch.einsum("bmn,bn->bm", matrix, image.to(matrix.dtype)) + self.bias
        )
        return out


def hashes(width: int, size: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """psi and whether xi is -1, each width x width: MurmurHash3's finalizer of (m, n, seed)."""
    number = np.arange(width * width, dtype=np.uint64).reshape(width, width)
    x = number + (np.uint64(seed) << np.uint64(32))
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ (x >> np.uint64(33))) * np.uint64(factor)
    x ^= x >> np.uint64(33)
    return ((x >> np.uint64(1)) % np.uint64(size)).astype(np.int64), (x & np.uint64(1)) == 1
