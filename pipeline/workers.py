"""Shards in several processes: each loads the detector once and computes whole shards."""

import multiprocessing
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait

from cqr.errors import UserError
from cqr.interrupts import end_with_parent, interrupts_held_back
from cqr.pipeline.assembly import Task, Times
from cqr.pipeline.compute import Pace, compute_each, one_thread
from cqr.pipeline.detectors import DetectorSpec


def run(
    tasks: Sequence[Task],
    specs: Sequence[DetectorSpec],
    pace: Pace,
    report: Callable[[int], None],
) -> Times:
    """Compute all tasks, with one process for each of `specs`.

    However this ends, no process is left behind; and should this process be
    killed, the others notice and end.

    Raises:
        UserError: what `compute` or loading raises, or a process was killed.
    """
    times = Times()
    waiting = deque(tasks)
    context = multiprocessing.get_context("spawn")
    processes = []
    connections: list[Connection] = []
    try:
        for spec in specs:
            ours, theirs = context.Pipe()
            process = context.Process(target=_worker, args=(theirs, spec, pace), daemon=True)
            processes.append(process)
            with interrupts_held_back():
                process.start()
            theirs.close()
            connections.append(ours)
            ours.send(waiting.popleft() if waiting else None)
        while connections:
            for connection in wait(connections):
                assert isinstance(connection, Connection)
                message = _receive(connection)
                if isinstance(message, int):
                    report(message)
                elif isinstance(message, Exception):
                    raise message
                elif isinstance(message, Times):
                    times.add(message)
                    connection.send(waiting.popleft() if waiting else None)
                else:
                    connections.remove(connection)
    finally:
        for process in processes:
            if process.pid is not None:
                process.terminate()
                process.join()
    return times


def _receive(connection: Connection) -> object:
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        raise UserError(
            "a worker process was killed, most likely for want of memory; run the same command"
            " again with fewer --workers or a smaller --batch: finished shards are kept"
        ) from None


def _worker(connection: Connection, spec: DetectorSpec, pace: Pace) -> None:
    end_with_parent()
    try:
        detector = spec.load()
        with one_thread():
            tasks = iter(connection.recv, None)
            compute_each(tasks, detector, pace, connection.send, connection.send)
        connection.send(None)
    except UserError as error:
        connection.send(error)
    except Exception:
        connection.send(RuntimeError(f"in a worker process:\n{traceback.format_exc()}"))
