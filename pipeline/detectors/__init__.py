"""One file a backend.  A detector turns pictures into exactly K regions each."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cqr.pipeline.regions import Regions

Picture = NDArray[np.uint8]
"""An upright RGB picture, H x W x 3."""


class Detector(Protocol):
    """What a backend must offer.

    Attributes:
        dim: D, the width of a region's feature.
        max_k: the largest K that it can give.
        identity: what decides its numbers: name, configuration, sha256 of the
            weights.  JSON-able; two detectors with equal identities are equal.
    """

    dim: int
    max_k: int
    identity: dict[str, Any]

    def network_size(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) at which the network sees a picture of that size.

        Pictures of one network size may share a batch: nothing is padded, so
        a batch never changes a number.
        """
        ...

    def __call__(self, pictures: list[Picture], k: int) -> list[Regions]:
        """Exactly k regions for each picture.

        Raises:
            ValueError: the pictures differ in network size, or k is out of range.
        """
        ...
