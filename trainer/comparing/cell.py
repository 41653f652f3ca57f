"""One cell of a comparison, or those of several seeds, in a process of its own.

    python -m cqr.trainer.comparing.cell RUN... [--device D] [--max-missing SHARE]
        [--precision P] [--compile]

Trains the run that is in the folder RUN, from where it was, and scores it; several, which differ
in their seeds alone, as one batched model.  Ends at once when its standard input closes, which is
when the process that started it ends.
"""

import argparse
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import torch

from cqr.errors import UserError
from cqr.machine import find_device
from cqr.trainer.evaluation.evaluate import evaluate
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.training import runs
from cqr.trainer.training.material import Wanted, collect_for
from cqr.trainer.training.train import train_seeds


def work(
    paths: Sequence[Path],
    device: str,
    max_missing: float,
    precision: str | None = None,
    compile: bool = False,
) -> None:
    """Train and score runs that differ in their seeds alone.

    Raises:
        UserError: as `collect`, `train_seeds` and `evaluate` do.
    """
    torch.set_num_threads(1)
    cells = [runs.Run.load(path) for path in paths]
    material = collect_for(cells[0], None, Wanted(), split=None, max_missing=max_missing)
    train_seeds(cells, material, device=device, precision=precision, compile=compile)
    for run in cells:
        evaluation = evaluate(run, material, find_device(device))
        Stored(run.evaluation()).write(evaluation)


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold at the end
        pass
    os._exit(1)  # every file is written whole or not at all, so nothing needs to be tidied


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--max-missing", type=float, default=0.01)
    parser.add_argument("--precision")
    parser.add_argument("--compile", action="store_true")
    o = parser.parse_args()
    try:
        work(o.runs, o.device, o.max_missing, o.precision, o.compile)
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
