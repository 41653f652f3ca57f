"""A question as one vector of the space in which the gallery lies.

    toward = sum over references r and texts t of weight(t) q(r, t), to unit length
    vector = toward - AWAY * sum over texts n that are not wanted of b(n), to unit length
    b(n)   = mean over references r of q(r, n) - i(r)

q(r, t) is the model's unit vector of a reference with a text, i(r) that of the picture r
itself; without any text, i(r) stands for q(r, t).  So a picture x loses score by as much as
it is nearer to what n would make of the references than to the references themselves.  This
is negation as in Du, Li and Mordatch, "Compositional Visual Generation with Energy Based
Models" (NeurIPS 2020), p(x | a) / p(x | n)^AWAY, with the dot product for the energy; that it
is taken relative to i(r), so that what looks like the references is not pushed away with n, is
ours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cqr.search.question import Question
from cqr.trainer.features import RegionBatch
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.text.vocabulary import TextReader

AWAY = 0.5
"""How much a text that is not wanted counts beside what is; see benchmarks/unwanted.py."""


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
        own = model.encode_image(regions).float()
        both = [*texts, *question.nots]
        made = _queries(model, words, regions, both, device) if both else own[:0]
        toward.append((weights[:, None] * made[: len(texts)]).sum(0) if texts else own[0])
        unwanted.append((made[len(texts) :] - own).sum(0))
    vector = F.normalize(torch.stack(toward).sum(0), dim=0)
    return F.normalize(vector - AWAY * torch.stack(unwanted).mean(0), dim=0).cpu()


def _queries(
    model: RetrievalModel,
    words: TextReader,
    regions: RegionBatch,
    texts: list[str],
    device: torch.device,
) -> Tensor:
    """T x E: one reference with each of the texts."""
    parts = (regions.features, regions.boxes, regions.mask)
    many = RegionBatch(*(part.expand(len(texts), *part.shape[1:]) for part in parts))
    return model.encode_query(many, words.encode(texts).to(device)).float()
