"""Pictures a second of `cqr scenes`: renders, draws and writes a folder, and throws it away.

python benchmarks/speed/scenes.py [--references 100] [--workers 2]
"""

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path

from cqr.scenes.generate import Settings, generate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--references", type=int, default=100)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scenes"
        started = time.perf_counter()
        outcome = generate(out, Settings(references=options.references), workers=options.workers)
        seconds = time.perf_counter() - started
        size = sum(path.stat().st_size for path in out.rglob("*.png"))
    count = sum(split["images"] for split in outcome.manifest["splits"].values())
    spent = sum(
        sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"{count} scenes, {options.workers} workers, {seconds:.1f} s: {count / seconds:.0f} "
        f"pictures/s with their drawings, start of the workers included\n"
        f"{1000 * spent / count:.1f} ms of processor time and {size / count / 1000:.1f} kB a scene"
    )


if __name__ == "__main__":
    main()
