"""A pretrained network as a `regional.Encoder`."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cqr.errors import UserError
from cqr.pipeline.detectors import Picture, runtimes
from cqr.pipeline.detectors.backbones.tokens import Pool, shares
from cqr.pipeline.detectors.backbones.view import Size, View


@dataclass(frozen=True)
class Seen:
    """What a network makes of a batch of pictures.

    Attributes:
        tokens: B x (rows * columns) x C, row by row, without any that belongs to no
            place (class tokens, registers).
        columns, rows: of the map.
        whole: B x D, the model's own embedding of each picture, not normalised.
    """

    tokens: Tensor
    columns: int
    rows: int
    whole: Tensor


@dataclass(frozen=True)
class Tower:
    """A network, on its device.

    Attributes:
        see: normalised pictures, B x 3 x H x W, to what it makes of them.
        pool: boxes over the tokens, to D.
        pooling: what `pool` does, for the identity: "mean", "values" or "attention".
    """

    see: Callable[[Tensor], Seen]
    pool: Pool
    pooling: str


@dataclass(frozen=True)
class _Maps:
    seen: Seen
    corner: tuple[int, int]  # of what was seen, in network pixels
    size: Size  # of what was seen


class Backbone:
    """A tower behind a view; `identity` is completed with what they are.

    Raises:
        UserError: the network cannot take pictures of the view's size.
    """

    def __init__(
        self, tower: Tower, view: View, device: torch.device, identity: dict[str, Any]
    ) -> None:
        self._tower, self._view = tower, view
        self.device = device
        seen = self._tried(identity)
        self.dim: int = seen.whole.shape[1]
        self.identity = {
            **identity,
            "input": view.identity,
            "tokens": [seen.columns, seen.rows],
            "pooling": tower.pooling,
        }

    @torch.inference_mode()
    def _tried(self, identity: dict[str, Any]) -> Seen:
        """What comes of an empty picture, so that what does not fit fails at once."""
        width, height = self._view.size
        try:
            seen = self._tower.see(torch.zeros(1, 3, height, width, device=self.device))
            all_tokens = torch.ones(1, seen.columns * seen.rows, device=self.device)
            pooled = self._tower.pool(seen.tokens, [all_tokens])
        except (RuntimeError, AssertionError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{identity['config']} cannot be used with pictures of {width} x {height} "
                f"({reason}); choose another --config"
            ) from error
        if seen.whole.shape != pooled.shape:
            raise UserError(
                f"{identity['config']} embeds pictures in {tuple(seen.whole.shape[1:])} and their "
                f"places in {tuple(pooled.shape[1:])}: such models are not supported; choose "
                "another --config"
            )
        return seen

    def in_16_bits(self) -> None:
        exact = self._tower.see

        def see(pixels: Tensor) -> Seen:
            with torch.autocast(self.device.type, runtimes.HALF):
                seen = exact(pixels)
            return replace(seen, tokens=seen.tokens.float(), whole=seen.whole.float())

        self._tower = replace(self._tower, see=see)

    def network_size(self, width: int, height: int) -> Size:
        return self._view.network_size(width, height)

    def resize(self, picture: Picture, size: Size) -> Tensor:
        return self._view.resize(picture, size)

    def encode(self, batch: Tensor) -> _Maps:
        seen, corner = self._view.crop(batch)
        size = seen.shape[-1], seen.shape[-2]
        return _Maps(self._tower.see(self._view.normalised(seen)), corner, size)

    def pool(self, maps: _Maps, boxes: list[Tensor]) -> Tensor:
        seen = maps.seen
        scale = torch.tensor([seen.columns / maps.size[0], seen.rows / maps.size[1]] * 2)
        corner = torch.tensor([*maps.corner, *maps.corner])
        scale, corner = scale.to(self.device), corner.to(self.device)
        covered = [shares((b - corner) * scale, seen.columns, seen.rows) for b in boxes]
        return self._tower.pool(seen.tokens, covered)

    def whole(self, maps: _Maps) -> Tensor:
        return maps.seen.whole
