"""Small data sets on disk, read, trained on and scored by the real code."""

from pathlib import Path

import numpy as np
import torch

from cqr.errors import UserError
from cqr.trainer.datasets.layout import Pictures
from cqr.trainer.datasets.recognise import find, read
from cqr.trainer.evaluation import evaluate
from cqr.trainer.training.material import Wanted, collect
from cqr.trainer.training.settings import settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

TINY = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=16"]


def write(contents, root="data"):
    """Files by name, of text or bytes, below a folder; returns the folder."""
    for name, content in contents.items():
        path = Path(root, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Path(root)


def recognise(root, *given, paths=()):
    """The data set in a folder, by its layout; its pictures lie at `paths`."""
    pictures = Pictures(Path(root), list(paths))
    return read(find(pictures), pictures, given=given)


def refusal(root, *given):
    """What is said of a folder that is refused; "" of one that is read."""
    try:
        recognise(root, *given)
    except UserError as error:
        return str(error)
    return ""


def refusal_for(contents, name, content):
    """What is said, in a line that names the file, if its content is another, or None: gone."""
    root = write({k: v for k, v in (contents | {name: content}).items() if v is not None})
    said = refusal(root)
    assert str(root / name) in said
    assert "\n" not in said
    return said


def rows(frame, *columns):
    """Tuples of some columns."""
    return list(frame[list(columns)].itertuples(index=False, name=None))


def evaluated(write_features, root, paths, *given):
    """The evaluation of a tiny model, trained for an epoch on random regions of `paths`."""
    features = write_features(
        f"artifacts/{Path(root).name}.h5",
        paths,
        np.random.default_rng(0).normal(size=(len(paths), 3, 8)).astype(np.float32),
        np.tile(np.float32([0, 0, 300, 300]), (len(paths), 3, 1)),
        root=Path(root).resolve(),
    )
    material = collect(features, Wanted(chosen=given))
    settings = settle({}, {"epochs": 1, "batch": 4, "validation": 0.2}, TINY)
    run = start(material, settings)
    train(run, material, device="cpu")
    return evaluate.evaluate(run, material, torch.device("cpu"))
