"""What the commands do, as functions: the face of cqr for Python, reached as `cqr.extract` etc.

Wherever a path is taken, a str will do.  What a user can cause is raised as `cqr.UserError`, with
the sentence that the command would print.  With `progress` a function prints what its command
prints; without, nothing.

Nothing heavy is imported before a function needs it.
"""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cqr.errors import UserError
from cqr.remote import is_remote, located

if TYPE_CHECKING:
    from cqr.pipeline.feature_file import FeatureFile
    from cqr.search.engine import Engine
    from cqr.trainer.evaluation.evaluate import Evaluation
    from cqr.trainer.training.runs import Run

PathLike = str | Path

__all__ = ["UserError", "evaluate", "extract", "open_features", "open_gallery", "train"]


def extract(
    images: PathLike,
    k: int = 36,
    *,
    out: PathLike | None = None,
    list: PathLike | None = None,
    detector: str = "auto",
    config: str | None = None,
    weights: PathLike | None = None,
    regions: str | None = None,
    finder: str | None = None,
    finder_weights: PathLike | None = None,
    accept_licence: bool = False,
    device: str = "auto",
    batch: int | None = None,
    shard: int | None = None,
    workers: int | None = None,
    engine: str = "local",
    exclude: Iterable[str] = (),
    max_pixels: int = 100_000_000,
    runtime: str = "auto",
    overwrite: bool = False,
    retry_failed: bool = False,
    progress: bool = True,
) -> "FeatureFile":
    """Turn a folder of pictures into a file of regions, as `cqr extract` does.

    What is there already is kept; an interrupted call is continued by the same call.

    Args:
        images: folder of pictures, with all folders below it.
        k: K, regions a picture.
        out: the feature file, or its URL (s3://BUCKET/NAME.h5); None is artifacts/FOLDER.h5.
        list: text file of the pictures to take, a path relative to `images` on each line.
        detector: "auto", "bundled", "torchvision", "detectron2", "grid", or a backbone by
            "open_clip", "timm" or "transformers".
        config: which network of that detector, for a backbone its name on the hub or its folder;
            None is its own.
        weights: file of weights; None is the detector's own.
        regions: of a backbone: "cells", "boxes" or "crops"; None is cells.
        finder: NAME or NAME/CONFIG of the detector whose boxes a backbone describes.
        finder_weights: file of its weights; None is its own.
        accept_licence: use a model that is not under MIT, Apache or BSD.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        batch: pictures in a batch at most; None: 4, on a GPU 16.
        shard: pictures in a shard; None: 16 to 512.
        workers: processes; None: one a core, or one a GPU.
        engine: "local" or "ray".
        exclude: files and folders of these names or paths are left out, with * and ? as in a shell.
        max_pixels: a larger picture is refused.
        runtime: what computes the networks of `grid` and `bundled` on a CPU: "torch", "openvino",
            "onnxruntime", or "auto": the fastest that is installed, for 256 pictures or more.
        overwrite: start again, whatever is there.
        retry_failed: try pictures again that could not be used.

    Returns:
        The feature file, opened.

    Raises:
        UserError: there is no picture, the detector cannot be had, the file that is there is of
            other settings, or it cannot be written.
    """
    from cqr.pipeline import extract_console
    from cqr.pipeline.detectors import asked
    from cqr.pipeline.extract import Job, default_out
    from cqr.pipeline.extract import extract as run
    from cqr.pipeline.feature_file import open_features as opened

    folder = Path(images)
    job = Job(
        folder=folder,
        out=default_out(folder) if out is None else located(out),
        k=k,
        detector=asked(
            detector,
            config,
            _path(weights),
            device,
            regions,
            finder,
            _path(finder_weights),
            accept_licence,
        ),
        device=device,
        batch=batch,
        shard=shard,
        workers=workers,
        engine=engine,
        exclude=tuple(exclude),
        max_pixels=max_pixels,
        runtime=runtime,
        overwrite=overwrite,
        retry_failed=retry_failed,
        list=_path(list),
    )
    if not progress:
        run(job)
        return opened(job.out)
    extract_console.run_extract(job)
    file = opened(job.out)
    print(f"Next: {next_of(file)}")
    return file


def next_of(file: "FeatureFile") -> str:
    """The command that works from here: a training if queries go with the file, else a search."""
    from cqr.trainer.datasets.layout import Pictures
    from cqr.trainer.datasets.recognise import find
    from cqr.trainer.text.joint import Joint

    features = shlex.quote(str(file.path))
    if is_remote(file.path):
        return f"cqr inspect {features}"
    joint = Joint.of(file.detector) is not None
    try:
        found = find(Pictures(Path(file.image_root), file.paths, file.path))
    except UserError:  # no data set, or two: a question needs neither
        found = None
    if found is not None and found.trains:
        return f"cqr train --features {features}"
    if found is not None and joint:  # such as CIRCO: nothing to learn from, but to be scored on
        return f"cqr train --features {features} --model zero-shot"
    text = ' --text "in red"' if joint else ""
    return f"cqr search --features {features} --image {shlex.quote(file.paths[0])}{text}"


def open_features(path: PathLike, verify: bool = False) -> "FeatureFile":
    """Open a feature file; `.regions(path)` reads those of a picture, `.show(path)` draws them.

    Args:
        verify: hold every array against its checksum first, which reads the whole file.

    Raises:
        UserError: it is missing, damaged, or of another version; a shard is missing.
    """
    from cqr.pipeline.feature_file import open_features as opened

    return opened(located(path), verify)


def train(
    features: PathLike,
    *,
    data: PathLike | None = None,
    as_: str | None = None,
    protocol: Mapping[str, Any] | Iterable[str] = (),
    options: Mapping[str, Any] | Iterable[str] = (),
    max_missing: float = 0.01,
    fresh: bool = False,
    device: str = "auto",
    precision: str | None = None,
    compile: bool = False,
    progress: bool = True,
    verbose: bool = False,
    **settings: Any,
) -> "Run":
    """Train a model on the regions of a feature file, as `cqr train` does.

    The same call goes on where a training was interrupted, and gives back one that had ended.
    The models `zero-shot` and `likeness` are measured on the features, without a data set.

    Args:
        features: the feature file.
        data: data set folder, or table of reference,text,target[,split]; None looks for it in or
            beside the pictures and the feature file.
        as_: which data set it is; None recognises it.
        protocol: choices that the data set's protocol leaves, by name.
        options: the model's own choices, by name: `--set` of the command.
        max_missing: share of the images that may lack regions.
        fresh: start anew, even if a run could go on.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        precision: as Lightning Fabric names it; None is 32-true, on a GPU bf16-mixed.
        compile: what a step does, which takes minutes: for a long training on a GPU.
        verbose: print all that was settled, the protocol included.
        settings: by the names of `cqr.trainer.training.settings.Settings`: model="tirg",
            epochs=10, ...; those not given are the data set's, else the defaults.

    Returns:
        The run: its `path` holds the weights of the epoch that was chosen.

    Raises:
        UserError: no data set was found, or it does not fit the features; a setting is unknown
            or out of range; the loss is not finite.
    """
    from dataclasses import fields

    from cqr.machine import find_device, leads, processes
    from cqr.trainer import console
    from cqr.trainer.models import UNTRAINED
    from cqr.trainer.training.enough import too_little
    from cqr.trainer.training.holdout import divide
    from cqr.trainer.training.material import Wanted, collect
    from cqr.trainer.training.settings import Settings, settle
    from cqr.trainer.training.start import make, start
    from cqr.trainer.training.train import train as run_training

    unknown = sorted(set(settings) - {field.name for field in fields(Settings)})
    if unknown:
        raise UserError(f"{unknown[0]} is no setting of a training; model's own go into options")
    find_device(device)  # a wrong one is said before a run is made
    wanted = Wanted(_path(data), as_, _typed(protocol))
    untrained = settings.get("model") in UNTRAINED
    if untrained and processes() > 1:
        raise UserError(f"{settings['model']} is not trained: run it once, without torchrun")
    progress = progress and leads()
    if untrained and wanted == Wanted():
        run = make(Path(features), settle({}, settings, [*_typed(options)]), device)
        if progress:
            print(f"Wrote {run.path}")
            print(f"Next: cqr index --run {run.path}")
        return run
    split = "scored" if untrained else None
    material = collect(Path(features), wanted, split=split, max_missing=max_missing)
    settled = settle(material.recommended(settings), settings, [*_typed(options)])
    run = start(material, settled, _path(data), fresh=fresh)
    how: dict[str, Any] = {"device": device, "precision": precision, "compile": compile}
    if not progress:
        run_training(run, material, **how)
        return run
    console.announce(run, material, verbose=verbose)
    if not settled.untrained:
        of = material.seen_by(settled).dataset
        console.remark(too_little(of, settled, *divide(of, settled)))
    with console.training(settled) as (on_step, on_epoch):
        run_training(run, material, on_step=on_step, on_epoch=on_epoch, **how)
    print(f"Wrote {run.path}")
    print("Next: cqr evaluate")
    return run


def evaluate(
    run: "Run | PathLike | None" = None,
    *,
    features: PathLike | None = None,
    data: PathLike | None = None,
    as_: str | None = None,
    protocol: Mapping[str, Any] | Iterable[str] = (),
    published: PathLike | None = None,
    examples: int = 12,
    text_encoder: str | None = None,
    max_missing: float = 0.01,
    device: str = "auto",
    progress: bool = True,
    verbose: bool = False,
) -> "Evaluation":
    """Score a run under its data set's protocol, as `cqr evaluate` does.

    Writes metrics.json, queries.parquet and report.html to the run's folder evaluation/, or
    evaluation-NAME/ for another data set than its own; where a choice of the protocol is another
    than the run's, evaluation-CHOICE=VALUE/.

    Args:
        run: the run or its folder; None is the newest in artifacts/runs.
        features: what it is scored on, where that is not what it was trained on.
        data: the queries, likewise; see `train`.
        as_: which data set they are.
        protocol: choices that its protocol leaves, by name.
        published: CSV of published numbers, columns row,source,R@1,...
        examples: queries that the page shows with pictures, 0 to 50.
        text_encoder: where the run's text encoder lies now, if it was moved.
        max_missing: share of the images that may lack regions.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        verbose: print all that was settled, the protocol included.

    Returns:
        `recall` in percent by k, `queries` as a DataFrame, and all of metrics.json.

    Raises:
        UserError: there is no such run, or it does not fit the features or the data.
    """
    from cqr.machine import find_device
    from cqr.report import evaluation as report
    from cqr.trainer import console
    from cqr.trainer.datasets.recognise import unusual
    from cqr.trainer.evaluation.evaluate import evaluate as score
    from cqr.trainer.evaluation.published import read as read_published
    from cqr.trainer.evaluation.stored import Stored
    from cqr.trainer.training.material import Wanted, collect_for
    from cqr.trainer.training.runs import chosen

    used = chosen(run, text_encoder)
    wanted = Wanted(_path(data), as_, _typed(protocol))
    material = collect_for(used, _path(features), wanted, split="scored", max_missing=max_missing)
    said = read_published(_path(published), material.dataset.protocol.recalls)
    if progress:
        own = data is None and features is None and not protocol
        again = own and not used.settings.untrained
        console.announce(used, material, verbose=verbose, again=again)
    evaluation = score(used, material, find_device(device))
    dataset = material.dataset
    stored = Stored(used.evaluation(dataset.name, unusual(dataset, used.dataset, used.protocol)))
    stored.write(evaluation)
    if progress:
        console.recall_table(evaluation.metrics, said)
        print(f"Wrote {stored.metrics} and {stored.queries.name}")
    page = report.write(evaluation, used, material, stored, examples=examples, published=said)
    if progress:
        print(f"Wrote {page}")
    return evaluation


def open_gallery(
    run: "Run | PathLike | None" = None,
    *,
    features: PathLike | None = None,
    index: str | None = None,
    metadata: PathLike | None = None,
    text_encoder: str | None = None,
    weights: PathLike | None = None,
    device: str = "auto",
    progress: bool = True,
) -> "Engine":
    """Open the pictures of a feature file to be searched by a run: `.search(image, text, k=10)`.

    Brings the index up to date first, as `cqr index` does.

    Args:
        run: the run or its folder; None is the newest of the features, or in artifacts/runs, or
            one that needs no training, which is made.
        features: the feature file whose pictures can be found; None is the run's own.
        index: "exact", "hnsw", or milvus://HOST:PORT/COLLECTION; None goes by the number of
            pictures.
        metadata: CSV or Parquet with a column `path`; None is that of the last time.
        text_encoder: where the run's text encoder lies now, if it was moved.
        weights: where the detector's weights lie now, if they were moved.
        device: "auto", "cpu", "cuda", "cuda:1", ...

    Raises:
        UserError: there is no such run, its weights or the features are missing or do not fit, or
            another process is at the index.
    """
    from cqr.search import console
    from cqr.search.at_once import run_for
    from cqr.search.command import index as bring_up_to_date
    from cqr.search.engine import Engine

    of = _path(features)
    used = run_for(run, of, text_encoder, device, console.say if progress else lambda line: None)
    with console.bars(visible=progress) as bar:
        bring_up_to_date(used, of, index, _path(metadata), device, bar)
    return Engine.open(used, of, index, device, weights=_path(weights))


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _typed(choices: Mapping[str, Any] | Iterable[str]) -> tuple[str, ...]:
    """Choices as they are typed: NAME=VALUE."""
    if not isinstance(choices, Mapping):
        return tuple(choices)
    return tuple(
        f"{name}={str(value).lower() if isinstance(value, bool) else value}"
        for name, value in choices.items()
    )
