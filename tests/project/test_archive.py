"""Files that earlier versions wrote, which this one must read: tests/data/vN, one folder each.

`benchmarks/campaigns/archive.py` made them; what is in them is held against the arrays that they
were made of, and against the figures that were written then.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import command_line
import cqr
from cqr.pipeline.examine import examine
from cqr.search.engine import Engine
from cqr.search.gallery import open_gallery
from cqr.search.indexes import build_index
from cqr.trainer.features import RegionReader

ARCHIVES = sorted((Path(__file__).parents[1] / "data").glob("v*"))
MADE_IN = "/tmp/cqr-archive"
"""Absolute paths in the files begin so."""


@pytest.fixture(params=ARCHIVES, ids=lambda path: path.name)
def archive(request, tmp_path):
    """A copy, whose texts say that it was made where it lies now."""
    folder = tmp_path / "archive"
    shutil.copytree(request.param, folder)
    for file in folder.rglob("*.json"):
        file.write_text(file.read_text().replace(MADE_IN, str(folder)))
    return folder


def test_there_is_one():
    assert [path.name for path in ARCHIVES][:1] == ["v1"]


def test_the_feature_file(archive):
    names = (archive / "arrays/paths.txt").read_text().split()
    arrays = {
        name: np.load(archive / f"arrays/{name}.npy")
        for name in ("features", "boxes", "scores", "classes")
    }
    file = cqr.open_features(archive / "artifacts/photos.h5")
    assert sorted(file.paths) == sorted(names)
    for row, name in enumerate(names):
        found = file.regions(name)
        np.testing.assert_array_equal(found.features, arrays["features"][row].astype(np.float16))
        np.testing.assert_array_equal(found.boxes, arrays["boxes"][row])
        np.testing.assert_array_equal(found.scores, arrays["scores"][row])
        assert (found.count, found.width, found.height) == (3, 8, 8)
    classes = np.concatenate([rows.arrays["regions/classes"] for rows in file.blocks()])
    np.testing.assert_array_equal(classes, arrays["classes"])
    assert examine(file).problems == []
    reader = RegionReader(file.path)
    batch = reader.gather(reader.rows(names))
    np.testing.assert_array_equal(batch.features, arrays["features"].astype(np.float16))


def test_the_run(archive):
    (run,) = (archive / "artifacts/runs").iterdir()
    stored = json.loads((run / "evaluation/metrics.json").read_text())
    queries = pd.read_parquet(run / "evaluation/queries.parquet")
    evaluation = cqr.evaluate(run, device="cpu", examples=0, progress=False)
    assert {str(k): r for k, r in evaluation.recall.items()} == stored["recall"]
    assert evaluation.queries["rank"].tolist() == queries["rank"].tolist()


def test_the_gallery(archive):
    (run,) = (archive / "artifacts/runs").iterdir()
    with pytest.raises(cqr.UserError, match=r"there is no HNSW index for .* as it is now"):
        Engine.open(run, index="hnsw", device="cpu")  # that of then is of another library
    folder = run / "index"
    build_index("hnsw", open_gallery(folder), lambda done, total: None)
    graph = Engine.open(run, index="hnsw", device="cpu")
    exact = Engine.open(run, index="exact", device="cpu")
    metadata = pd.read_csv(archive / "metadata.csv", index_col="path")
    assert graph.gallery.metadata["colour"].tolist() == [
        metadata.colour[path] for path in graph.gallery.paths
    ]
    for engine in (graph, exact):
        found = engine.search("01.png", "make it red", k=3, where='colour == "red"')
        assert {metadata.colour[hit.path] for hit in found} == {"red"}
    graphs, exacts = (
        [hit.path for hit in engine.search("01.png", "make it red", k=2)]
        for engine in (graph, exact)
    )
    assert graphs == exacts


def test_the_comparison(archive):
    """The same command finds every run done, and says the same figures."""
    folder = archive / "comparison"
    runs = pd.read_parquet(folder / "runs.parquet")
    rows = json.loads((folder / "comparison.json").read_text())["rows"]
    command = ["compare", "--out", folder]
    command += ["--features", archive / "artifacts/photos.h5"]
    command += ["--data", archive / "pictures/queries.csv", "--seeds", "2", "--examples", "1"]
    command += ["--models", "image-only:embed_dim=8,text-only:embed_dim=8", "--set", "epochs=1"]
    done = command_line.cqr(*command)
    assert done.returncode == 0, done.stderr
    assert ": done" not in done.stdout + done.stderr  # none was trained
    again = pd.read_parquet(folder / "runs.parquet")
    other = ["features", "run", "settings"]
    pd.testing.assert_frame_equal(again.drop(columns=other), runs.drop(columns=other))
    for old, new in zip(
        map(json.loads, runs.settings), map(json.loads, again.settings), strict=True
    ):
        assert new["options"] | old.pop("options") == new.pop("options")
        assert new | old == new  # nothing but what there was none of
    for old, new in zip(
        rows, json.loads((folder / "comparison.json").read_text())["rows"], strict=True
    ):
        same = old.keys() - {"options", "features"}  # files were named from the root then
        assert {name: new[name] for name in same} == {name: old[name] for name in same}
