"""The package as it is installed: what is in it, and who may import whom."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PARTS = ("commands", "pipeline", "report", "scenes", "search", "trainer")
CROSSING = (["pipeline", "feature_file"], ["pipeline", "shards"])
"""All that the trainer may import of the pipeline: the file format."""
GROUND = {
    "atomic",
    "digest",
    "errors",
    "interrupts",
    "listing",
    "machine",
    "progress",
    "remote",
    "typed",
    "unpickle",
}
"""What every part may import."""


def test_the_list_of_packages_is_the_tree():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {"cqr"} | {
        "cqr." + ".".join(path.parent.relative_to(ROOT).parts)
        for part in PARTS
        for path in (ROOT / part).rglob("__init__.py")
    }
    assert set(listed) == found
    for part in PARTS:
        loose = [p for p in (ROOT / part).rglob("*.py") if not (p.parent / "__init__.py").exists()]
        assert not loose


def test_every_dependency_has_a_lower_bound_that_the_pins_are_above():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    needs = [need for need in map(Requirement, named) if need.name != "cqr"]
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    for need in needs:
        (bound,) = need.specifier
        assert bound.operator == ">=", f"{need} has no lower bound, or another as well"
        assert bound.contains(pinned[canonicalize_name(need.name)], prereleases=True), need


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize(
    ("part", "others"),
    [
        ("pipeline", set()),
        ("scenes", set()),
        ("report", {"trainer", "pipeline"}),
        ("search", {"trainer", "pipeline"}),
        ("trainer", set()),
        ("commands", {"api", *PARTS}),
    ],
)
def test_a_part_imports_no_other(part, others):
    allowed = GROUND | others | {part}
    for path in (ROOT / part).rglob("*.py"):
        for name in imports(path):
            if name == "cqr" or not name.startswith("cqr."):
                continue
            words = name.split(".")
            if part == "trainer" and words[1:3] in CROSSING:
                continue
            assert words[1] in allowed, f"{path} imports {name}"


FLOORS = (
    {"choices", "options", "rows"},
    {"features"},
    {"text", "datasets"},
    {"models"},
    {"ranking"},
    {"training"},
    {"evaluation"},
    {"console"},
    {"comparing"},
)
"""The rooms of the trainer, from the ground up: a room imports from itself and from below."""


def floor_of(room):
    (number,) = [i for i, rooms in enumerate(FLOORS) if room in rooms]
    return number


def test_the_rooms_of_the_trainer_import_downwards_only():
    for path in (ROOT / "trainer").rglob("*.py"):
        room = path.relative_to(ROOT / "trainer").with_suffix("").parts[0]
        if room == "__init__":
            continue
        for name in imports(path):
            words = name.split(".")
            if words[:2] != ["cqr", "trainer"] or len(words) == 2 or words[2] == room:
                continue
            assert floor_of(words[2]) < floor_of(room), f"{path} imports {name}"


def test_no_room_is_crowded():
    for folder in {path.parent for part in PARTS for path in (ROOT / part).rglob("*.py")}:
        rooms = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(rooms) <= 20, f"{folder} has {len(rooms)} modules: part it"


def test_no_imports_run_in_a_circle():
    """Not even by imports inside functions, in the trainer."""
    known = {}
    for path in (ROOT / "trainer").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        known[".".join(("cqr", *(parts[:-1] if parts[-1] == "__init__" else parts)))] = path
    below = {
        name: {n for n in imports(path) if n in known} - {name} for name, path in known.items()
    }
    TopologicalSorter(below).prepare()  # raises CycleError, which names the circle


def test_the_trainer_loads_no_detector_and_no_image_library():
    code = (
        "import sys, cqr.cli, cqr.trainer.training.train, cqr.trainer.evaluation.evaluate\n"
        "loaded = {'PIL', 'torchvision', 'detectron2', 'moderngl', 'cqr.pipeline.detectors'}\n"
        "print(sorted(loaded & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_alone_loads_nothing_heavy():
    code = (
        "import sys, cqr.cli\n"
        "print(sorted({'torch', 'numpy', 'pandas', 'h5py', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
