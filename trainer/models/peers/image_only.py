"""Image only: the reference's own vector is the query.

TIRG's paper (arXiv 1812.07119, 3.1): phi_xt = phi_x; its code, google/tirg
`img_text_composition_models.py`, `SimpleModelImageOnly`.  What a composition must
beat.  The encoder is `whole.image_encoder`'s.
"""

from torch import Tensor

from cqr.trainer.features import RegionBatch
from cqr.trainer.models.whole import ImageConfig, ImageModel
from cqr.trainer.text.vocabulary import TextSpec, WordBatch


class ImageOnly(ImageModel):
    """phi_xt = phi_x; see `whole.WholeModel` for the arguments."""

    def __init__(self, *, region_dim: int, text: TextSpec, config: ImageConfig) -> None:
        super().__init__(region_dim, config)

    def encode_query(self, regions: RegionBatch, words: WordBatch) -> Tensor:
        """B x d unit vectors of reference images, whatever the texts."""
        return self.encode_image(regions)
