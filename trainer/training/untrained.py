"""Models whose weights are measured on the pictures that they are to find; nothing is trained.

Of the gallery's pictures, at most SAMPLE of them, evenly spaced:

    mean_image   the mean of their vectors, each of unit length
    mean_text    the same of plain phrases
    scale        the spread of scores of pictures against pictures, over the spread of scores
                 of phrases against pictures

The spread of pictures is the mean over them of the standard deviation of one's scores against
the others.  Of phrases it is the mean over the SHARE of them whose scores spread the most:
those are the phrases that tell these pictures apart, as the texts of questions do; most
phrases are of things that none of them shows.  The share was chosen on training references
(benchmarks/comparison/products.py).
"""

from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cqr.errors import UserError
from cqr.trainer.features import RegionReader
from cqr.trainer.models.from_joint import FromJoint
from cqr.trainer.models.zero_shot import centred, composition
from cqr.trainer.text.joint import Joint
from cqr.trainer.text.tower import JointReader
from cqr.trainer.training import checkpoint
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings

SAMPLE = 4096
"""Pictures that are looked at; their scores against each other take 64 MiB."""

SHARE = 0.25
"""Of the phrases, those whose scores spread the most."""


def settled(settings: Settings, detector: dict[str, object]) -> Settings:
    """The settings of an untrained model, "auto" replaced by what it stands for here."""
    if settings.options.get("compose") != "auto":
        return settings
    return replace(settings, options={"compose": composition(Joint.of(detector))})


def fit(run: Run, reader: RegionReader, device: torch.device) -> None:
    """Measure a run's weights, and keep them.

    Raises:
        UserError: a choice of the model is none, the features are not finite, or the text tower
            cannot be had.
    """
    model = run.model()
    texts = cast(JointReader, run.words(device)).phrases() if run.settings.joint else None
    plain = run.settings.options.get("compose") == "raw-sum"
    model.load_state_dict(measured(reader, texts, plain=plain))
    checkpoint.save_weights(run.weights, model)


def begin(model: FromJoint, reader: RegionReader, words: JointReader) -> None:
    """Measure what a model starts from.

    Raises:
        UserError: as `fit` does.
    """
    plain = model.start.composition == "raw-sum"
    model.start.load_state_dict(measured(reader, words.phrases(), plain=plain))
    if words.temperature is not None:
        model.begin(words.temperature)


def measured(
    reader: RegionReader, texts: Tensor | None, *, plain: bool = False
) -> dict[str, Tensor]:
    """The weights of `zero_shot.ZeroShot`, or without texts those of `likeness.Likeness`.

    Args:
        texts: T x E, vectors of plain phrases.
        plain: nothing is centred or scaled.

    Raises:
        UserError: the features are not finite.
    """
    rows = np.unique(np.linspace(0, len(reader) - 1, min(len(reader), SAMPLE)).round())
    images = reader.seen_as("whole").gather(rows.astype(np.int64)).own.float().cpu()
    if not torch.isfinite(images).all():
        raise UserError(
            f"the features of {reader.file.path} are not finite: check them with "
            f"`cqr inspect {reader.file.path}`"
        )
    state = {"mean_image": F.normalize(images, dim=-1).mean(0)}
    if texts is None:
        return state
    state["mean_text"] = F.normalize(texts.float(), dim=-1).mean(0)
    if plain:
        return {name: torch.zeros_like(v) for name, v in state.items()} | {
            "scale": torch.tensor(1.0)
        }
    i, t = centred(images, state["mean_image"]), centred(texts, state["mean_text"])
    return state | {"scale": torch.tensor(_scale(i, t))}


def _scale(images: Tensor, texts: Tensor) -> float:
    """Of N x E and T x E unit vectors; 1 where a spread cannot be measured."""
    number = len(images)
    if number < 3:
        return 1.0
    between = (images @ images.T).flatten()[1:].view(number - 1, number + 1)[:, :-1]
    wide = between.reshape(number, number - 1).std(1, correction=0).mean()
    spreads = (texts @ images.T).std(1, correction=0)
    most = spreads.topk(max(1, round(SHARE * len(spreads)))).values.mean()
    scale = float(wide / most)
    return scale if np.isfinite(scale) and scale > 0 else 1.0
