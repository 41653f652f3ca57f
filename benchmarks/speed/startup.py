"""How long commands take that do little: help, a look at a small file, a question.

    python benchmarks/speed/startup.py FOLDER [OTHER_CQR] [--rounds 5]

FOLDER is one in which `make demo` (or its commands with fewer references) and `cqr index` were
run; OTHER_CQR another version's `cqr`.  The commands take turns, ROUNDS times after one that is not
counted, in which Python keeps what it compiles.  Prints the best and the median of the wall time,
and the best of the CPU time, which a busy machine spoils less.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

TEXT = "make middle-left red object large"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    o = parser.parse_args()
    picture = "images/css_test_000000.png"
    asked = {
        "help": ["--help"],
        "inspect": ["inspect", "artifacts/fashion.h5"],
        "search": ["search", "--image", picture, "--text", TEXT],
    }
    programs = [str(Path(sys.executable).with_name("cqr")), *([o.other] if o.other else [])]
    taken: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for counted in range(o.rounds + 1):
        for name, arguments in asked.items():
            for program in programs:
                spent = timed([program, *arguments], o.folder)
                if counted:
                    taken.setdefault((name, program), []).append(spent)
    for (name, program), spent in taken.items():
        wall, cpu = zip(*spent, strict=True)
        print(
            f"{name:8} best {min(wall):5.2f} s, median {median(wall):5.2f} s,"
            f" CPU {min(cpu):5.2f} s   {program}"
        )


def timed(command: list[str], folder: Path) -> tuple[float, float]:
    """Seconds by the clock and of CPU."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, began = os.times(), time.perf_counter()
    subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
    wall, after = time.perf_counter() - began, os.times()
    cpu = (
        after.children_user + after.children_system - before.children_user - before.children_system
    )
    return wall, cpu


if __name__ == "__main__":
    main()
