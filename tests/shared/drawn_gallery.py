"""A gallery of drawings on disk and a model trained for an epoch, to try a search on."""

import contextlib
import csv
import random
from pathlib import Path
from typing import Any

from cqr.pipeline.detectors import DetectorSpec
from cqr.pipeline.extract import Job, extract
from cqr.scenes import protocol
from cqr.scenes.arrange import arrange
from cqr.scenes.draw import draw
from cqr.search.command import index
from cqr.search.engine import Engine
from cqr.trainer.training.material import collect
from cqr.trainer.training.settings import settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

TINY = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=16"]


def make(folder: Path, references: int = 8, modifications: int = 4) -> Path:
    """Pictures, queries, features and a run below a folder; gives the folder of the run.

    The regions are those of the bundled detector, so new pictures can be asked about.
    """
    made = protocol.make_split("test", references, modifications, seed=0)
    (folder / "pictures").mkdir()
    names = [f"{i:04d}.png" for i in range(len(made.scenes))]
    for name, scene in zip(names, made.scenes, strict=True):
        draw(arrange(scene, random.Random(name))).save(folder / "pictures" / name)
    with (folder / "pictures.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["reference", "text", "target"])
        table.writerows([names[q.source], q.text, names[q.target]] for q in made.queries)
    with contextlib.chdir(folder):
        features = Path("artifacts/pictures.h5").absolute()
        extract(Job(folder / "pictures", features, k=9, detector=DetectorSpec("bundled")))
        settings = settle({}, {"epochs": 1, "batch": 8, "validation": 0.2}, TINY)
        material = collect(features)
        run = start(material, settings)
        train(run, material, device="cpu")
        return run.path.absolute()


def opened(run: Path) -> Engine:
    """The gallery of a run, built if it was not."""
    index(run, None, None, None, "cpu", lambda *_: None)
    return Engine.open(run, device="cpu")


def client(
    engine: Engine,
    texts: Any = None,
    hosts: Any = None,
    collected: Any = None,
    beside: Any = None,
    **limits: Any,
) -> Any:
    """Asks a service over the engine, without a network; `limits` are of `guard.Limits`."""
    from starlette.testclient import TestClient

    from cqr.search.server.application import application
    from cqr.search.server.limits import Limits
    from cqr.search.server.suggestions import Suggestions

    app = application(
        engine, texts or Suggestions(), Limits(**limits), hosts, collected, beside=beside
    )
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False)
