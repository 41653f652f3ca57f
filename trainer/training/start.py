"""The run to train: a new one, or one that was interrupted."""

from dataclasses import replace
from pathlib import Path

from cqr.atomic import in_turn
from cqr.errors import UserError
from cqr.machine import find_device, leads
from cqr.trainer.features import RegionReader
from cqr.trainer.text import encoder as text_encoders
from cqr.trainer.text import tower
from cqr.trainer.text.encoder import Identity
from cqr.trainer.text.vocabulary import Vocabulary
from cqr.trainer.training import checkpoint, runs
from cqr.trainer.training.holdout import divide
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings
from cqr.trainer.training.untrained import fit, settled


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
    if not leads():  # of processes that train together, one makes the run
        return _chosen(material, settings, data, folder, fresh)
    with in_turn(folder):  # or two that begin at once would take one name
        run = _chosen(material, settings, data, folder, fresh)
        if not (run.path / "run.json").exists():
            run.save()
    return run


def _chosen(
    material: Material, settings: Settings, data: Path | None, folder: Path, fresh: bool
) -> Run:
    stem = f"{Path(material.reader.file.path).resolve().stem}-{settings.model}"
    run = describe(runs.next_path(folder, stem), material, settings, data)
    for old in [] if fresh else reversed(runs.all_runs(folder)):
        if replace(old, path=run.path, created=run.created) == run and not finished(old):
            return old
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
    if settings.untrained:
        run = untrained(path, reader, settings)
    else:
        vocabulary, encoder = _readers(material, settings)
        run = _run(path, reader, settings, vocabulary, encoder)
    return replace(
        run,
        data=data.resolve() if data else None,
        dataset=material.dataset.name,
        protocol=dict(material.dataset.options),
    )


def make(features: Path, settings: Settings, device: str = "auto", folder: Path = runs.RUNS) -> Run:
    """A run of an untrained model over a feature file, of no data set: whole, or not there.

    Raises:
        UserError: the file is not whole, or the model reads texts, and the text tower of the
            features cannot be had.
    """
    reader = RegionReader(features)
    run = untrained(runs.next_path(folder, f"{features.stem}-{settings.model}"), reader, settings)
    fit(run, reader, find_device(device))
    run.save()
    return run


def untrained(path: Path, reader: RegionReader, settings: Settings) -> Run:
    """A run of an untrained model, of no data set, that would be kept at `path`.

    Raises:
        UserError: the model reads texts, and the text tower of the features cannot be had.
    """
    encoder = _tower(reader, settings) if settings.joint else None
    return _run(path, reader, settled(settings, reader.file.detector), None, encoder)


def _run(
    path: Path,
    reader: RegionReader,
    settings: Settings,
    vocabulary: Vocabulary | None,
    encoder: Identity | None,
) -> Run:
    return Run(
        path=path,
        features=Path(reader.file.path).resolve(),
        data=None,
        dataset="",
        protocol={},
        region_dim=reader.dim,
        detector=dict(reader.file.detector),
        settings=settings,
        vocabulary=vocabulary,
        text_encoder=encoder,
        created=runs.now(),
    )


def _readers(material: Material, settings: Settings) -> tuple[Vocabulary | None, Identity | None]:
    """What reads the texts: the words of the training texts, or a model."""
    source, _ = divide(material.dataset, settings)
    name, max_words = settings.text_encoder, settings.max_words
    if settings.joint:
        return None, _tower(material.reader, settings)
    if name:
        return None, text_encoders.load(name, max_words).identity
    return Vocabulary.of(source.texts(), max_words), None


def _tower(reader: RegionReader, settings: Settings) -> Identity:
    joint = runs.joint_of(reader.file.detector, reader.file.path)
    moved = settings.text_encoder
    return tower.load(joint.moved_to(moved) if moved else joint).identity


def finished(run: Run) -> bool:
    """Whether every epoch was trained."""
    return checkpoint.progress(run.checkpoint).epoch == run.settings.epochs
