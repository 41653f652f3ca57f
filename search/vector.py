"""A question as one vector of the space in which the gallery lies.

    toward = sum over references r and texts t of weight(t) q(r, t), to unit length
    vector = toward - AWAY * sum over texts n that are not wanted of b(n), to unit length
             + AWAY * (sum over pictures x to be near of d(x) - sum over those to be far of d(x))
    b(n)   = mean over references r of q(r, n) - i(r)
    d(x)   = i(x) - mean over references r of i(r)

q(r, t) is the model's unit vector of a reference with a text, i(r) that of the picture r
itself; without any text, i(r) stands for q(r, t).  So a picture x loses score by as much as
it is nearer to what n would make of the references than to the references themselves.  This
is negation as in Du, Li and Mordatch, "Compositional Visual Generation with Energy Based
Models" (NeurIPS 2020), p(x | a) / p(x | n)^AWAY, with the dot product for the energy; that it
is taken relative to i(r), so that what looks like the references is not pushed away with n, is
ours.

Pictures that were found and are wanted, or are not, move the question towards or away from what
sets them apart from the references: relevance feedback as in Rocchio, "Relevance Feedback in
Information Retrieval" (1971), with one weight for both.

A model that weighs texts within q (zero-shot's) is given weight(t) there, and its q(r, t) count
alike.  Without references q(t), of a model that answers texts alone, stands for q(r, t), and
b(n) = q(n), and d(x) = i(x).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from cqr.search.question import Question, Reference
from cqr.trainer.models.interface import RetrievalModel
from cqr.trainer.text.vocabulary import TextReader, WordBatch

AWAY = 0.5
"""How much a text that is not wanted counts beside what is; see benchmarks/quality/unwanted.py."""


@torch.inference_mode()
def vector_of(
    model: RetrievalModel, words: TextReader, question: Question, device: torch.device
) -> Tensor:
    """E float32, of unit length, on the CPU.

    Args:
        model: in evaluation mode, on `device`.
    """
    said = [t.text for t in question.texts] + list(question.nots)
    read = words.encode(said).to(device) if said else None
    weights = torch.tensor([t.weight for t in question.texts], device=device)
    if question.references:
        toward, unwanted = _from_pictures(model, question, read, weights, device)
    else:
        assert read is not None  # a question has a picture or a text
        made = model.encode_text(read).float()
        toward = (weights[:, None] * made[: len(weights)]).sum(0)
        unwanted = made[len(weights) :].sum(0)
    moved = F.normalize(toward, dim=0) - AWAY * unwanted
    if question.more or question.less:
        moved = moved + AWAY * _feedback(model, question, device)
    return F.normalize(moved, dim=0).cpu()


def _feedback(model: RetrievalModel, question: Question, device: torch.device) -> Tensor:
    """The sum of d(x) of the pictures to be near, less that of those to be far."""

    def own(pictures: tuple[Reference, ...]) -> list[Tensor]:
        return [model.encode_image(one.regions.to(device)).float()[0] for one in pictures]

    near, far = own(question.more), own(question.less)
    start = torch.stack(own(question.references)).mean(0) if question.references else 0
    zero = torch.zeros_like((near + far)[0])
    return sum((x - start for x in near), zero) - sum((x - start for x in far), zero)


def _from_pictures(
    model: RetrievalModel,
    question: Question,
    read: WordBatch | None,
    weights: Tensor,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """`toward`, not yet of unit length, and the sum of all b(n).

    Args:
        read: the texts, then those that are not wanted.
        weights: of the texts.
    """
    number = len(weights)
    if read is not None and model.weighs:
        read.weight = torch.cat([weights, weights.new_ones(len(read) - number)])
        weights = torch.ones_like(weights)
    toward, unwanted = [], []
    for reference in question.references:
        regions = reference.regions.to(device)
        own = model.encode_image(regions).float()
        made = own[:0]
        if read is not None:
            made = model.query(regions.expand(len(read)), read).float()
        toward.append((weights[:, None] * made[:number]).sum(0) if number else own[0])
        unwanted.append((made[number:] - own).sum(0))
    return torch.stack(toward).sum(0), torch.stack(unwanted).mean(0)
