"""A folder of pictures into a feature file, so that a kill at any instant costs one shard."""

import contextlib
import csv
import dataclasses
import fcntl
import os
import secrets
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cqr.atomic import replacing
from cqr.errors import UserError
from cqr.listing import Failure, find, is_utf8, readable
from cqr.pipeline import ray_engine, workers
from cqr.pipeline.compute import Pace, Task, Times, compute, one_thread
from cqr.pipeline.detectors import Choice, Detector, DetectorSpec, choose, find_device
from cqr.pipeline.feature_file import join, shards_folder
from cqr.pipeline.plan import Plan, shard_name, shard_size
from cqr.pipeline.shards import BadShard, Header, shard_contents

ENGINES = ("local", "ray")
"""What runs the workers: processes of this machine, or Ray, on many machines."""

PICTURES_A_WORKER = 64
"""For fewer, starting a process (3 s with torch) may take longer than it saves."""


class Watcher:
    """Is told what an extraction does; the command line prints it, this one nothing."""

    def chosen(self, choice: Choice) -> None:
        """Which detector, and why."""

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


@dataclass(frozen=True)
class Summary:
    """What an extraction ended with.

    Attributes:
        out: the feature file.
        rows: pictures in it.
        computed, kept: pictures done in this run and before, failed ones included.
        failures: files that could not be used, listed in `failures_file` if there is any.
        gone: paths that have rows, or failed, but whose files are no more; rows stay.
        times: summed over all workers.
        bytes: size on disk.
    """

    out: Path
    rows: int
    computed: int
    kept: int
    failures: list[Failure]
    failures_file: Path
    gone: list[str]
    times: Times
    bytes: int


def default_out(folder: Path) -> Path:
    """artifacts/NAME.h5, NAME being the last part of the folder's resolved name."""
    return Path("artifacts") / f"{folder.resolve().name or 'root'}.h5"


def extract(job: Job, watcher: Watcher | None = None) -> Summary:
    """Compute what is missing of a feature file; rerunning continues.

    Shards that are done are kept if the detector, K and the folder are the
    same.  The contents of a picture are not compared: for changed pictures,
    `overwrite`.

    Raises:
        UserError: nothing to read, nowhere to write, settings that differ from
            those of what is there, another process at the same file, memory or
            the device gave out, no picture usable; finished shards stay.
    """
    _check(job)
    paths, refused = find(job.folder, skip=job.out.parent)
    watcher = watcher or Watcher()
    if job.detector is None:
        choice = choose(job.folder, job.device)
    else:
        choice = Choice(job.detector, "as asked")
    watcher.chosen(choice)
    detector = choice.spec.load()
    detector.check_k(job.k)
    header = _header(job, choice, detector)
    folder = shards_folder(job.out)
    with _locked(folder, job.out):
        plan = _planned(job, folder, header, paths)
        tasks = _unfinished(job, folder, plan)
        times = _run(tasks, job, choice.spec, detector, watcher)
        return _finish(job, folder, plan, paths, refused, tasks, times)


def _check(job: Job) -> None:
    if job.k < 1:
        raise UserError(f"--k is {job.k}, it must be at least 1")
    if job.out.suffix != ".h5" or job.out.is_dir():
        raise UserError(f"{job.out} cannot be a feature file; give --out a name that ends in .h5")
    if not is_utf8(str(job.folder.resolve())):
        name = readable(str(job.folder.resolve()))
        raise UserError(f"the name of the folder {name} is not valid UTF-8; rename it")
    if job.engine not in ENGINES:
        raise UserError(f"no engine is named {job.engine}; choose --engine from local, ray")
    if job.engine == "ray":
        ray_engine.import_ray()


@contextlib.contextmanager
def _locked(folder: Path, out: Path) -> Iterator[None]:
    """Keep other processes from `out`, and clear away what killed ones left half written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(
            f"cannot write {folder}: {error.strerror}; choose another place with --out"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"another cqr extract is writing {out}; wait for it, or choose another --out"
            ) from None
        try:
            _remove_leftovers(folder, out)
            yield
        finally:
            _remove_leftovers(folder, out)


def _remove_leftovers(folder: Path, out: Path) -> None:
    begun = [f".{out.name}.", f".{_failures_file(out).name}."]
    for file in out.parent.iterdir():
        if file.suffix == ".partial" and file.name.startswith(tuple(begun)):
            file.unlink(missing_ok=True)
    for file in folder.glob(".*.partial"):
        file.unlink(missing_ok=True)


def _failures_file(out: Path) -> Path:
    return out.with_suffix(".failures.csv")


# --- the plan ------------------------------------------------------------------------------------


def _planned(job: Job, folder: Path, header: Header, paths: Sequence[str]) -> Plan:
    """The plan that is there, with pictures that are new; or a new one."""
    old = None if job.overwrite else Plan.load(folder)
    size = job.shard or shard_size(len(paths))
    if old is not None:
        _check_same(job.out, old.header, header)
        plan = old.with_added(paths, size)
        if plan != old:
            plan.save(folder)
        return plan
    if job.out.exists() and not job.overwrite:
        raise UserError(
            f"{job.out} is there, but not the plan in {folder} that it was made by; start again"
            f" with --overwrite, or choose another --out"
        )
    plan = Plan(header, ()).with_added(paths, size)
    plan.save(folder)  # from here on, shards that lie there belong to another set
    job.out.unlink(missing_ok=True)
    _failures_file(job.out).unlink(missing_ok=True)
    for file in folder.glob("*.h5"):
        file.unlink()
    return plan


def _header(job: Job, choice: Choice, detector: Detector) -> Header:
    return Header(
        set_id=secrets.token_hex(16),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        k=job.k,
        dim=detector.dim,
        detector=detector.identity,
        image_root=str(job.folder.resolve()),
        command=_command(job, choice.spec),
        made_by=version("cqr"),
        warning=choice.warning or "",
    )


def _command(job: Job, spec: DetectorSpec) -> str:
    words = ["cqr", "extract", "--images", str(job.folder.resolve()), "--k", str(job.k)]
    words += ["--detector", spec.name]
    if spec.config is not None:
        words += ["--config", spec.config]
    if spec.weights is not None:
        words += ["--weights", str(spec.weights.resolve())]
    return shlex.join(words)


def _check_same(out: Path, old: Header, new: Header) -> None:
    """Raises UserError if what is there is of another folder, or has other numbers."""
    if old.image_root != new.image_root:
        what = f"from the folder {old.image_root}, not {new.image_root}"
    elif old.k != new.k:
        what = f"with --k {old.k}, not {new.k}"
    elif old.settings != new.settings:
        keys = sorted(old.detector.keys() | new.detector.keys())
        differ = [key for key in keys if old.detector.get(key) != new.detector.get(key)]
        what = f"with another detector ({', '.join(differ)} differ) by {old.command}"
    else:
        return
    raise UserError(
        f"{out} was begun {what}; start again with --overwrite, or keep both with another --out"
    )


# --- computing -----------------------------------------------------------------------------------


def _unfinished(job: Job, folder: Path, plan: Plan) -> list[Task]:
    """What is left to compute."""
    tasks = []
    for index, paths in enumerate(plan.shards):
        file = folder / shard_name(index)
        try:
            done, failed = shard_contents(file, plan.header)
        except BadShard:
            done, failed = [], []
        whole = {*done, *(failure.path for failure in failed)} == set(paths)
        if not whole or (failed and job.retry_failed):
            tasks.append(Task(file, paths, plan.header, keep_rows=whole))
    return tasks


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
    cores = len(os.sched_getaffinity(0))
    pace = Pace(
        batch=job.batch or (16 if on_gpu else 4), readers=max(1, min(8, cores // len(specs)))
    )
    watcher.progress(0, total)
    if job.engine == "ray" and tasks:
        anywhere = dataclasses.replace(spec, device="cuda" if on_gpu else "cpu")
        return ray_engine.run(tasks, anywhere, pace.batch, job.workers, count)
    if len(specs) > 1:
        return workers.run(tasks, specs, pace, count)
    times = Times()
    with one_thread():
        for task in tasks:
            times.add(compute(task, detector, pace, count))
    return times


def _specs(job: Job, spec: DetectorSpec, tasks: Sequence[Task]) -> tuple[list[DetectorSpec], bool]:
    """The detector once for each process that is worth starting, and whether it is on a GPU."""
    devices = _devices(spec.device)
    on_gpu = devices[0] != "cpu"
    worthwhile = sum(len(task.paths) for task in tasks) // PICTURES_A_WORKER
    default = len(devices) if on_gpu else min(len(os.sched_getaffinity(0)), worthwhile)
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


# --- the end -------------------------------------------------------------------------------------


def _finish(
    job: Job,
    folder: Path,
    plan: Plan,
    paths: Sequence[str],
    refused: Sequence[Failure],
    tasks: Sequence[Task],
    times: Times,
) -> Summary:
    files = [folder / shard_name(index) for index in range(len(plan.shards))]
    try:
        failures = [f for file in files for f in shard_contents(file, plan.header)[1]]
    except BadShard as error:
        raise UserError(f"{error} though it was just written; run the same command again") from None
    failures += refused
    _write_failures(_failures_file(job.out), failures)
    named = len(plan.paths) + len(refused)
    if len(failures) == named:
        first = failures[0]
        raise UserError(
            f"none of the {named} pictures in {job.folder} can be used (the first, {first.path!r},"
            f" {first.reason}; all are in {_failures_file(job.out)}); mend them, then run the same"
            f" command with --retry-failed"
        )
    with times.spent("write"):
        rows = join(job.out, plan.header, files)
    there = set(paths)
    computed = sum(len(task.paths) for task in tasks)
    return Summary(
        out=job.out,
        rows=rows,
        computed=computed,
        kept=len(plan.paths) - computed,
        failures=failures,
        failures_file=_failures_file(job.out),
        gone=[path for path in plan.paths if path not in there],
        times=times,
        bytes=sum(file.stat().st_size for file in [job.out, *files]),
    )


def _write_failures(file: Path, failures: Sequence[Failure]) -> None:
    """The file lists what could not be used; there is none if everything could."""
    if not failures:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(Failure._fields)
        writer.writerows(failures)
