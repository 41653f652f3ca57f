"""The run to train: a new one, or one that was interrupted."""

import os
from dataclasses import replace
from pathlib import Path

from cqr.errors import UserError
from cqr.trainer.text import encoder as text_encoders
from cqr.trainer.text.vocabulary import Vocabulary
from cqr.trainer.training import checkpoint, runs
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings


def start(
    material: Material,
    settings: Settings,
    data: Path | None = None,
    folder: Path = runs.RUNS,
    fresh: bool = False,
) -> Run:
    """The run to train: the newest unfinished one with the same settings, else a new one.

    Args:
        data: as it was given to find the data set.
        folder: where runs are kept.
        fresh: never go on with an old one.

    Raises:
        UserError: the text encoder cannot be had.
    """
    stem = f"{Path(material.reader.file.path).resolve().stem}-{settings.model}"
    run = describe(runs.next_path(folder, stem), material, settings, data)
    for old in [] if fresh else reversed(runs.all_runs(folder)):
        if replace(old, path=run.path, created=run.created) == run and not finished(old):
            return old
    if os.environ.get("RANK", "0") == "0":  # of processes that train together, one makes the run
        run.save()
    return run


def describe(path: Path, material: Material, settings: Settings, data: Path | None) -> Run:
    """A run that would be kept at `path`; nothing is written.

    Raises:
        UserError: the text encoder cannot be had, or the features hold too few regions.
    """
    reader = material.seen_by(settings).reader
    if settings.snr and reader.k < 2:
        raise UserError(
            f"--snr needs two or more regions of an image, and {reader.file.path} holds one: "
            "extract with `cqr extract --k 36`"
        )
    source, _ = divide(material.dataset, settings)
    name, max_words = settings.text_encoder, settings.max_words
    encoder = text_encoders.load(name, max_words).identity if name else None
    return Run(
        path=path,
        features=Path(reader.file.path).resolve(),
        data=data.resolve() if data else None,
        dataset=material.dataset.name,
        protocol=dict(material.dataset.options),
        region_dim=reader.dim,
        detector=dict(reader.file.detector),
        settings=settings,
        vocabulary=None if encoder else Vocabulary.of(source.texts(), max_words),
        text_encoder=encoder,
        created=runs.now(),
    )


def finished(run: Run) -> bool:
    """Whether every epoch was trained."""
    return checkpoint.progress(run.checkpoint).epoch == run.settings.epochs
