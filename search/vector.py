"""A question as one vector of the space in which the gallery lies.

    toward = normalised sum over references r and texts t of weight(t) q(r, t)

where q(r, t) is the model's unit vector of a reference with a text; without a text, the
vector of the picture r itself.  Of each text n that is not wanted,

    b(n) = sum over references r of q(r, n) - i(r)

is what n does to the references, i(r) being the picture's own vector.  The answer is
the vector nearest to `toward` that has no part along any b: for one, toward less its
projection on b, if that is positive.  This is orthogonal negation (Widdows and Peters, "Word
Vectors and Quantum Logic", MoL 8, 2003).  That it is applied to the change that a text makes,
and that a part which points away from b is left as it is, is ours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cqr.search.question import Question
from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.text import TextReader

SWEEPS = 100
"""Over all conditions; one is exact for a single one."""


@torch.inference_mode()
def vector_of(
    model: RetrievalModel, words: TextReader, question: Question, device: torch.device
) -> Tensor:
    """E float32, of unit length, on the CPU.

    Args:
        model: in evaluation mode, on `device`.
    """
    texts = [t.text for t in question.texts]
    weights = torch.tensor([t.weight for t in question.texts], device=device)
    toward, unwanted = [], []
    for reference in question.references:
        regions = reference.regions.to(device)
        both = [*texts, *question.nots]
        own = model.encode_image(regions).float()
        made = _queries(model, words, regions, both, device) if both else own[:0]
        toward.append((weights[:, None] * made[: len(texts)]).sum(0) if texts else own[0])
        unwanted.append(made[len(texts) :] - own)
    vector = F.normalize(torch.stack(toward).sum(0), dim=0)
    return away(vector, torch.stack(unwanted).sum(0)).cpu()


def away(vector: Tensor, unwanted: Tensor) -> Tensor:
    """The nearest to `vector`, E, with x . b <= 0 for each b of M x E; of unit length again.

    By Hildreth's method: project on one condition after the other, and take back what a later
    one has made needless.
    """
    multipliers = torch.zeros(len(unwanted), device=vector.device)
    left = vector
    for _ in range(SWEEPS):
        for number, direction in enumerate(unwanted):
            step = (left @ direction) / (direction @ direction).clamp(min=1e-12)
            step = torch.maximum(step, -multipliers[number])
            multipliers[number] += step
            left = left - step * direction
    return F.normalize(left, dim=0)


def _queries(
    model: RetrievalModel,
    words: TextReader,
    regions: RegionBatch,
    texts: list[str],
    device: torch.device,
) -> Tensor:
    """T x E: one reference with each of the texts."""
    many = RegionBatch(
        *(
            t.expand(len(texts), *t.shape[1:])
            for t in (regions.features, regions.boxes, regions.mask)
        )
    )
    return model.encode_query(many, words.encode(texts).to(device)).float()
