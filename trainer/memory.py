"""Targets of earlier steps, as further wrong answers.

Wang et al., "Cross-Batch Memory for Embedding Learning" (XBM, CVPR 2020): vectors move so
slowly that those of the last steps do for now, and cost a product each.  A batch full of
queries of few references shows few scenes; the memory shows many.
"""

import torch
from torch import Tensor, nn


class Memory(nn.Module):
    """The last `size` targets, oldest first overwritten; state of a training.

    Args:
        size: S.
        shape: of a target's vector: E, or M x E of M learners.
    """

    vectors: Tensor
    rows: Tensor

    def __init__(self, size: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.zeros(size, *shape))
        self.register_buffer("rows", torch.full((size,), -1))

    def beside(self, targets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's targets with those remembered, and which of all are wrong for a query.

        Args:
            targets: B x ...
            rows: B int64, which image each is; not negative.

        Returns:
            (B + S) x ... candidates, and B x (B + S) bool, False where a candidate is the
            query's own target, in the batch or remembered, and where nothing is remembered yet.
        """
        everything = torch.cat([rows, self.rows])
        wrong = (everything[None] != rows[:, None]) & (everything >= 0)
        return torch.cat([targets, self.vectors.to(targets.dtype)]), wrong

    @torch.no_grad()
    def keep(self, targets: Tensor, rows: Tensor) -> None:
        """Remember the batch's targets in place of the oldest."""
        count = min(len(rows), len(self.rows))
        self.vectors.copy_(torch.cat([self.vectors[count:], targets[-count:]]))
        self.rows.copy_(torch.cat([self.rows[count:], rows[-count:]]))
