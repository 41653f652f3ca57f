"""Scores of queries against a gallery, block by block: the matrix is never whole."""

from collections.abc import Iterator
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BLOCK = 2**24
"""Scores held at once: 64 MiB of float32."""


def blocks(
    queries: Tensor, gallery: Tensor, removed: NDArray[np.int64], multiple: int = 1
) -> Iterator[tuple[int, Tensor]]:
    """The first query of each block, and the block's dot products in float32.

    Images with the same vector, bit for bit, have the same score.  A block is
    overwritten by the next.  On a CPU numpy's BLAS multiplies, whose threads
    OMP_NUM_THREADS sets before numpy is imported.

    Args:
        queries: Q x E, finite.
        gallery: G x E, finite, on the same device.
        removed: Q; the place whose score is -inf, or -1.
        multiple: the rows are padded with -inf to a multiple of this length.
    """
    queries, gallery = queries.detach().float(), gallery.detach().float()
    later, earlier = _twins(gallery)
    size = len(gallery)
    width = -(-size // multiple) * multiple
    rows = max(1, min(BLOCK // max(1, width), len(queries)))
    held = torch.full((rows, width), -torch.inf, device=gallery.device)
    for first in range(0, len(queries), rows):
        part = slice(first, first + rows)
        block = held[: len(queries[part])]
        _multiply(queries[part], gallery, block[:, :size])
        block[:, later] = block[:, earlier]
        gone = torch.tensor(removed[part], device=block.device)
        row = (gone >= 0).nonzero().flatten()
        block[row, gone[row]] = -torch.inf
        yield first, block


def _twins(gallery: Tensor) -> tuple[Tensor, Tensor]:
    """The places whose vector has stood before, and the first places of those vectors.

    A matrix product may add up its last columns in another order than the rest
    (OpenBLAS and MKL do), so that the same vector would not get the same score.
    """
    seen: dict[bytes, int] = {}
    first = torch.tensor(
        [
            seen.setdefault(blake2b(vector, digest_size=16).digest(), place)
            for place, vector in enumerate(gallery.contiguous().cpu().numpy())
        ],
        dtype=torch.int64,
    )
    later = (first < torch.arange(len(first))).nonzero().flatten()
    return later.to(gallery.device), first[later].to(gallery.device)


def _multiply(queries: Tensor, gallery: Tensor, out: Tensor) -> None:
    if out.device.type == "cpu":
        # torch's own BLAS, MKL, needs 1.6 times as long on AMD processors
        np.matmul(queries.numpy(), gallery.numpy().T, out=out.numpy())
    else:
        torch.mm(queries, gallery.T, out=out)
