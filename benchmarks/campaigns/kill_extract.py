"""Kill `cqr extract` with SIGKILL at ten random moments; compare with an uninterrupted run.

    python benchmarks/campaigns/kill_extract.py --images photos --detector grid --shard 2

Prints one line a kill, and at the end whether the file equals the uninterrupted one's, and
whether a finished shard was ever written again.  Ends with status 1 if either is not so.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py

from cqr.pipeline.feature_file import open_features, shards_folder

ANEW = ("created", "set")  # made anew by each first run


def content(out: Path) -> dict[tuple[str, str], object]:
    """All attributes and datasets of the file and its shards, but what is made anew."""
    found: dict[tuple[str, str], object] = {}
    for file in [out, *sorted(shards_folder(out).glob("*.h5"))]:
        with h5py.File(file) as opened:
            for name, value in opened.attrs.items():
                if name not in ANEW:
                    found[file.name, name] = value
            names: list[str] = []
            opened.visit(names.append)
            for name in names:
                if isinstance(opened[name], h5py.Dataset):
                    data = opened[name][()]
                    numbers = data.dtype != object
                    found[file.name, name] = data.tobytes() if numbers else list(data)
    return found


def written(out: Path) -> dict[str, tuple[int, int]]:
    """What changes if a shard is written again."""
    files = shards_folder(out).glob("*.h5")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--detector", default="grid")
    parser.add_argument("--k", type=int, default=36)
    parser.add_argument("--shard", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    command = [sys.executable, "-m", "cqr.cli", "extract", "--images", str(options.images)]
    for name in ("detector", "k", "shard", "workers"):
        command += [f"--{name}", str(getattr(options, name))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as scratch:
        plain, out = Path(scratch, "plain", "x.h5"), Path(scratch, "killed", "x.h5")
        start = time.perf_counter()
        subprocess.run([*command, "--out", str(plain)], check=True, **quiet)
        seconds = time.perf_counter() - start
        print(f"uninterrupted: {seconds:.1f} s, {len(written(plain))} shards")

        chance = random.Random(options.seed)
        kept: dict[str, tuple[int, int]] = {}
        again = 0
        for kill in range(options.kills):
            process = subprocess.Popen([*command, "--out", str(out)], **quiet)
            # Most runs get somewhat further; some end while they start or load.
            more = chance.randint(0, 3)
            while len(written(out)) < len(kept) + more and process.poll() is None:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.5) if more else chance.uniform(0, seconds / 2))
            ended = "killed" if process.poll() is None else "had ended by itself"
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(1)  # for workers to notice
            now = written(out)
            again += sum(kept[name] != now.get(name) for name in kept)
            kept = now
            print(f"{kill + 1}: {ended}, {len(now)} shards are there")
        subprocess.run([*command, "--out", str(out)], check=True, **quiet)
        now = written(out)
        again += sum(kept[name] != now.get(name) for name in kept)
        open_features(out)
        equal = content(out) == content(plain)
        left = list(Path(scratch).rglob("*.partial"))
    print(f"equal to the uninterrupted one: {equal}")
    print(f"finished shards written again: {again}; temporary files left: {len(left)}")
    sys.exit(0 if equal and not again and not left else 1)


if __name__ == "__main__":
    main()
