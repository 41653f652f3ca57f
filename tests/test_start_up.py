"""What a command loads before it does anything: held by name, since times hang on the machine."""

import os
import subprocess
import sys

import pytest

TORCH = {"torch", "lightning_fabric", "torchvision", "timm", "transformers", "open_clip"}
TABLES = {"pandas", "matplotlib"}
PICTURES = {"PIL", "pillow_heif", "rich_pixels"}

HELP = "import cqr.cli\ntry:\n  cqr.cli.app(['--help'])\nexcept SystemExit: pass"
INSPECT = "from cqr.cli import app\nfrom cqr.pipeline import inspection"
FILES = "from cqr.cli import app\nfrom cqr.pipeline import console"
SEARCH = """\
from cqr.search import console
from cqr.search.at_once import lacks_index, run_for
from cqr.search.engine import Engine
from cqr.search.indexes import exact, hnsw
from cqr.search.question import Question, weighted
import pathlib, subprocess, tempfile, torch
from cqr.search import gallery
from cqr.trainer.training.checkpoint import save_tensors
write = "import pandas as pd, sys; table = pd.DataFrame({'path': ['a.jpg']}).to_parquet();"
write += "sys.stdout.buffer.write(table)"
held = subprocess.run([sys.executable, "-c", write], capture_output=True, check=True).stdout
tensors = {"vectors": torch.ones(1, 2).half(), "table": torch.tensor(list(held)).byte()}
about = {"format": gallery.FORMAT, "version": gallery.VERSION, "id": "1", "source": "{}"}
with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "gallery.safetensors")
    save_tensors(file, tensors, about | {"extends": "", "metadata": ""})
    assert gallery.read(file).paths == ["a.jpg"]"""


@pytest.mark.parametrize(
    ("code", "without"),
    [
        (HELP, TORCH | TABLES | PICTURES | {"numpy", "h5py", "pyarrow", "importlib.metadata"}),
        (INSPECT, TORCH | TABLES | PICTURES | {"pyarrow", "importlib.metadata"}),
        (FILES, TORCH | TABLES),
        (SEARCH, TABLES | {"lightning_fabric", "torchvision", "timm", "pymilvus", "rich_pixels"}),
    ],
    ids=["help", "inspect", "import and export", "search"],
)
def test_a_command_loads_only_what_it_uses(code, without):
    code = f"import sys\n{code}\nprint('loaded:', sorted({without!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded: []"


LEAVES = """\
import atexit, sys, threading, time
{load}
class Kept:
    def __del__(self):
        print("taken apart")
kept = Kept()
atexit.register(lambda: print("at exit"))
def late():
    time.sleep(0.2)
    print("a thread")
threading.Thread(target=late).start()
sys.argv = ["cqr", *{words}]
import cqr.cli
cqr.cli.main()"""


@pytest.mark.parametrize("words", [["--version"], ["inspect", "nowhere.h5"], ["--nonsense"]])
@pytest.mark.parametrize("load", ["import torch", ""])
def test_a_command_ends_as_python_does_but_for_taking_torch_apart(load, words):
    code = LEAVES.format(load=load, words=words)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == {"--version": 0, "inspect": 1, "--nonsense": 2}[words[0]]
    ended = ["a thread", "at exit", *([] if load else ["taken apart"])]
    assert done.stdout.splitlines()[-len(ended) :] == ended
    assert len(done.stdout.splitlines()) == len(ended) + (words == ["--version"])
    assert ("Error" in done.stderr) == (done.returncode > 0)
    assert "Traceback" not in done.stderr


def test_what_cannot_be_printed_ends_as_ever():
    code = "import torch, sys, cqr.cli\nsys.argv = ['cqr', '--version']\ncqr.cli.main()"
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, env=kept
        )
    assert done.returncode == 120
    assert b"No space left on device" in done.stderr
