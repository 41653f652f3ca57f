"""Train a model from regions and words, with exact resume.

Everything random in a step is a function of the seed and the step's number, so
a training that was killed and resumed ends with the weights of one that was
not: bit for bit on one machine's CPU.
"""

import json
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning_fabric
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.trainer import checkpoint, runs
from cqr.trainer.checkpoint import Progress
from cqr.trainer.evaluate import score
from cqr.trainer.features import RegionBatch, RegionReader
from cqr.trainer.losses import LOSSES
from cqr.trainer.metrics import recall_at
from cqr.trainer.queries import Dataset, Task, hold_out, task
from cqr.trainer.runs import Run
from cqr.trainer.settings import Settings
from cqr.trainer.text import Vocabulary

Report = Callable[[dict[str, Any]], None]
"""Called once a step with epoch, epochs, step, steps, loss; and once an epoch with its log line."""


@dataclass(frozen=True)
class Batch:
    """B training pairs."""

    reference: RegionBatch
    words: Tensor
    target: RegionBatch


@dataclass(frozen=True)
class Pairs:
    """The training queries by index: rows in the feature file, and word ids."""

    reference: NDArray[np.int64]
    target: NDArray[np.int64]
    texts: NDArray[np.object_]
    reader: RegionReader
    vocabulary: Vocabulary

    @classmethod
    def of(cls, queries: pd.DataFrame, reader: RegionReader, vocabulary: Vocabulary) -> "Pairs":
        return cls(
            reader.rows(queries["reference"].tolist()),
            reader.rows(queries["target"].tolist()),
            queries["text"].to_numpy(object),
            reader,
            vocabulary,
        )

    def __len__(self) -> int:
        return len(self.texts)

    def batch(self, index: NDArray[np.int64]) -> Batch:
        return Batch(
            self.reader.gather(self.reference[index]),
            self.vocabulary.encode(self.texts[index].tolist()),
            self.reader.gather(self.target[index]),
        )


def start(
    dataset: Dataset,
    reader: RegionReader,
    settings: Settings,
    data: Path | None,
    folder: Path = runs.RUNS,
    fresh: bool = False,
) -> tuple[Run, bool]:
    """The run to train: an unfinished one with the same settings, else a new one.

    Returns:
        The run, and whether it goes on from a checkpoint.
    """
    features = Path(reader.file.path).resolve()
    kept, _ = _training_queries(dataset, settings)
    vocabulary = Vocabulary.of(kept["text"])
    for run in [] if fresh else reversed(runs.all_runs(folder)):
        same = (run.features, run.data, run.settings) == (features, data, settings)
        if same and run.vocabulary == vocabulary and not finished(run):
            return run, run.checkpoint.exists()
    path = runs.next_path(folder, f"{features.stem}-{settings.model}")
    run = Run(
        path=path,
        features=features,
        data=data,
        dataset=dataset.name,
        region_dim=reader.dim,
        detector=dict(reader.file.detector),
        settings=settings,
        vocabulary=vocabulary,
        created=runs.now(),
    )
    run.save()
    return run, False


def finished(run: Run) -> bool:
    """Whether every epoch was trained."""
    lines = _log_lines(run.log)
    return bool(lines) and lines[-1]["epoch"] == run.settings.epochs


def train(
    run: Run,
    dataset: Dataset,
    reader: RegionReader,
    report: Report,
    *,
    device: str = "auto",
    precision: str | None = None,
) -> Progress:
    """Train a run to its last epoch, from its checkpoint if there is one.

    Args:
        report: told of every step and every epoch.
        device: "auto", "cpu" or "cuda".
        precision: as Lightning Fabric names it; None is bf16-mixed on a GPU and
            32-true on a CPU.

    Raises:
        UserError: nothing to train on, or a loss that is not finite.
        KeyboardInterrupt: asked to stop; the state was saved first.
    """
    settings = run.settings
    kept, held = _training_queries(dataset, settings)
    pairs = Pairs.of(kept, reader, run.vocabulary)
    batch = min(settings.batch, len(pairs))
    if batch < 2:
        raise UserError(f"{dataset.root} has {len(pairs)} training queries: at least 2 are needed")
    choice = _choice(dataset, held, settings)
    fabric = _fabric(device, precision)
    torch.manual_seed(settings.seed)
    module = run.model()
    optimizer = torch.optim.AdamW(
        module.parameters(), settings.lr, weight_decay=settings.weight_decay
    )
    progress = Progress()
    if run.checkpoint.exists():
        progress = checkpoint.load(run.checkpoint, module, optimizer)
    _cut_log(run.log, progress.epoch)
    model, optimizer = fabric.setup(module, optimizer)
    steps = len(pairs) // batch
    with _stop_requests() as stop, ThreadPoolExecutor(1) as loader:
        while progress.epoch < settings.epochs:
            order = _order(len(pairs), settings.seed, progress.epoch)[: steps * batch]
            mine = order.reshape(steps, batch)[:, fabric.global_rank :: fabric.world_size]
            began, waited = time.perf_counter(), 0.0
            first = progress.step
            for step, loaded, wait in _ahead(loader, pairs, mine, first):
                waited += wait
                at = progress.epoch * steps + step
                _set_lr(optimizer, settings, at, settings.epochs * steps)
                torch.manual_seed(
                    (settings.seed << 32) + at * fabric.world_size + fabric.global_rank
                )
                loss = _step(fabric, model, optimizer, loaded, settings)
                if not math.isfinite(loss):
                    raise UserError(_not_finite(run, pairs, mine[step], progress.epoch, step))
                progress = replace(progress, step=step + 1, loss=progress.loss + loss)
                report(
                    {
                        "epoch": progress.epoch,
                        "epochs": settings.epochs,
                        "step": step + 1,
                        "steps": steps,
                        "loss": loss,
                    }
                )
                if stop.is_set() and step + 1 < steps:
                    _save(fabric, run, progress, module, optimizer)
                    raise KeyboardInterrupt
            seconds = time.perf_counter() - began
            line = {
                "epoch": progress.epoch + 1,
                "loss": progress.loss / steps,
                "seconds": round(seconds, 3),
                "loader_seconds": round(waited, 3),
                "queries_per_second": round((steps - first) * batch / seconds, 1),
            }
            if fabric.global_rank == 0:
                line |= _validate(module, reader, run.vocabulary, choice, dataset, fabric.device)
            progress = _epoch_done(fabric, run, module, optimizer, progress, line, choice is None)
            report(line | {"epochs": settings.epochs})
            if stop.is_set() and progress.epoch < settings.epochs:
                raise KeyboardInterrupt
    return progress


def _training_queries(dataset: Dataset, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(to train on, to choose the epoch by)."""
    given = dataset.split("val")
    if settings.select != "validation":
        return dataset.split("train"), given.iloc[:0]
    if len(given):
        return dataset.split("train"), given
    return hold_out(dataset, settings.validation, settings.seed)


def _choice(dataset: Dataset, held: pd.DataFrame, settings: Settings) -> Task | None:
    """The queries that choose the epoch, under the data set's own protocol."""
    if settings.select == "test":
        return task(dataset, dataset.split("test"), dataset.gallery("test"))
    if held.empty:
        return None
    if dataset.protocol.gallery == "all":
        return task(dataset, held, dataset.gallery("train"))
    gallery = pd.unique(pd.concat([held["reference"], held["target"]])).tolist()
    return task(dataset, held, gallery)


def _fabric(device: str, precision: str | None) -> lightning_fabric.Fabric:
    accelerator = device
    if device == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    # torchrun and `fabric run` start one process a device and say so here
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = int(os.environ.get("WORLD_SIZE", str(local)))
    fabric = lightning_fabric.Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=max(1, world // local),
        strategy="ddp" if world > 1 else "auto",
        precision=precision or ("bf16-mixed" if accelerator == "cuda" else "32-true"),
    )
    fabric.launch()
    return fabric


def _order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(size)


def _ahead(
    loader: ThreadPoolExecutor, pairs: Pairs, order: NDArray[np.int64], first: int
) -> Iterator[tuple[int, Batch, float]]:
    """Each step's number, batch, and the seconds waited for it; one batch is loaded ahead."""
    following = loader.submit(pairs.batch, order[first]) if first < len(order) else None
    for step in range(first, len(order)):
        assert following is not None
        began = time.perf_counter()
        batch = following.result()
        waited = time.perf_counter() - began
        if step + 1 < len(order):
            following = loader.submit(pairs.batch, order[step + 1])
        yield step, batch, waited


def _set_lr(optimizer: Any, settings: Settings, at: int, total: int) -> None:
    """Linear warm-up, then a cosine to 0, as a function of the step alone."""
    warm = min(1.0, (at + 1) / settings.warmup)
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * warm * 0.5 * (1 + math.cos(math.pi * at / total))


def _step(
    fabric: lightning_fabric.Fabric, model: Any, optimizer: Any, batch: Batch, settings: Settings
) -> float:
    device = fabric.device
    query, target = model(
        batch.reference.to(device), batch.words.to(device), batch.target.to(device)
    )
    if fabric.world_size > 1:  # every query against the targets of all devices
        query = fabric.all_gather(query, sync_grads=True).flatten(0, 1)
        target = fabric.all_gather(target, sync_grads=True).flatten(0, 1)
    loss = LOSSES[settings.loss](query.float(), target.float(), settings.kappa)
    optimizer.zero_grad()
    fabric.backward(loss)
    fabric.clip_gradients(model, optimizer, max_norm=settings.clip, error_if_nonfinite=False)
    optimizer.step()
    return loss.item()


def _validate(
    module: torch.nn.Module,
    reader: RegionReader,
    vocabulary: Vocabulary,
    choice: Task | None,
    dataset: Dataset,
    device: torch.device,
) -> dict[str, Any]:
    if choice is None:
        return {}
    ranks = score(module, reader, vocabulary, choice, device).rank
    recall = {str(k): recall_at(ranks, k) for k in dataset.protocol.recall_at}
    return {"recall": recall, "score": float(np.mean(list(recall.values())))}


def _epoch_done(
    fabric: lightning_fabric.Fabric,
    run: Run,
    module: torch.nn.Module,
    optimizer: Any,
    progress: Progress,
    line: dict[str, Any],
    keep_last: bool,
) -> Progress:
    """Keep the weights if they are the best so far, then the checkpoint, then the log line.

    A kill between the three is mended by resuming: the epoch of the older
    checkpoint is trained again, to the same weights.
    """
    best = line.get("score")
    better = keep_last or (best is not None and (progress.best is None or best > progress.best))
    number = progress.epoch + 1
    progress = Progress(
        epoch=number,
        best=best if better else progress.best,
        best_epoch=number if better else progress.best_epoch,
    )
    if fabric.global_rank == 0 and better:
        checkpoint.save_weights(run.weights, module)
    _save(fabric, run, progress, module, optimizer)
    if fabric.global_rank == 0:
        with run.log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
    return progress


def _save(
    fabric: lightning_fabric.Fabric,
    run: Run,
    progress: Progress,
    module: torch.nn.Module,
    optimizer: Any,
) -> None:
    if fabric.global_rank == 0:
        checkpoint.save(run.checkpoint, progress, module, optimizer)
    fabric.barrier()


def _log_lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break  # cut off by a kill
    return lines


def _cut_log(path: Path, epochs: int) -> None:
    """Drop what a killed run logged beyond its checkpoint."""
    lines = _log_lines(path)
    with replacing(path) as temporary:
        temporary.write_text(
            "".join(json.dumps(line) + "\n" for line in lines[:epochs]), encoding="utf-8"
        )


def _not_finite(run: Run, pairs: Pairs, index: NDArray[np.int64], epoch: int, step: int) -> str:
    """Why a loss is not finite: the features' fault or the learning rate's."""
    where = f"the loss is not finite in epoch {epoch + 1}, step {step + 1}"
    for rows in (pairs.reference[index], pairs.target[index]):
        bad = (~torch.isfinite(pairs.reader.gather(rows).features).flatten(1).all(1)).nonzero()
        if len(bad):
            name = pairs.reader.paths[rows[int(bad[0])]]
            return (
                f"{where}: the features of {name} are not finite; "
                f"check them with `cqr inspect {run.features}`"
            )
    return f"{where}: train with a lower --lr than {run.settings.lr} (the last epoch is kept)"


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """Set on Ctrl-C or SIGTERM, so that the step ends and is saved; a second Ctrl-C is at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {s: signal.signal(s, request) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
