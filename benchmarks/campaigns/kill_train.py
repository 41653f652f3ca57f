"""Kill `cqr train` with SIGKILL at ten random moments; compare with an uninterrupted run.

    python benchmarks/campaigns/kill_train.py --features artifacts/fashion.h5 [-- --epochs 20 ...]

What follows -- goes to `cqr train` in both.  Prints one line a kill, and at the end whether
weights and checkpoint equal the uninterrupted run's bit for bit.  Ends with status 1 if not.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from cqr.trainer.training import checkpoint, runs


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("train", nargs="*", help="options of `cqr train`, after --")
    options = parser.parse_args()
    command = [sys.executable, "-m", "cqr.cli", "train", "--device", "cpu", "--features"]
    command += [str(options.features.resolve()), *options.train]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as scratch:
        plain, killed = Path(scratch, "plain"), Path(scratch, "killed")
        for place in (plain, killed):
            place.mkdir()
        start = time.perf_counter()
        subprocess.run(command, cwd=plain, check=True, **quiet)
        seconds = time.perf_counter() - start
        print(f"uninterrupted: {seconds:.1f} s")
        chance = random.Random(options.seed)
        for kill in range(options.kills):
            process = subprocess.Popen(command, cwd=killed, **quiet)
            # Half of them get an epoch further; the others end while they start, or soon after.
            wanted = epochs(killed) + chance.randint(0, 1)
            while epochs(killed) < wanted and process.poll() is None:
                time.sleep(0.05)
            time.sleep(chance.uniform(0, seconds / 8))
            ended = "killed" if process.poll() is None else "had ended by itself"
            process.kill()
            process.wait()
            print(f"{kill + 1}: {ended}, {epochs(killed)} epochs are done", flush=True)
            if ended != "killed":
                break
        else:
            subprocess.run(command, cwd=killed, check=True, **quiet)
        [one], [two] = (runs.all_runs(place / runs.RUNS) for place in (plain, killed))
        equal = all(same(getattr(one, f), getattr(two, f)) for f in ("weights", "checkpoint"))
    print(f"equal to the uninterrupted one, bit for bit: {equal}")
    sys.exit(0 if equal else 1)


def epochs(place: Path) -> int:
    found = runs.all_runs(place / runs.RUNS)
    return checkpoint.progress(found[-1].checkpoint).epoch if found else 0


def same(one: Path, two: Path) -> bool:
    a, b = load_file(one), load_file(two)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


if __name__ == "__main__":
    main()
