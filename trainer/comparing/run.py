"""Train and score every cell of a comparison, each, or all seeds of a row, in its own process.

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
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class How:
    """What cells are trained with that is no part of what is compared.

    Attributes:
        device, compile: as `train.train` takes them.
        batched: the seeds of a row are one batched model, see `train.train_seeds`.
    """

    device: str = "auto"
    compile: bool = False
    batched: bool = False


def run(
    comparison: Comparison, *, jobs: int, how: How = How(), on_look: OnLook = lambda *_: None
) -> None:
    """Train and score every cell that is not done.  A cell that fails leaves its `error`.

    Args:
        jobs: processes at a time, each with one thread.

    Raises:
        UserError: the folder holds another comparison, or the runs of one, or another process
            is at it.
    """
    with alone(comparison.folder, f"at work in {comparison.folder}", "choose another --out"):
        waiting = _groups([cell for cell in comparison.cells() if not cell.done], how)
        if not (comparison.folder / PLAN).exists():  # what is done was planned elsewhere
            for cell in comparison.cells():
                if cell.done:
                    _planned(comparison, cell)
        begin(comparison)
        running: list[tuple[list[Cell], subprocess.Popen[bytes]]] = []
        try:
            while waiting or running:
                ended = []
                while waiting and len(running) < jobs:
                    cells = waiting.pop(0)
                    try:
                        running.append((cells, _launch(comparison, cells, how)))
                    except UserError as error:
                        _fail(cells, str(error))
                        ended += cells
                for cells, process in list(running):
                    if process.poll() is not None:
                        running.remove((cells, process))
                        ended += cells
                        _settle(cells, process)
                on_look([cell for cells, _ in running for cell in cells], ended)
                time.sleep(POLL if running else 0)
        finally:
            for _, process in running:
                process.kill()
                process.wait()


def _groups(cells: list[Cell], how: How) -> list[list[Cell]]:
    """Those of a process: one, or the seeds of a row."""
    if not how.batched:
        return [[cell] for cell in cells]
    rows: dict[str, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.row.label, []).append(cell)
    return list(rows.values())


def _planned(comparison: Comparison, cell: Cell) -> Run:
    """What is to be trained in a cell, held against what is there."""
    settings = replace(cell.row.settings, seed=cell.seed)
    planned = describe(cell.path, cell.row.material, settings, comparison.data)
    if (cell.path / "run.json").exists():
        old = Run.load(cell.path)
        if replace(planned, created=old.created) != old:
            raise UserError(f"{cell.path} holds another run than is planned: move it away")
    return planned


def _launch(comparison: Comparison, cells: list[Cell], how: How) -> "subprocess.Popen[bytes]":
    for cell in cells:
        planned = _planned(comparison, cell)
        if not (cell.path / "run.json").exists():
            planned.save()
        for left in [cell.path / "error.txt", *cell.path.rglob(".*.partial")]:  # by one that ended
            left.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cqr.trainer.comparing.cell", "--device", how.device]
    command += ["--max-missing", str(comparison.max_missing)]
    command += ["--precision", comparison.precision] if comparison.precision else []
    command += ["--compile"] if how.compile else []
    command += ["--", *(str(cell.path) for cell in cells)]
    with _said(cells).open("wb") as said:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closes when this process ends, which ends that one
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for this process, which ends its cells
        )


def _said(cells: list[Cell]) -> Path:
    """Where what their process says is kept."""
    return cells[0].path / "stderr.txt"


def _settle(cells: list[Cell], process: "subprocess.Popen[bytes]") -> None:
    """Note why a process that has ended did not do its cells, if it did not."""
    assert process.stdin is not None
    process.stdin.close()
    left = [cell for cell in cells if not cell.done]
    if process.returncode == 0 and not left:
        return
    said = _said(cells).read_text(encoding="utf-8", errors="replace").splitlines()
    reason = next((line for line in reversed(said) if line.strip()), "it ended without a word")
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        reason = f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    _fail(left or cells, reason.removeprefix("Error: "))


def _fail(cells: list[Cell], reason: str) -> None:
    for cell in cells:
        with replacing(cell.path / "error.txt") as temporary:
            temporary.write_text(reason, encoding="utf-8")
