"""`cqr serve --images`: one command from a folder of pictures to the page."""

import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image

from command_line import cqr

pytest.importorskip("uvicorn", reason="pip install 'cqr[serve]'")

COMMAND = [sys.executable, "-m", "cqr.cli", "serve", "--port", "0", "--images", "photos"]


@pytest.fixture(autouse=True)
def photos():
    rng = np.random.default_rng(0)
    for name in "abc":
        Path("photos").mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 60, 3), np.uint8)).save(f"photos/{name}.png")


def gallery():
    """The names that the service answers with, and what was said before it listened."""
    with subprocess.Popen(
        COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as p:
        try:
            said = ""
            for line in p.stdout:
                said += line
                if found := re.search(r"http://[\d.]+:\d+", line):
                    break
            with urlopen(f"{found[0]}/api/gallery") as answer:
                return [hit["path"] for hit in json.load(answer)["pictures"]], said
        finally:
            p.terminate()


def test_a_folder_becomes_a_page_and_is_not_extracted_twice():
    names, said = gallery()
    assert names == ["a.png", "b.png", "c.png"]
    assert "likeness" in said
    shards = sorted(Path("artifacts/photos.shards").rglob("*.h5"))
    before = [file.stat().st_mtime_ns for file in shards]
    Image.new("RGB", (60, 40)).save("photos/d.png")
    names, said = gallery()
    assert names == ["a.png", "b.png", "c.png"]
    assert "Not searched: 1 pictures that came after artifacts/photos.h5" in said
    assert [file.stat().st_mtime_ns for file in shards] == before


def refused(*more):
    done = cqr("serve", "--port", "0", "--images", "photos", *more)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_what_is_searched_is_said_once():
    assert "leave one out" in refused("--features", "artifacts/photos.h5")


def test_a_folder_that_is_not_there():
    Path("photos").rename("elsewhere")
    assert "photos" in refused()


def test_the_end_waits_for_no_thread_and_loses_no_word():
    """One may still work for a caller who was told that it took too long."""
    said = (
        "import threading, time\n"
        "from cqr.search.server.serve import leave\n"
        "threading.Thread(target=time.sleep, args=(600,)).start()\n"
        "print('said', end='')\n"
        "leave()\n"
    )
    done = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, timeout=200)
    assert (done.returncode, done.stdout, done.stderr) == (0, "said", "")
