"""A folder of pictures into a feature file, so that a kill at any instant costs one shard a worker.

On a GPU it may cost two: one is written while the next is computed.
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cqr import machine
from cqr.errors import UserError
from cqr.listing import Failure, Listed, listed, look
from cqr.machine import find_device
from cqr.pipeline import assembly, ray_engine, workers
from cqr.pipeline.assembly import Summary, Task, Times
from cqr.pipeline.compute import Pace, compute_each, one_thread
from cqr.pipeline.detectors import (
    BACKBONES,
    Choice,
    Detector,
    DetectorSpec,
    choose,
    runtimes,
)
from cqr.pipeline.feature_file import shards_folder
from cqr.pipeline.images import MAX_PIXELS
from cqr.pipeline.plan import Plan, shard_size
from cqr.pipeline.shards import Header
from cqr.remote import is_remote

ENGINES = ("local", "ray")
"""What runs the workers: processes of this machine, or Ray, on many machines."""

PICTURES_A_WORKER = 64
"""For fewer, starting a process (3 s with torch) may take longer than it saves."""


class Watcher:
    """Is told what an extraction does; the command line prints it, this one nothing."""

    def chosen(self, choice: Choice) -> None:
        """Which detector, and why."""

    def loaded(self, identity: Mapping[str, Any]) -> None:
        """What the detector is."""

    def progress(self, done: int, total: int) -> None:
        """Pictures finished, of those that are to do in this run."""


@dataclass(frozen=True)
class Job:
    """What to extract, with what, and into which file.

    Attributes:
        folder: where the pictures are.
        out: the feature file; its shards lie beside it.
        k: K.
        detector: None: what `detectors.choose` finds best.
        device: for a detector that is chosen here.
        batch: pictures in a batch at most; None: 4 on a CPU, 16 on a GPU.
        shard: pictures in a shard; None: see `plan.shard_size`.
        workers: processes; None: one a GPU, or one a core if there is enough to do.
        engine: one of ENGINES.
        overwrite: start again, whatever is there.
        retry_failed: try the pictures again that could not be used.
        list: a text file that names the pictures to take; None: all.
        exclude: patterns of files and folders that are left out; see `listing.look`.
        max_pixels: a larger picture is refused.
        runtime: "auto" or one of `runtimes.RUNTIMES`.
    """

    folder: Path
    out: Path
    k: int
    detector: DetectorSpec | None = None
    device: str = "auto"
    batch: int | None = None
    shard: int | None = None
    workers: int | None = None
    engine: str = "local"
    overwrite: bool = False
    retry_failed: bool = False
    list: Path | None = None
    exclude: tuple[str, ...] = ()
    max_pixels: int = MAX_PIXELS
    runtime: str = "auto"


def default_out(folder: Path) -> Path:
    """artifacts/NAME.h5, NAME being the last part of the folder's resolved name."""
    return Path("artifacts") / f"{folder.resolve().name or 'root'}.h5"


def extract(job: Job, watcher: Watcher | None = None) -> Summary:
    """Compute what is missing of a feature file; rerunning continues.

    Shards that are done are kept if the detector, K and the folder are the
    same; pictures that are new, in the folder or on the list, become new shards.
    The contents of a picture are not compared: for changed pictures, `overwrite`.

    Raises:
        UserError: nothing to read, nowhere to write, settings that differ from
            those of what is there, another process at the same file, memory or
            the device gave out, no picture usable; finished shards stay.
    """
    _check(job)
    wanted, passed = _wanted(job)
    watcher = watcher or Watcher()
    if job.detector is None:
        choice = choose(job.folder, job.device)
    else:
        choice = Choice(job.detector, "as asked")
    watcher.chosen(choice)
    choice, detector = _loaded(job, choice, len(wanted.paths))
    watcher.loaded(detector.identity)
    header = _header(job, choice, detector)
    with assembly.locked(job.out):
        size = job.shard or shard_size(len(wanted.paths))
        plan = assembly.planned(job.out, header, wanted.paths, size, job.overwrite)
        tasks = assembly.unfinished(job.out, plan, job.retry_failed)
        times = _run(tasks, job, choice.spec, detector, watcher)
        there, refused, notes = _compared(job, plan, wanted)
        notes += passed
        if times.guessed:
            notes.append(
                f"Scaled: {times.guessed:,} pictures of 16-bit grey that do not say their range, by"
                f" the fewest bits that hold it"
            )
        return assembly.finished(job.out, job.folder, plan, tasks, there, refused, notes, times)


def _check(job: Job) -> None:
    if job.k < 1:
        raise UserError(f"--k is {job.k}, it must be at least 1")
    assembly.check_out(job.out)
    assembly.check_names(job.folder, job.list)
    if job.engine not in ENGINES:
        raise UserError(f"no engine is named {job.engine}; choose --engine from local, ray")
    if job.engine == "ray":
        ray_engine.import_ray()


def _wanted(job: Job) -> tuple[Listed, list[str]]:
    """The pictures, and what to say of files that are none."""
    if job.list is not None:
        return listed(job.folder, job.list), []
    paths, refused, notes = look(
        job.folder, None if is_remote(job.out) else job.out.parent, job.exclude
    )
    return Listed(paths, refused, repeated=0), notes


def _loaded(job: Job, choice: Choice, pictures: int) -> tuple[Choice, Detector]:
    """The detector, and the choice as another process can load the same.

    A file that is continued keeps its runtime, and how its JPEGs were decoded.
    """
    plan = None if job.overwrite else Plan.load(shards_folder(job.out))
    begun = plan.header.detector if plan is not None else None
    if begun is not None and begun.get("name") != choice.spec.name:
        begun = None  # of another detector: it is refused below
    spec = dataclasses.replace(choice.spec, scaled=begun is None or "jpeg" in begun)
    detector = spec.load()
    detector.check_k(job.k)
    runtime = runtimes.settled(job.runtime, detector, pictures, begun)
    runtimes.run_by(runtime, detector)
    # A folder's name is absolute in the identity of a backbone, for any process.
    config = detector.identity["config"] if spec.name in BACKBONES else spec.config
    spec = dataclasses.replace(spec, config=config, runtime=runtime)
    return dataclasses.replace(choice, spec=spec), detector


def _compared(job: Job, plan: Plan, wanted: Listed) -> tuple[list[str], list[Failure], list[str]]:
    """What is there of the plan, what failed outside of it, and what to say of a list."""
    if job.list is None:
        return wanted.paths, wanted.missing, []
    planned = set(plan.paths)
    missing = {failure.path for failure in wanted.missing}
    unlisted = sorted(planned - missing - set(wanted.paths))
    notes = []
    if wanted.repeated:
        notes.append(f"Repeated: {wanted.repeated:,} of the lines of {job.list}, counted once")
    if unlisted:
        notes.append(
            f"No longer listed: {len(unlisted):,}, first {unlisted[0]}; their rows stay until"
            f" --overwrite"
        )
    # One that was computed before it went is gone: it has a row, and did not fail.
    refused = [failure for failure in wanted.missing if failure.path not in planned]
    return wanted.paths + unlisted, refused, notes


def _header(job: Job, choice: Choice, detector: Detector) -> Header:
    return Header.new(
        k=job.k,
        dim=detector.dim,
        detector=detector.identity,
        image_root=str(job.folder.resolve()),
        command=_command(job, choice.spec),
        warning="\n".join([choice.warning, *choice.tried]) if choice.warning else "",
    )


def _command(job: Job, spec: DetectorSpec) -> str:
    words = ["cqr", "extract", "--images", str(job.folder.resolve()), "--k", str(job.k)]
    if job.list is not None:
        words += ["--list", str(job.list.resolve())]
    for pattern in job.exclude:
        words += ["--exclude", pattern]
    if job.max_pixels != MAX_PIXELS:
        words += ["--max-pixels", str(job.max_pixels)]
    words += ["--detector", spec.name]
    if spec.config is not None:
        words += ["--config", spec.config]
    if spec.weights is not None:
        words += ["--weights", str(spec.weights.resolve())]
    if spec.regions is not None:
        words += ["--regions", spec.regions]
    if spec.finder is not None:
        words += ["--finder", "/".join(filter(None, (spec.finder.name, spec.finder.config)))]
        if spec.finder.weights is not None:
            words += ["--finder-weights", str(spec.finder.weights.resolve())]
    if spec.accept_licence:
        words.append("--accept-licence")
    if spec.runtime != runtimes.TORCH:
        words += ["--runtime", spec.runtime]
    return shlex.join(words)


# --- computing -----------------------------------------------------------------------------------


def _run(
    tasks: list[Task], job: Job, spec: DetectorSpec, detector: Detector, watcher: Watcher
) -> Times:
    """Compute the tasks here, in several processes, or by Ray."""
    total = sum(len(task.paths) for task in tasks)
    finished = 0

    def count(pictures: int) -> None:
        nonlocal finished
        finished += pictures
        watcher.progress(finished, total)

    specs, on_gpu = _specs(job, spec, tasks)
    readers = max(1, min(8, machine.cores() // len(specs)))
    pace = Pace(job.batch or (16 if on_gpu else 4), readers, job.max_pixels, beside=on_gpu)
    watcher.progress(0, total)
    if job.engine == "ray" and tasks:
        anywhere = dataclasses.replace(spec, device="cuda" if on_gpu else "cpu")
        return ray_engine.run(tasks, anywhere, pace.batch, job.workers, count, job.max_pixels)
    if len(specs) > 1:
        return workers.run(tasks, specs, pace, count)
    times = Times()
    with one_thread():
        compute_each(tasks, detector, pace, count, times.add)
    return times


def _specs(job: Job, spec: DetectorSpec, tasks: Sequence[Task]) -> tuple[list[DetectorSpec], bool]:
    """The detector once for each process that is worth starting, and whether it is on a GPU."""
    devices = _devices(spec.device)
    on_gpu = devices[0] != "cpu"
    worthwhile = sum(len(task.paths) for task in tasks) // PICTURES_A_WORKER
    default = len(devices) if on_gpu else min(machine.cores(), worthwhile)
    number = max(1, min(job.workers or default, len(tasks)))
    if number == 1:
        return [spec], on_gpu
    return [
        dataclasses.replace(spec, device=devices[i % len(devices)]) for i in range(number)
    ], on_gpu


def _devices(name: str) -> list[str]:
    """The devices that a device's name stands for: "cuda" and "auto" mean every GPU."""
    if name == "cpu":
        return ["cpu"]
    device = find_device(name)
    if device.type == "cuda" and name in ("auto", "cuda"):
        import torch

        return [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return [str(device)]
