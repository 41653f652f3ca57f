"""Train and score every cell of a comparison, each in a process of its own.

A cell is done when its evaluation is there; a later comparison keeps it.  A cell's process
ends with this one, however this one ends: its standard input closes then.  So what a kill
costs is at most the epoch in which each of the cells was.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cqr.atomic import alone, replacing
from cqr.errors import UserError
from cqr.trainer.comparing.plan import PLAN, Cell, Comparison, begin
from cqr.trainer.training.runs import Run
from cqr.trainer.training.start import describe

POLL = 0.1
"""Seconds between two looks at the cells that run."""

OnLook = Callable[[list[Cell], list[Cell]], None]
"""Told at each look: the cells that run, and those that have ended since the last."""


def run(
    comparison: Comparison, *, jobs: int, device: str = "auto", on_look: OnLook = lambda *_: None
) -> None:
    """Train and score every cell that is not done.  A cell that fails leaves its `error`.

    Args:
        jobs: processes at a time, each with one thread.

    Raises:
        UserError: the folder holds another comparison, or the runs of one, or another process
            is at it.
    """
    with alone(comparison.folder, f"at work in {comparison.folder}", "choose another --out"):
        waiting = [cell for cell in comparison.cells() if not cell.done]
        if not (comparison.folder / PLAN).exists():  # what is done was planned elsewhere
            for cell in comparison.cells():
                if cell.done:
                    _planned(comparison, cell)
        begin(comparison)
        running: dict[Path, tuple[Cell, subprocess.Popen[bytes]]] = {}
        try:
            while waiting or running:
                ended = []
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    try:
                        running[cell.path] = cell, _launch(comparison, cell, device)
                    except UserError as error:
                        _fail(cell, str(error))
                        ended.append(cell)
                for cell, process in list(running.values()):
                    if process.poll() is not None:
                        del running[cell.path]
                        ended.append(cell)
                        _settle(cell, process)
                on_look([cell for cell, _ in running.values()], ended)
                time.sleep(POLL if running else 0)
        finally:
            for _, process in running.values():
                process.kill()
                process.wait()


def _planned(comparison: Comparison, cell: Cell) -> Run:
    """What is to be trained in a cell, held against what is there."""
    settings = replace(cell.row.settings, seed=cell.seed)
    planned = describe(cell.path, cell.row.material, settings, comparison.data)
    if (cell.path / "run.json").exists():
        old = Run.load(cell.path)
        if replace(planned, created=old.created) != old:
            raise UserError(f"{cell.path} holds another run than is planned: move it away")
    return planned


def _launch(comparison: Comparison, cell: Cell, device: str) -> "subprocess.Popen[bytes]":
    planned = _planned(comparison, cell)
    if not (cell.path / "run.json").exists():
        planned.save()
    for left in [cell.path / "error.txt", *cell.path.rglob(".*.partial")]:  # by one that ended
        left.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cqr.trainer.comparing.cell", str(cell.path), device]
    command += [str(comparison.max_missing)]
    command += [comparison.precision] if comparison.precision else []
    with (cell.path / "stderr.txt").open("wb") as said:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when this process ends, which ends that one
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for this process, which ends its cells
        )


def _settle(cell: Cell, process: "subprocess.Popen[bytes]") -> None:
    """Note why a process that has ended did not do its cell, if it did not."""
    assert process.stdin is not None
    process.stdin.close()
    if process.returncode == 0 and cell.done:
        return
    said = (cell.path / "stderr.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    reason = next((line for line in reversed(said) if line.strip()), "it ended without a word")
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        reason = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    _fail(cell, reason.removeprefix("Error: "))


def _fail(cell: Cell, reason: str) -> None:
    with replacing(cell.path / "error.txt") as temporary:
        temporary.write_text(reason, encoding="utf-8")
