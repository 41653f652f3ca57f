"""How many small errors in a module its tests find.

    make mutants
    python benchmarks/campaigns/mutants.py --only search/server/guard.py --sample 40

Every module of `mutants.toml` is changed in one place (see `mutate.py`), its tests run, and
the mutant is killed if one fails, or if they take five times as long as without it.  What
survives is listed in docs/mutants.md, with a reason where `mutants.toml` says why no test could
tell it from the module.

All happens in a copy of the tree.  torch and the like are imported once, and each mutant is
tried in a fork.  Results are kept in .mutants.jsonl: a second run tries only what is new, and
survivors whose tests have changed.  Without that file all is tried anew.
"""

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from datetime import date
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from mutate import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
KEPT = ROOT / ".mutants.jsonl"
PAGE = ROOT / "docs" / "mutants.md"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", help="these modules; all of them if not given")
    parser.add_argument("--sample", type=int, help="so many mutants of each, drawn at random")
    parser.add_argument("--page", action="store_true", help="try none, write the page")
    options = parser.parse_args()
    plan = tomllib.loads(Path(__file__).with_name("mutants.toml").read_text())
    drawn = {name: sample(name, options.sample) for name in options.only or plan["tests"]}
    if not options.page:
        with copied(plan["import"]) as copy:
            for module, some in drawn.items():
                attempt(copy, module, plan["tests"][module], some)
    PAGE.write_text(page(plan, known()), encoding="utf-8")


def sample(module: str, size: int | None) -> list[Mutant]:
    every = mutants((ROOT / module).read_text())
    if size is None or size >= len(every):
        return every
    return random.Random(module).sample(every, size)


def known() -> dict[str, dict[str, Any]]:
    """The last result of each mutant, by its key."""
    lines = KEPT.read_text().splitlines() if KEPT.exists() else []
    return {result["key"]: result for result in map(json.loads, lines)}


def key(module: str, mutant: Mutant) -> str:
    return digest(module, mutant.source)


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@contextlib.contextmanager
def copied(first: list[str]) -> Iterator[Path]:
    """A copy of the tree, from which `cqr` is imported here and in what is started here.

    `first`: what tests import and mutants leave as it is; imported here, once.
    """
    listed = ("git", "ls-files", "--cached", "--others", "--exclude-standard")
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "cqr"
        for name in filter(lambda name: (ROOT / name).is_file(), files.splitlines()):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy / name)
        # CI: Hypothesis draws the same examples every time
        os.environ |= {"PYTHONPATH": place, "CI": "true", "OMP_NUM_THREADS": "1"}
        sys.path.insert(0, place)
        for name in first:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        for plugin in entry_points(group="pytest11"):
            plugin.load()
        gc.freeze()  # what is here stays: pytest need not look through it in every fork
        yield copy


def attempt(copy: Path, module: str, tests: list[str], some: list[Mutant]) -> None:
    """Try those mutants of a module whose result is not known."""
    state = digest(*((copy / test).read_text() for test in tests))
    before = known()

    def is_new(mutant: Mutant) -> bool:
        last = before.get(key(module, mutant))
        return last is None or (last["outcome"] == "survived" and last["tests"] != state)

    waiting = [mutant for mutant in some if is_new(mutant)]
    if not waiting:
        return
    own = (copy / module).read_text()
    began = time.monotonic()
    outcome = tried(copy, module, own, tests, 600)
    limit = 10 + 5 * (time.monotonic() - began)
    if outcome != "survived" or tried(copy, module, "1 / 0", tests, limit) != "killed":
        sys.exit(f"{module}: {tests} fail without a mutant, or do not import it from {copy}")
    for number, mutant in enumerate(waiting, 1):
        outcome = tried(copy, module, mutant.source, tests, limit)
        print(f"{module} {number}/{len(waiting)} {outcome:8} {mutant.name}", flush=True)
        result = {"key": key(module, mutant), "outcome": outcome, "tests": state}
        with KEPT.open("a") as kept:
            kept.write(json.dumps(result | {"module": module, "mutant": mutant.name}) + "\n")
    (copy / module).write_text(own)


def tried(copy: Path, module: str, source: str, tests: list[str], limit: float) -> str:
    """Run tests with a module as given, for at most `limit` seconds."""
    path = copy / module
    path.write_text(source)
    for stale in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
        stale.unlink()  # Python takes a file of the same size and second for the same
    child = os.fork()
    if not child:
        run(copy, tests)
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "killed" if status else "survived"
        time.sleep(0.01)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout"


def run(copy: Path, tests: list[str]) -> None:
    """In the fork: pytest, and the end of the process."""
    import pytest
    from hypothesis import Phase, settings

    # the first example that fails is enough
    first = settings(settings.get_profile("ci"), phases=(Phase.explicit, Phase.generate))
    settings.register_profile("first", first)
    settings.load_profile("first")
    os.setsid()  # so that what the tests start ends with them
    os.chdir(copy)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    place = f"--basetemp={copy.parent / 'temporary'}"
    os._exit(int(pytest.main(["-x", "-p", "no:cacheprovider", place, *tests])))


def page(plan: dict[str, Any], results: dict[str, dict[str, Any]]) -> str:
    """docs/mutants.md: of each module, what was tried and what survived."""
    rows, survivors = [], []
    total = [0] * 5
    for module in plan["tests"]:
        every = mutants((ROOT / module).read_text())
        found = {m.name: results[k]["outcome"] for m in every if (k := key(module, m)) in results}
        alive = [name for name, outcome in found.items() if outcome == "survived"]
        why = plan.get("equivalent", {}).get(module, {})
        if unknown := why.keys() - alive:
            print(f"{module}: mutants.toml names what does not survive: {sorted(unknown)}")
        slow = list(found.values()).count("timeout")
        same = sum(name in why for name in alive)
        row = [len(every), len(found), len(found) - len(alive), slow, same]
        total = [a + b for a, b in zip(total, row, strict=True)]
        rows.append(line(f"`{module}`", row))
        survivors += [f"\n### {module}\n"] * bool(alive)
        survivors += [f"- {name}: {why.get(name, '**not found by a test**')}" for name in alive]
    return PAGE_TEXT.format(
        date=date.today(), python=platform.python_version(), rows="\n".join(rows),
        total=line("all", total), survivors="\n".join(survivors) or "\nNone.",
    )  # fmt: skip


def line(name: str, row: list[int]) -> str:
    _, of, killed, _, same = row
    shares = [f"{100 * killed / n:.1f} %" if n else "–" for n in (of, of - same)]
    return f"| {name} | {' | '.join(map(str, [*row, of - killed - same, *shares]))} |"


PAGE_TEXT = """\
# Errors that the tests find

    make mutants

Made on {date} with Python {python} by `benchmarks/campaigns/mutants.py`, which puts one small error
into a module (`benchmarks/campaigns/mutate.py` says which kinds), runs the module's tests and
counts the mutant as killed when one of them fails.  It is a script of ours, since cosmic-ray
starts Python and imports torch anew for every mutant, and mutmut changes neither decorated
functions nor what a class or a module defines, which is much of these modules.

- **tried**: of those that there are; a mutant whose tests do not end in five times their usual
  time is killed, and counted under **by time** as well.
- **equivalent**: survived, but does what the module does, so that no test could tell; why is
  said below.
- **left**: survived, and a test could tell.

The last two columns are the share that was killed of those tried, and of those tried that are
not equivalent.

| module | mutants | tried | killed | by time | equivalent | left | of tried | of the others |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
{rows}
{total}

## What survived
{survivors}
"""

if __name__ == "__main__":
    main()
