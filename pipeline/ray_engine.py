"""Shards on many machines: Ray places workers, restarts them and moves them."""

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

from cqr import machine
from cqr.errors import UserError
from cqr.pipeline.assembly import Task, Times
from cqr.pipeline.compute import Pace, compute_each, one_thread
from cqr.pipeline.detectors import Detector, DetectorSpec
from cqr.pipeline.images import sentence
from cqr.remote import is_remote

RETRIES = 3
"""So often Ray restarts a worker that was killed and tries its shard again."""

OBJECTS = 100 << 20
"""Bytes that a Ray of our own may share between processes: tasks and times, no pictures."""


def import_ray() -> ModuleType:
    """Raises UserError if Ray is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change
    try:
        import ray
    except ImportError:
        raise UserError(
            "--engine ray needs Ray, which is not installed: pip install 'cqr[ray]'"
        ) from None
    return ray


def run(
    tasks: Sequence[Task],
    spec: DetectorSpec,
    batch: int,
    workers: int | None,
    report: Callable[[int], None],
    max_pixels: int,
) -> Times:
    """Compute all tasks on the cluster at RAY_ADDRESS, or on a Ray of our own on this machine.

    Each worker has a core and, if the device of `spec` is "cuda", a GPU that Ray picks.
    `workers` None: as many as there is room for.  `report` is called for whole shards.

    Raises:
        UserError: what `compute` or loading raises; Ray cannot be reached, has
            no such device, or gave up on a worker.
    """
    ray = import_ray()
    times = Times()
    with _connected(ray, workers):
        on_gpu = spec.device == "cuda"
        resources = ray.cluster_resources()
        cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        room = gpus if on_gpu else cores
        if not room:
            raise UserError(
                f"the machines of this Ray have no {'GPU' if on_gpu else 'core'} to give; add one"
                f" that has, or choose another --device"
            )
        number = min(len(tasks), workers or room)
        pace = Pace(batch, max(1, min(8, cores // number)), max_pixels)
        create = ray.remote(
            num_cpus=1, num_gpus=int(on_gpu), max_restarts=RETRIES, max_task_retries=RETRIES
        )(_Worker).remote
        actors = [create(_portable(spec), pace) for _ in range(number)]
        # A worker's first call only loads: one that Ray finds no room for holds up no shard.
        calls = {actor.load.remote(): (actor, 0) for actor in actors}
        waiting = deque(tasks)
        unfinished = len(tasks)
        while unfinished:
            (call,), _ = ray.wait(list(calls))
            actor, pictures = calls.pop(call)
            times.add(_result(ray, call))
            if pictures:
                unfinished -= 1
                report(pictures)
            if waiting:
                task = waiting.popleft()
                if not is_remote(task.file):
                    task = dataclasses.replace(task, file=task.file.resolve())
                calls[actor.compute.remote(task)] = actor, len(task.paths)
    return times


class _Worker:
    """One process on some machine; when Ray restarts it, it loads again."""

    def __init__(self, spec: DetectorSpec, pace: Pace):
        self.spec = spec
        self.pace = pace

    @cached_property
    def detector(self) -> Detector:
        return self.spec.load()

    def load(self) -> Times:
        self.detector  # noqa: B018
        return Times()

    def compute(self, task: Task) -> Times:
        detector = self.detector
        times = Times()
        with one_thread():
            compute_each([task], detector, self.pace, lambda pictures: None, times.add)
        return times


def _portable(spec: DetectorSpec) -> DetectorSpec:
    """The working folder of a worker is not ours."""
    finder = spec.finder and _portable(spec.finder)
    weights = spec.weights and spec.weights.resolve()
    return dataclasses.replace(spec, weights=weights, finder=finder)


def _result(ray: ModuleType, call: Any) -> Times:
    try:
        times: Times = ray.get(call)
        return times
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        if getattr(error, "actor_init_failed", False):
            raise UserError(
                f"a worker of Ray cannot start ({str(error).splitlines()[-1]}); install the same"
                f" cqr and Ray on every machine"
            ) from error
        raise UserError(
            f"Ray gave up on a worker after {RETRIES} restarts, most likely for want of memory"
            f" ({type(error).__name__}); run the same command again with fewer --workers or a"
            f" smaller --batch: finished shards are kept"
        ) from error


@contextlib.contextmanager
def _connected(ray: ModuleType, workers: int | None) -> Iterator[None]:
    """With a connection to Ray; what was started for it is ended, a caller's own is left."""
    if ray.is_initialized():
        yield
        return
    options: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False}
    if not os.environ.get("RAY_ADDRESS"):
        cores = workers or machine.cores()
        options |= {"address": "local", "num_cpus": cores, "object_store_memory": OBJECTS}
    try:
        # Ray prints it if a worker dies; stdout is for results.
        with contextlib.redirect_stdout(sys.stderr):
            _start(ray, options)
            yield
    finally:
        ray.shutdown()


def _start(ray: ModuleType, options: dict[str, Any]) -> None:
    """Ray takes SIGTERM for itself and makes it a SystemExit; we end by it as by Ctrl-C."""
    address = os.environ.get("RAY_ADDRESS", "")
    before = signal.getsignal(signal.SIGTERM)
    try:
        _check_listening(address)
        ray.init(logging_level="ERROR", **options)
    except Exception as error:  # of grpc, of a process that ends, of a file that it waits for
        raise UserError(
            f"Ray cannot be used on {address or 'this machine'} ({sentence(error)}); start it there"
            f" with `ray start --head`, mend RAY_ADDRESS, or leave out --engine ray"
        ) from error
    except SystemExit as error:
        if error.code == signal.SIGTERM:
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _check_listening(address: str) -> None:
    """Raises OSError if nothing listens at host:port, which Ray finds out in minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
