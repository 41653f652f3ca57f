"""Text only: the text's own vector is the query.

TIRG's paper (arXiv 1812.07119, 3.1): phi_xt = phi_t; its code, google/tirg
`img_text_composition_models.py`, `SimpleModelTextOnly`.  What a composition must
beat.  The encoders are `whole.WholeModel`'s.
"""

import torch.nn.functional as F
from torch import Tensor

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.whole import WholeConfig, WholeModel
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


class TextOnly(WholeModel):
    """phi_xt = phi_t; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: WholeConfig) -> None:
        super().__init__(region_dim, text, config)

    answers_text = True

    def encode_text(self, words: WordBatch) -> Tensor:
        """B x d unit vectors of texts."""
        return F.normalize(self.text(words), dim=-1)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of texts, whatever the reference images."""
        return self.encode_text(words)
