"""The value path of MaskCLIP (Zhou et al., ECCV 2022, section 3.2).

The last layer of a CLIP gathers into the class token what the others hold; the places
keep more of themselves if each attends to itself alone.  As in the authors' code, the
residual and the MLP of that layer stay.
"""

from typing import Any

from torch import Tensor


class Input:
    """Holds what went into a layer last."""

    def __init__(self, layer: Any) -> None:
        self._taken: Tensor | None = None
        layer.register_forward_pre_hook(self._take)

    def _take(self, layer: Any, args: tuple[Tensor, ...]) -> None:
        self._taken = args[0]

    def taken(self) -> Tensor:
        taken, self._taken = self._taken, None
        assert taken is not None
        return taken
