"""One cell of a comparison, in a process of its own.

    python -m cqr.trainer.comparing.cell RUN DEVICE SHARE [PRECISION]

Trains the run that is in the folder RUN, from where it was, and scores it.  Ends at once when
its standard input closes, which is when the process that started it ends.
"""

import os
import sys
import threading
from pathlib import Path

import torch

from cqr.errors import UserError
from cqr.machine import find_device
from cqr.trainer.evaluation.evaluate import evaluate
from cqr.trainer.evaluation.stored import Stored
from cqr.trainer.training import runs
from cqr.trainer.training.material import Wanted, collect_for
from cqr.trainer.training.train import train


def work(path: Path, device: str, max_missing: float, precision: str | None = None) -> None:
    """Train and score a run.

    Raises:
        UserError: as `collect`, `train` and `evaluate` do.
    """
    torch.set_num_threads(1)
    run = runs.Run.load(path)
    material = collect_for(run, None, Wanted(), split=None, max_missing=max_missing)
    train(run, material, device=device, precision=precision)
    evaluation = evaluate(run, material, find_device(device))
    Stored(run.evaluation()).write(evaluation)


def _end_with_parent() -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock this thread would hold at the end
        pass
    os._exit(1)  # every file is written whole or not at all, so nothing needs to be tidied


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
    except UserError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
