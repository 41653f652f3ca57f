"""docs/python.md and docs/python.ipynb: one walk, which runs."""

import json
import os
import sys
from pathlib import Path

import jupytext
import nbclient
import pytest

from cqr.errors import UserError
from cqr.scenes import render

DOCS = Path(__file__).parents[2] / "docs"
SMALL = {
    "--references 100": "--references 6 --modifications 4",
    "epochs=15": 'epochs=1, batch=8, validation=0.2, device="cpu"',
}
"""What makes the walk of the page a short one; everything else runs as it stands."""


def code(notebook):
    return [cell.source.strip() for cell in notebook.cells if cell.cell_type == "code"]


def page():
    return jupytext.read(DOCS / "python.md", fmt="md")


def test_the_notebook_is_the_page_with_what_it_printed():
    notebook = jupytext.read(DOCS / "python.ipynb")
    assert code(notebook) == code(page())
    ran = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in ran] == list(range(1, len(ran) + 1))
    shown = json.dumps([cell.outputs for cell in ran])
    assert "image/png" in shown
    assert shown.count("data:image/jpeg;base64,") >= 5
    assert "Traceback" not in shown
    assert str(Path.home()) not in shown


@pytest.mark.timeout(600)
def test_the_walk_runs_from_pictures_to_hits(tmp_path, monkeypatch):
    try:
        render.Renderer()
    except UserError as error:
        pytest.skip(f"the scenes of the walk need OpenGL: {error}")
    walk = page()
    for cell in walk.cells:
        for long, short in SMALL.items():
            cell.source = cell.source.replace(long, short)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    walk.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbclient.NotebookClient(walk, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    said = json.dumps([cell.get("outputs", []) for cell in walk.cells])
    assert said.count("data:image/jpeg;base64,") == 5
    assert "no feature file artifacts/elsewhere.h5; make it with" in said
    assert (tmp_path / "artifacts/runs/fashion-lbf-001/evaluation/report.html").is_file()
