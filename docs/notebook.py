"""Run the walk of docs/python.md, and write it with what it prints and shows to docs/python.ipynb.

    python docs/notebook.py [FOLDER]

FOLDER, a fresh one if none is given, takes the pictures, features and runs; `cqr` must be on PATH.
"""

import sys
import tempfile
from pathlib import Path

import jupytext
import nbclient

HERE = Path(__file__).parent


def main(folder: str) -> None:
    walk = jupytext.read(HERE / "python.md", fmt="md")
    walk.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    Path(folder).mkdir(parents=True, exist_ok=True)
    client = nbclient.NotebookClient(
        walk, timeout=1800, resources={"metadata": {"path": folder}}, record_timing=False
    )
    client.execute()
    place = str(Path(folder).resolve())
    for cell in walk.cells:
        for output in cell.get("outputs", []):
            for said in (output, output.get("data", {})):
                for kind in {"text", "text/plain", "text/html"} & said.keys():
                    said[kind] = said[kind].replace(place, ".")
    jupytext.write(walk, HERE / "python.ipynb")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
