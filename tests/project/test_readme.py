"""Every command that the README shows, run as a user would, in the order of the page."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import command_line

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
SMALLER = {"--references 100": "--references 3 --modifications 4"}  # the one thing that is changed


@pytest.fixture
def photos(tmp_path):
    """A folder of pictures with a table beside it."""
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for i in range(8):
        picture = Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8))
        picture.save(tmp_path / "photos" / f"{i}.jpg")
    lines = [f"{i}.jpg,make it {i},{(i + 3) % 8}.jpg\n" for i in range(8)]
    (tmp_path / "photos.csv").write_text("reference,text,target\n" + "".join(lines))


def typed(line):
    """As a user types it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        line, shell=True, capture_output=True, text=True, env=environment, timeout=200
    )


def here(line):
    """In this process, which has imported what each of a user's would import for seconds."""
    return command_line.cqr(*shlex.split(line)[1:])


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize(
    ("block", "run"),
    [(block, typed if "scenes" in block else here) for block in BLOCKS],
    ids=[block.split("\n")[0] for block in BLOCKS],
)
def test_the_commands_of_the_readme_work(block, run, tmp_path):
    for line in filter(None, block.splitlines()):
        assert line.startswith("cqr ")
        for shown, smaller in SMALLER.items():
            line = line.replace(shown, smaller)
        done = run(line)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert "chance" in done.stdout
    assert list(tmp_path.glob("artifacts/runs/*/evaluation/metrics.json"))


def test_the_three_lines_are_there_as_they_stand():
    shown = [line for block in BLOCKS for line in block.splitlines()]
    assert "cqr extract --images fashion --k 36" in shown
    assert "cqr train --features artifacts/fashion.h5" in shown
    assert "cqr evaluate" in shown
