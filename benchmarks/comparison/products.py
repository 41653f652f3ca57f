"""Composition on real photographs of products, before training and after.

    OMP_NUM_THREADS=1 python benchmarks/comparison/products.py FOLDER [--seeds 5]
        [--rows "image-only;lbf;..."] [--features FILE.h5] [--held-out]
        [--out docs/results/products.json]

FOLDER has the layout of "Fashion Product Images (Small)" with vectors beside it:

    styles.csv                       id, gender, articleType, baseColour, ...
    images/ID.jpg
    clip_vit_b32/paths.txt           N lines: the pictures, as ID.jpg
    clip_vit_b32/features.npy        N x E, theirs in a joint space
    clip_vit_b32/texts.txt           T lines: vocabulary, tab, name
    clip_vit_b32/texts.npy           T x E, of the names, in the same space

A question changes one of gender, colour and type, all else equal: "for women", "in navy blue",
"as heels".  Pictures are parted 60 to 40; the training's triplets use the first alone, and the
gallery is the second.  Every picture of the gallery with the target's three attributes is right;
the reference is left out.

Stored vectors are of garments, shoes, bags, man and woman, but of no colour.  Before training
only the questions whose new value has one can be asked.  What is trained answers all: it knows
the words of the training's texts; where it starts from zero-shot, a text without a vector says
nothing there, so that the start is the picture alone.

Means and scale are measured on all pictures of the folder and on all stored texts.  The settings
of the trained rows (SETTINGS, MEET) were chosen by --held-out, which parts the training's pictures
70 to 30 and never looks at the test.  Every epoch is trained: which one
is kept is not chosen.

With --features, made by `cqr extract --images FOLDER/images`, pictures are seen by another
backbone, without texts: of its rows those with a plus see its regions, others its whole picture.
A run that is there already, by --keep FOLDER, is not trained again.

The row "clicks" learns from nothing but what a user would have marked as right among zero-shot's
first ten answers, and is asked the questions that zero-shot is.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from product_questions import PROTOCOL, SPACE, Stored, StoredRun, read, stored

from cqr.pipeline.imports import ImportJob, import_features
from cqr.trainer.datasets.queries import tasks
from cqr.trainer.evaluation.evaluate import evaluate
from cqr.trainer.features import RegionReader
from cqr.trainer.models.zero_shot import ZeroShot, ZeroShotConfig
from cqr.trainer.ranking.bootstrap import in_deviations
from cqr.trainer.ranking.encode import Vectors
from cqr.trainer.ranking.measures import measure
from cqr.trainer.text.vocabulary import Vocabulary
from cqr.trainer.training.material import Material
from cqr.trainer.training.runs import now
from cqr.trainer.training.settings import settle
from cqr.trainer.training.train import train
from cqr.trainer.training.untrained import fit

# --- rows ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """What all rows share: the folder, its features and questions, and a place for runs."""

    folder: Path
    place: Path
    features: Path | None
    held_out: bool

    @cached_property
    def material(self) -> Material:
        out = self.features or self.place / "products.h5"
        if not out.exists():
            import_features(ImportJob(self.folder / SPACE, out, images=self.folder / "images"))
        return Material(RegionReader(out), read(self.folder, self.held_out), [])

    @cached_property
    def words(self) -> Vocabulary:
        return Vocabulary.of(self.material.dataset.split("train")["text"])

    @cached_property
    def texts(self) -> Stored | Vocabulary:
        return self.words if self.features else stored(self.folder, self.words)

    @cached_property
    def said(self) -> Material:
        """With those questions alone whose text has a vector."""
        dataset = self.material.dataset
        asked = dataset.queries
        keep = asked["text"].isin(self.texts.place.keys()) | (asked["split"] == "train")
        return replace(self.material, dataset=replace(dataset, queries=asked[keep]))

    def run(self, label: str, given: dict[str, Any], options: list[str]) -> StoredRun:
        settings = settle({}, given, options)
        reader = self.material.reader
        return StoredRun(
            path=self.place / f"{label}-{settings.seed}",
            features=reader.file.path,
            data=None,
            dataset="products",
            protocol={},
            region_dim=reader.dim,
            detector=dict(reader.file.detector),
            settings=settings,
            vocabulary=self.words,
            text_encoder=None,
            created=now(),
            texts=self.texts,
        )


# --- what is measured ----------------------------------------------------------------------------

CPU = torch.device("cpu")

LIGHT = ["width=128", "heads=4", "vep_depth=1", "tep_depth=1"]
"""Recommended for tables of this size."""

SETTINGS: dict[str, Any] = {"epochs": 20, "negatives": "wrong", "select": "last", "validation": 0}
"""Of all rows; the loss is the default."""

MEET = {"together": 3}
"""Was better for LBF than 1, by R@1 held out: 50.9 and 49.9; for TIRG worse, 46.7 and 49.2."""

ROWS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "image-only": ({"model": "image-only"}, []),
    "text-only": ({"model": "text-only"}, []),
    "maaf": ({"model": "maaf"}, []),
    "maaf, met": ({"model": "maaf", **MEET}, []),
    "combiner": ({"model": "combiner"}, []),
    "combiner, met": ({"model": "combiner", **MEET}, []),
    "tirg, all negatives": ({"model": "tirg", "negatives": "all"}, []),
    "tirg": ({"model": "tirg"}, []),
    "tirg from zero-shot": ({"model": "tirg", "start": "joint"}, []),
    "lbf": ({"model": "lbf", **MEET}, LIGHT),
    "lbf from zero-shot": ({"model": "lbf", "start": "joint", **MEET}, LIGHT),
    "tirg+": ({"model": "tirg", "input": "regions"}, []),
    "lbf+": ({"model": "lbf", "input": "regions", **MEET}, LIGHT),
}
"""What is trained: settings and options of the model."""

USUAL = ("zero-shot", "tirg", "tirg from zero-shot", "lbf", "clicks", "lbf from zero-shot")


def plain(work: Work) -> dict[str, dict[str, Any]]:
    """What a composition must beat: either part alone, and the sum of unit vectors."""
    model = ZeroShot(region_dim=work.material.reader.dim, config=ZeroShotConfig("sum"))
    (task,) = tasks(work.said.dataset, "test")
    reader = work.material.reader.seen_as("whole")
    images = model.encode_image(reader.gather(reader.rows(task.gallery)))
    references = reader.gather(reader.rows(task.queries["reference"].tolist()))
    words = work.texts.encode(task.queries["text"].tolist())
    known = np.ones(len(task.queries), bool)
    asked = {
        "image alone": model.encode_image(references),
        "text alone": model.encode_text(words),
        "sum of unit vectors": model.encode_query(references, words),
    }
    return {
        name: measure(work.said.dataset, task, Vectors(queries, known, images)).metrics
        for name, queries in asked.items()
    }


def zero_shot(work: Work) -> dict[str, dict[str, Any]]:
    """By each composition of the product; "sum" is what "auto" stands for here."""
    found = plain(work)
    for compose in ("raw-sum", "slerp", "sum"):
        run = work.run(f"zero-shot-{compose}", {"model": "zero-shot"}, [f"compose={compose}"])
        fit(run, work.material.reader, CPU)
        found[f"zero-shot, {compose}"] = evaluate(run, work.said, CPU).metrics
    return found


def trained(
    work: Work, row: str, seed: int, material: Material | None = None, label: str | None = None
) -> dict[str, Any]:
    """What a run scores that learned from some questions; None is all of the training's."""
    given, options = ROWS[row]
    material = material or work.material
    run = work.run(label or row, {"input": "whole", **SETTINGS, **given, "seed": seed}, options)
    run.path.mkdir(parents=True, exist_ok=True)
    train(run, material, device="cpu")  # goes on from its checkpoint
    return evaluate(run, material, CPU).metrics


def clicked(work: Work, seed: int) -> dict[str, Any]:
    """Search, mark, train, search again: what was learned from the first ten answers alone.

    Zero-shot answers the questions of the training's pictures, among these.  Whatever of its first
    ten answers is right is marked so, and nothing else is trained on.
    """
    dataset = work.said.dataset
    asked = dataset.split("train").drop_duplicates(["reference", "text"])
    asked = asked[asked["text"].isin(work.texts.place.keys())]
    asking = work.run("clicks-before", {"model": "zero-shot"}, ["compose=sum"])
    fit(asking, work.material.reader, CPU)
    among = dataset.images[dataset.images["split"] == "train"].assign(split="test")
    turned = replace(dataset, queries=asked.assign(split="test"), images=among)
    answers = evaluate(asking, replace(work.said, dataset=turned), CPU).queries
    caption = dataset.images.set_index("path")["caption"]
    marked = [
        (row.reference, row.text, path)
        for row in answers.itertuples()
        for path in row.found[:10]
        if caption[path] == caption[row.target]
    ]
    pairs = pd.DataFrame(marked, columns=["reference", "text", "target"])
    pairs = pairs.assign(split="train", query_id=[f"m{i}" for i in range(len(pairs))])
    print(f"{len(answers):,} questions, {len(pairs):,} answers marked as right", flush=True)
    queries = pd.concat([pairs, dataset.split("test")], ignore_index=True)
    learned = replace(work.said, dataset=replace(dataset, queries=queries))
    return trained(work, "lbf from zero-shot", seed, learned, "clicks")


def table(found: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """A line a row: the mean over seeds, and the sample standard deviation."""
    for row, runs in found.items():
        cells = []
        for k in PROTOCOL.recall_at:
            recall = np.array([m["recall"][str(k)] for m in runs])
            spread = f" ± {recall.std(ddof=1):.2f}" if len(runs) > 1 else ""
            cells.append(f"{recall.mean():.2f}{spread}")
        yield f"| {row} | {' | '.join(cells)} |"


def beside(found: dict[str, list[dict[str, Any]]], row: str) -> Iterator[str]:
    """How far R@1 of a row is above the others', in deviations of the difference over seeds."""
    first = np.array([m["recall"]["1"] for m in found[row]])
    for other, runs in found.items():
        if other == row or len(runs) != len(first):
            continue
        second = np.array([m["recall"]["1"] for m in runs])
        number = in_deviations(first, second)
        if number is not None:
            far = f"{(first - second).mean():+.2f} of R@1, {number:.1f} deviations"
            yield f"{row} beside {other}: {far}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", default=";".join(USUAL))
    parser.add_argument("--features", type=Path)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--keep", type=Path, help="where features and runs are kept")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = given.keep or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        work = Work(given.folder, place, given.features, given.held_out)
        for row in given.rows.split(";"):
            if row == "zero-shot":
                found |= {name: [metrics] for name, metrics in zero_shot(work).items()}
                continue
            measured = clicked if row == "clicks" else partial(trained, row=row)
            found[row] = [measured(work, seed=seed) for seed in range(given.seeds)]
            print(*table({row: found[row]}), flush=True)
    print(f"| row | {' | '.join(f'R@{k}' for k in PROTOCOL.recall_at)} |", *table(found), sep="\n")
    print(*beside(found, list(found)[-1]), sep="\n")
    if given.out:
        said = {row: [m["recall"] for m in runs] for row, runs in found.items()}
        given.out.write_text(json.dumps({"settings": SETTINGS, "recall": said}, indent=1) + "\n")


if __name__ == "__main__":
    main()
