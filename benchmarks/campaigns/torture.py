"""Kill every command at random moments, and let every kind of write fail: is anything lost?

    python benchmarks/campaigns/torture.py [--stages extract,import,...] [--kills 34] [--faults 12]
                                           [--disks 4] [--terms 8] [--scarce 8] [--seed 0]

The stages are extract, train, import, index, compare and collect (`cqr serve --collect`), on a
small gallery of drawings.  Of each, --kills times: the command is begun and ended by SIGKILL at a
random moment; after each four it is run to its end, and what it leaves is held against what an
uninterrupted run leaves.  Then --faults times, by turns: the n-th write, fsync or rename below the
working folder fails once (a preloaded C library, failing.c), or every write from the n-th on, as
on a full disk, or no file may grow beyond n KiB; the command must end by itself, with a sentence
and no traceback, and when it is run again, leave what an uninterrupted one leaves.  Then --disks
times the same in a file system of its own, which is full at a random moment; none where nothing
may be mounted.  Then --terms times SIGTERM instead, and --scarce times with few descriptors or
little memory, of which it must not speak as of damage.  Of collect: each answer that a caller heard
of is in the table, whole, after the kill; and SIGTERM while the service starts.

Ends with status 1 if anything was otherwise.  The full campaign takes some hours.
"""

import argparse
import csv
import errno
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CQR = [sys.executable, "-m", "cqr.cli"]
TOGETHER = 4
"""Kills between two runs to the end."""

SMALL = (
    "--set width=16 --set heads=2 --set vep_depth=1 --set tep_depth=1 --set fusion_depth=1 "
    "--set embed_dim=16"
)


@dataclass(frozen=True)
class Stage:
    """A command, and what of its results must be equal, all in one folder."""

    name: str
    typed: str
    state: Callable[[Path], Any]

    @property
    def command(self) -> list[str]:
        return [*CQR, *self.typed.split()]


def regions(place: Path) -> Any:
    from kill_extract import content

    return content(place / "out" / "x.h5")


def weights(place: Path) -> Any:
    return {
        str(file.relative_to(place)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(place.rglob("weights.safetensors"))
    }


def trained(place: Path) -> Any:
    """Whatever the runs are called: what was done before the signal came is done anew."""
    return set(weights(place).values())


def gallery(place: Path) -> Any:
    from safetensors import safe_open

    [file] = place.rglob("gallery.safetensors")
    with safe_open(file, "np") as opened:
        vectors = opened.get_tensor("vectors")
    return vectors.tobytes(), len(list(place.rglob("hnsw-*.faiss")))


def compared(place: Path) -> Any:
    found = json.loads((place / "compared" / "comparison.json").read_text())
    return weights(place), [row["row"] for row in found["rows"]]


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "extract",
            "extract --images pictures --detector bundled --k 9 --shard 4 --workers 1 "
            "--out out/x.h5",
            regions,
        ),
        Stage("import", "import exported --k 9 --out out/x.h5", regions),
        Stage(
            "train",
            "train --features artifacts/pictures.h5 --epochs 3 --batch 8 --validation 0.2 "
            f"--device cpu {SMALL}",
            trained,
        ),
        Stage("index", "index --index hnsw --device cpu", gallery),
        Stage(
            "compare",
            "compare --features artifacts/pictures.h5 --models lbf,image-only --seeds 1 "
            "--set epochs=1 --set batch=8 --jobs 1 --examples 0 --device cpu --out compared",
            compared,
        ),
    )
}


def prepared(folder: Path) -> Path:
    """What all stages begin with: pictures, a table of queries, features, a run, an export."""
    sys.path.insert(0, str(HERE.parents[1] / "tests" / "shared"))
    from drawn_gallery import make

    make(folder, references=4, modifications=3)
    subprocess.run(
        [*CQR, "export", "artifacts/pictures.h5", "--format", "npz", "--out", "exported"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return folder


def begun(base: Path, scratch: Path) -> Path:
    """A copy of the base to work in, always under one name, which some files hold."""
    place = scratch / "work"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(base, place)
    return place


def finish(stage: Stage, place: Path, environment: dict[str, str] | None = None) -> Any:
    done = subprocess.run(stage.command, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode:
        return f"it does not go on: {done.stderr[-300:]}"
    left = [file.name for file in place.rglob(".*.partial")]
    return f"temporary files are left: {left}" if left else stage.state(place)


def killed(stage: Stage, base: Path, scratch: Path, kills: int, rng: random.Random) -> list[str]:
    """Faults that were found by killing."""
    began = time.perf_counter()
    whole = finish(stage, begun(base, scratch))
    seconds = time.perf_counter() - began
    if isinstance(whole, str):
        return [f"uninterrupted: {whole}"]
    found, place = [], begun(base, scratch)
    for kill in range(1, kills + 1):
        process = subprocess.Popen(
            stage.command,
            cwd=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(rng.uniform(0, seconds))
        process.kill()
        process.wait()
        if kill % TOGETHER == 0 or kill == kills:
            time.sleep(1)  # for workers to notice
            if (now := finish(stage, place)) != whole:
                found.append(f"after kill {kill}: {now if isinstance(now, str) else 'not equal'}")
            place = begun(base, scratch)
    return found


def shim(folder: Path) -> Path:
    library = folder / "failing.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "failing.c"), "-ldl"]
    subprocess.run(command, check=True)
    return library


def faults(counts: list[int], number: int, rng: random.Random) -> Iterator[tuple[dict, int | None]]:
    """Settings of failing.c, and a limit in bytes of a file, by turns."""
    writes, fsyncs, renames = (max(1, count) for count in counts)
    for turn in range(number):
        kind = turn % 6
        if kind == 5:
            yield {}, 1024 * rng.choice([0, 1, 4, 16, 64])
            continue
        call, among, error, on = (
            ("write", writes, errno.ENOSPC, False),
            ("fsync", fsyncs, errno.EIO, False),
            ("rename", renames, errno.EIO, False),
            ("write", writes, errno.ENOSPC, True),
            ("write", writes, errno.EIO, False),
        )[kind]
        said = {"FAIL_CALL": call, "FAIL_AT": str(rng.randint(1, among)), "FAIL_WITH": str(error)}
        yield said | ({"FAIL_ON": "1"} if on else {}), None


def failed(
    stage: Stage, base: Path, scratch: Path, number: int, rng: random.Random
) -> tuple[list[str], int]:
    """Faults that were found by letting calls fail, and how often the command was stopped by it."""
    library = shim(scratch)
    place = begun(base, scratch)
    under = {"LD_PRELOAD": str(library), "FAIL_UNDER": str(place.resolve())}
    tally = scratch / "calls.txt"
    tally.unlink(missing_ok=True)
    counting = os.environ | under | {"FAIL_COUNT": str(tally)}
    whole = finish(stage, place, counting)
    rows = [list(map(int, line.split())) for line in tally.read_text().splitlines()]
    found, stopped = [], 0
    for said, limit in faults([max(column) for column in zip(*rows, strict=True)], number, rng):
        place = begun(base, scratch)
        done = subprocess.run(
            stage.command,
            cwd=place,
            env=os.environ | (under | said if said else {}),
            preexec_fn=None if limit is None else lambda most=limit: _no_larger(most),
            capture_output=True,
            text=True,
            timeout=600,
        )
        stopped += done.returncode != 0
        what = " ".join(said.values()) or f"files of {limit} bytes"
        if "Traceback" in done.stderr or done.returncode not in (0, 1):
            found.append(f"{what}: status {done.returncode}, {done.stderr[-400:]}")
        elif (now := finish(stage, place)) != whole:
            found.append(f"{what}, then again: {now if isinstance(now, str) else 'not equal'}")
    return found, stopped


def full(
    stage: Stage, base: Path, scratch: Path, number: int, rng: random.Random
) -> tuple[list[str], int]:
    """Faults that were found by full disks, and how many of these stopped the command."""
    whole = finish(stage, place := begun(base, scratch))
    shutil.rmtree(place)
    place.mkdir()
    found, stopped = [], 0
    for turn in range(number + 1):  # the first has room, and says how much is written
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", place], check=True)
        try:
            shutil.copytree(base, place, dirs_exist_ok=True)
            before = _used(place)
            if not turn:
                finish(stage, place)
                grows = _used(place) - before
                continue
            left = 4096 * rng.randrange(grows // 4096 + 1)
            _resize(place, before + left)
            done = subprocess.run(stage.command, cwd=place, capture_output=True, text=True)
            stopped += done.returncode != 0
            _resize(place, 1 << 30)
            if "Traceback" in done.stderr or done.returncode not in (0, 1):
                said = done.stderr[-400:]
                found.append(f"{left} bytes left: status {done.returncode}, {said}")
            elif (now := finish(stage, place)) != whole:
                now = now if isinstance(now, str) else "not equal"
                found.append(f"{left} bytes left, then again: {now}")
        finally:
            subprocess.run(["umount", "--lazy", place], check=True)
    return found, stopped


def _used(disk: Path) -> int:
    status = os.statvfs(disk)
    return (status.f_blocks - status.f_bfree) * status.f_bsize


def _resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


def may_mount(scratch: Path) -> bool:
    done = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", scratch], capture_output=True)
    return done.returncode == 0 and subprocess.run(["umount", scratch]).returncode == 0


def told(
    stage: Stage, base: Path, scratch: Path, number: int, rng: random.Random
) -> tuple[list[str], int]:
    """Faults that were found by SIGTERM at random moments, and how many of these stopped it."""
    began = time.perf_counter()
    whole = finish(stage, begun(base, scratch))
    seconds = time.perf_counter() - began
    found, stopped, place = [], 0, begun(base, scratch)
    for turn in range(1, number + 1):
        process = subprocess.Popen(
            stage.command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        time.sleep(rng.uniform(0, seconds))
        process.terminate()
        _, said = process.communicate(timeout=600)
        stopped += process.returncode != 0
        if process.returncode not in ENDS or "Traceback" in said:
            found.append(f"SIGTERM {turn}: status {process.returncode}, {said[-400:]}")
    if number and (now := finish(stage, place)) != whole:
        found.append(f"after SIGTERM: {now if isinstance(now, str) else 'not equal'}")
    return found, stopped


ENDS = (0, 130, -signal.SIGTERM, -signal.SIGINT)
"""What a command that was told to end may end with.

Before Python can take SIGTERM, the signal ends the process by itself.  Where a KeyboardInterrupt
passes through an `exec` of text, as in the making of a data class, CPython ends by SIGINT, though
it was caught; a shell says 130 of both.
"""

FEW = (
    *((resource.RLIMIT_NOFILE, n) for n in (8, 12, 20, 32)),
    *((resource.RLIMIT_AS, n << 20) for n in (256, 512, 1024, 2048)),
)
"""Descriptors, and bytes of memory."""


def scarce(
    stage: Stage, base: Path, scratch: Path, number: int, rng: random.Random
) -> tuple[list[str], int]:
    """Faults that were found by too few descriptors, or too little memory."""
    whole = finish(stage, begun(base, scratch))
    found, stopped = [], 0
    for kind, most in rng.sample(FEW, min(number, len(FEW))):
        place = begun(base, scratch)
        done = subprocess.run(
            stage.command,
            cwd=place,
            preexec_fn=lambda kind=kind, most=most: resource.setrlimit(kind, (most, most)),
            capture_output=True,
            text=True,
            timeout=600,
        )
        stopped += done.returncode != 0
        unclear = [word for word in ("Traceback", "damaged") if word in done.stderr]
        if unclear or done.returncode not in (0, 1):
            what = "descriptors" if kind == resource.RLIMIT_NOFILE else "bytes of memory"
            found.append(f"{most} {what}: status {done.returncode}, {done.stderr[-400:]}")
        elif (now := finish(stage, place)) != whole:
            found.append(f"{most}, then again: {now if isinstance(now, str) else 'not equal'}")
    return found, stopped


def _no_larger(most: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))


def collected(base: Path, scratch: Path, kills: int, rng: random.Random) -> list[str]:
    """Faults of `cqr serve --collect`, killed while answers are given."""
    place, heard, found = begun(base, scratch), 0, []
    command = [*CQR, "serve", "--port", "0", "--device", "cpu", "--collect", "clicks.csv"]
    for kill in range(1, kills + 1):
        service = subprocess.Popen(
            command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert service.stdout is not None
        line = next((line for line in service.stdout if line.startswith("Open ")), None)
        if line is None:
            found.append(f"kill {kill}: the service does not start again")
            continue
        ends = time.monotonic() + rng.uniform(0, 1.5)
        while time.monotonic() < ends:
            heard += _answered(line.split()[1], heard)
        service.send_signal(signal.SIGKILL)
        service.wait()
        with (place / "clicks.csv").open(newline="") as file:
            texts = [(row["text"], row["kind"]) for row in csv.DictReader(file)]
        lost = [n for n in range(heard) if texts.count((f"answer {n}", "right")) < 1]
        half = [
            text
            for text, _ in texts
            if texts.count((text, "right")) != texts.count((text, "wrong"))
        ]
        if lost or half:
            found.append(f"kill {kill}: {len(lost)} answers are lost, {len(half)} are half")
    return found


def told_at_start(base: Path, scratch: Path, number: int, rng: random.Random) -> list[str]:
    """Faults of SIGTERM while the service starts."""
    place, found, seconds = begun(base, scratch), [], 0.0
    command = [*CQR, "serve", "--port", "0", "--device", "cpu"]
    for turn in range(number + 1):  # the first says how long it takes
        began = time.perf_counter()
        service = subprocess.Popen(
            command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert service.stdout is not None
        if turn:
            time.sleep(rng.uniform(0, seconds))
        else:
            next((line for line in service.stdout if line.startswith("Open ")), None)
            seconds = time.perf_counter() - began
        service.terminate()
        _, said = service.communicate(timeout=600)
        if service.returncode not in ENDS or "Traceback" in said:
            found.append(f"SIGTERM {turn}: status {service.returncode}, {said[-400:]}")
    return found


def _answered(address: str, number: int) -> bool:
    body = {"reference": 0, "text": f"answer {number}", "right": [1], "wrong": [2]}
    request = urllib.request.Request(
        f"{address}api/answers", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bool(answer.status == 201)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--stages", default=",".join([*STAGES, "collect"]))
    parser.add_argument("--kills", type=int, default=34)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--disks", type=int, default=4)
    parser.add_argument("--terms", type=int, default=8)
    parser.add_argument("--scarce", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        base, scratch = Path(folder, "base"), Path(folder, "scratch")
        base.mkdir()
        scratch.mkdir()
        disks = options.disks if may_mount(scratch) else 0
        prepared(base)
        print(f"seed {options.seed}", flush=True)
        for name in options.stages.split(","):
            rng = random.Random(f"{options.seed} {name}")
            if name == "collect":
                found = collected(base, scratch, options.kills, rng)
                found += told_at_start(base, scratch, options.terms, rng)
                said = f", {options.terms} SIGTERM"
            else:
                stage = STAGES[name]
                found = killed(stage, base, scratch, options.kills, rng)
                more, stopped = failed(stage, base, scratch, options.faults, rng)
                found += more
                said = f", {options.faults} faults of which {stopped} stopped it"
                for try_, number, what in (
                    (full, disks, "full disks"),
                    (told, options.terms, "SIGTERM"),
                    (scarce, options.scarce, "too few descriptors or too little memory"),
                ):
                    if number:
                        more, stopped = try_(stage, base, scratch, number, rng)
                        found += more
                        said += f", {number} {what} of which {stopped}"
            wrong += len(found)
            print(f"{name}: {options.kills} kills{said}: {len(found)} wrong", flush=True)
            for one in found:
                print(f"  {one}", flush=True)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
