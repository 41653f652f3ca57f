"""Show and Tell: one LSTM reads the image, then the words.

Vinyals et al., "Show and Tell: A Neural Image Caption Generator" (CVPR 2015), as
TIRG's paper (arXiv 1812.07119, 3.1) uses it: "we train a LSTM to encode both image
and text by inputting the image feature first, following by words in the text; the
final state of this LSTM is used as representation phi_xt".

    h_0 = LSTM(phi_x), h_i = LSTM(w_i; h_{i-1}), phi_xt = W dropout(h_N) + b

Ours, since no code of it was published: the LSTM is TIRG's text encoder, its
dropout and last linear layer included, with phi_x as the word before the first.
"""

import torch.nn.functional as F
from torch import Tensor

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.whole import ImageModel, TextEncoder, WholeConfig
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


class ShowAndTell(ImageModel):
    """phi_xt is the text encoder's, phi_x its first word; see `whole.WholeModel`.

    With LBF's encoders the image alone has them, since the LSTM is the composition.
    """

    def __init__(self, *, region_dim: int, text: TextSpec, config: WholeConfig) -> None:
        super().__init__(region_dim, config)
        self.text = TextEncoder(text, config)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images with texts."""
        return F.normalize(self.text(words, first=self.image(regions)), dim=-1)
