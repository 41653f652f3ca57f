"""Building a gallery: only what is new is encoded, what is gone is dropped, a kill costs little."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cqr.errors import UserError
from cqr.search import build as building
from cqr.search import gallery as galleries
from cqr.search.build import build
from cqr.search.metadata import matching, read_metadata
from cqr.trainer.features import RegionReader
from cqr.trainer.ranking import encode
from cqr.trainer.text.vocabulary import Vocabulary
from cqr.trainer.training.checkpoint import save_weights
from cqr.trainer.training.runs import Run, now
from cqr.trainer.training.settings import settle

CPU = torch.device("cpu")
K, DIM = 3, 5


@pytest.fixture
def features(tmp_path, write_features):
    """A function that writes features of n pictures; those of fewer are the first of them."""

    def make(n=20, root="/no/such/folder", seed=0):
        rng = np.random.default_rng(seed)
        drawn = rng.normal(size=(500, K, DIM)).astype(np.float32)
        corners = np.sort(rng.uniform(0, 300, (500, K, 2, 2)), axis=2).reshape(500, K, 4)
        paths = [f"{i}.png" for i in range(n)]
        file = tmp_path / "artifacts" / "photos.h5"
        return write_features(file, paths, drawn[:n], corners[:n], root=root, shard_size=7)

    return make


@pytest.fixture
def run(tmp_path, features):
    """A run over those features whose weights were never trained."""
    return make_run(tmp_path / "artifacts/runs/photos-lbf-001", features())


def make_run(folder, features, seed=0, **given):
    small = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=24"]
    run = Run(
        path=folder,
        features=features,
        data=None,
        dataset="table",
        protocol={},
        region_dim=DIM,
        detector={"name": "drawn"},
        settings=settle({}, given, small),
        vocabulary=Vocabulary(("make", "it", "red"), 8),
        text_encoder=None,
        created=now(),
    )
    run.save()
    torch.manual_seed(seed)
    save_weights(run.weights, run.model())
    return run


def built(run, **more):
    return build(run, RegionReader(run.features), device=CPU, **more)


@pytest.fixture
def encoded(monkeypatch):
    """The paths that are encoded, in order."""
    seen = []

    def spy(model, reader, rows, device):
        seen.extend(reader.paths[row] for row in rows)
        return encode.encode_images(model, reader, rows, device)

    monkeypatch.setattr(building, "encode_images", spy)
    return seen


def test_the_vectors_are_those_of_the_model(run):
    found = built(run)
    reader = RegionReader(run.features)
    with torch.inference_mode():
        expected = run.trained_model().encode_image(reader.gather(np.arange(20))).numpy()
    assert found.gallery.paths == reader.paths
    assert found.gallery.vectors.dtype == np.float16
    np.testing.assert_allclose(found.gallery.vectors, expected, atol=3e-4)
    assert (found.computed, found.kept, found.dropped, found.absent) == (20, 0, 0, 0)
    assert found.gallery.folder == run.path / "index"
    mapped = Path("/proc/self/maps").read_text()
    assert str(found.gallery.folder / galleries.NAME) in mapped


def test_only_new_pictures_are_encoded_and_they_come_out_as_in_a_fresh_build(
    run, features, encoded
):
    first = built(run)
    encoded.clear()
    features(33)
    second = built(run)
    assert encoded == [f"{i}.png" for i in range(20, 33)]
    assert (second.computed, second.kept, second.dropped) == (13, 20, 0)
    assert second.gallery.extends == first.gallery.id
    np.testing.assert_array_equal(second.gallery.vectors[:20], first.gallery.vectors)
    (run.path / "index" / galleries.NAME).unlink()
    fresh = built(run)
    np.testing.assert_allclose(second.gallery.vectors, fresh.gallery.vectors, atol=1e-3)
    assert second.gallery.table.equals(fresh.gallery.table)


def test_what_is_there_is_not_written_again(run, encoded):
    first = built(run)
    file = run.path / "index" / galleries.NAME
    stamp = file.stat().st_mtime_ns, file.stat().st_ino
    encoded.clear()
    second = built(run)
    assert encoded == []
    assert second.gallery.id == first.gallery.id
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == stamp


def test_pictures_that_are_gone_are_dropped(run, features, encoded, tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for i in range(20):
        (root / f"{i}.png").touch()
    features(root=root)
    first = built(run)
    encoded.clear()
    for i in (3, 19):
        (root / f"{i}.png").unlink()
    second = built(run)  # their rows are still in the feature file
    assert encoded == []
    assert (second.kept, second.dropped, second.absent) == (18, 2, 2)
    keep = [i for i in range(20) if i not in (3, 19)]
    assert second.gallery.paths == [f"{i}.png" for i in keep]
    np.testing.assert_array_equal(second.gallery.vectors, first.gallery.vectors[keep])
    assert second.gallery.extends == ""
    features(10, root=root)  # and now their rows are gone, too
    assert built(run).dropped == 9
    for file in root.iterdir():
        file.unlink()
    with pytest.raises(UserError, match=r"none of the pictures of .* is in .* any longer"):
        built(run)


def test_other_weights_or_features_are_encoded_anew_and_said(run, features, encoded):
    built(run)
    encoded.clear()
    torch.manual_seed(1)
    save_weights(run.weights, run.model())
    found = built(run)
    assert found.anew == "the run has other weights"
    assert len(encoded) == found.computed == 20
    reader = RegionReader(run.features)
    header = replace(reader.file.header, set_id="another")
    reader.file = replace(reader.file, header=header)
    found = build(run, reader, device=CPU)
    assert found.anew == "the features were extracted anew"
    assert found.computed == 20


def test_a_gallery_over_another_feature_file_has_a_folder_of_its_own(run, features, tmp_path):
    other = features(5).rename(tmp_path / "artifacts" / "other.h5")
    found = build(run, RegionReader(other), device=CPU)
    assert found.gallery.folder == run.path / "index-other"


def test_what_an_interrupted_build_encoded_is_kept(run, encoded, monkeypatch):
    monkeypatch.setattr(building, "BLOCK", 4)
    monkeypatch.setattr(building, "SAVE_EVERY", 0.0)

    def stop(done, total):
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        built(run, progress=stop)
    with pytest.raises(UserError, match=r"there is no index in .* yet: build it with `cqr index`"):
        galleries.open_gallery(run.path / "index")
    encoded.clear()
    found = built(run)
    assert encoded == [f"{i}.png" for i in range(8, 20)]  # the block in flight is lost
    assert (found.computed, found.kept) == (12, 8)
    assert [f.name for f in (run.path / "index").iterdir()] == [galleries.NAME]


KILLED = """
import sys, time, torch
from pathlib import Path
from cqr.search import build as building, gallery
from cqr.trainer.training.checkpoint import save_tensors
from cqr.trainer.features import RegionReader
from cqr.trainer.training.runs import Run
building.BLOCK, building.SAVE_EVERY = 1, 0.0
print("begun", flush=True)
run = Run.load(Path(sys.argv[1]))
building.build(run, RegionReader(run.features), device=torch.device("cpu"))
"""


def test_killed_at_any_moment_the_old_gallery_is_whole_and_the_new_one_comes(run, features):
    before = built(run).gallery
    features(300)
    for wait in (0.05, 0.3):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(run.path)], stdout=subprocess.PIPE, text=True
        )
        child.stdout.readline()
        time.sleep(wait)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        now = galleries.open_gallery(run.path / "index")
        assert len(now) in (20, 300)
        np.testing.assert_array_equal(now.vectors[:20], before.vectors)
    found = built(run)
    assert found.gallery.paths == [f"{i}.png" for i in range(300)]
    reader = RegionReader(run.features)
    with torch.inference_mode():
        expected = run.trained_model().encode_image(reader.gather(np.arange(300))).numpy()
    np.testing.assert_allclose(found.gallery.vectors, expected, atol=1e-3)


def test_metadata_is_by_path_and_is_found_again(run, features, tmp_path, encoded):
    table = tmp_path / "about.csv"
    table.write_text("path,colour,price\n3.png,red,7\n0.png,blue,\nelsewhere.png,red,1\n")
    first = built(run, metadata=table)
    assert first.gallery.metadata.iloc[:4].astype(object).where(
        lambda t: t.notna(), None
    ).values.tolist() == [
        ["blue", None],
        [None, None],
        [None, None],
        ["red", 7],
    ]
    encoded.clear()
    table.write_text(table.read_text().replace("0.png,blue,", "0.png,blue,3"))
    second = built(run)  # remembers the table, and reads it anew
    assert encoded == []
    assert second.gallery.metadata["price"][0] == 3
    assert second.gallery.id != first.gallery.id
    table.unlink()
    with pytest.raises(UserError, match=r"there is no .*about.csv"):
        built(run)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("picture,colour\na,b\n", "has no column `path`"),
        ("path,colour\n1.png,b\n1.png,c\n", "names 1.png twice"),
        ("path,colour\nx/1.png,b\n", "names none of the pictures: its first path is 'x/1.png'"),
        ("path,colour\n", "has no row"),
        ("path,a b\n1.png,b\n", "the column 'a b' of .* cannot be named in a --where"),
        ("path,class\n1.png,b\n", "the column 'class' of .* cannot be named in a --where"),
        ("path,vector\n1.png,b\n", "the column 'vector' of .* is a name of cqr's"),
        ("", "cannot read"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(run, tmp_path, text, sentence):
    table = tmp_path / "about.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=sentence):
        built(run, metadata=table)


@pytest.mark.parametrize("separator", [",", ";"])
def test_metadata_is_text_as_it_stands(tmp_path, separator):
    lines = [
        "id,code,name,size,price,ok",
        "1,007,NA,1E5,1.50,True",
        "2,012,None,2E5,,False",
        "3,,,3E5,-2,",
        "9,1,x,y,3,True",
    ]
    table = tmp_path / "about.csv"
    table.write_text("\n".join(lines).replace(",", separator))
    found, notes = read_metadata(table, ["1.png", "2.png", "3.png", "4.png"])
    unknown = found.astype(object).where(found.notna(), None)
    assert unknown["code"].tolist() == ["007", "012", None, None]
    assert unknown["name"].tolist() == ["NA", "None", None, None]
    assert unknown["size"].tolist() == ["1E5", "2E5", "3E5", None]
    assert unknown["price"].tolist() == [1.5, None, -2, None]
    assert unknown["ok"].tolist() == [True, False, None, None]
    types = "code (text), name (text), size (text), price (number), ok (True or False)"
    assert notes == [
        f"about.csv describes 3 of 4 pictures: {types}",
        "1 rows of about.csv fit no picture, or more than one, first '9'",
    ]
    assert matching('name == "NA"', found).tolist() == [True, False, False, False]
    for where, sentence in (
        ("code == 7", "7, and code holds text: write it in quotes"),
        ('price == "2"', "'2', and price holds no text but"),
        ("code in [7, 8]", "write it in quotes"),
    ):
        with pytest.raises(UserError, match=sentence):
            matching(where, found)


def test_metadata_of_other_systems_names_is_matched_and_said(tmp_path):
    table = tmp_path / "about.csv"
    table.write_text("path,colour\ncafe\u0301.png,red\nsub\\B.PNG,blue\n")
    found, notes = read_metadata(table, ["caf\u00e9.png", "sub/b.png"])
    assert found["colour"].tolist() == ["red", "blue"]
    assert "2 rows of about.csv are written in other letter case, Unicode form or" in notes[1]


def test_a_damaged_gallery_is_said_and_built_again(run):
    built(run)
    file = run.path / "index" / galleries.NAME
    whole = file.read_bytes()
    for content in (whole[:-7], whole[:20], b"", b"{}" * 30):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"is (damaged|None version None).*: delete it and run"):
            galleries.open_gallery(run.path / "index")
    header = whole.replace(b'"version":"1"', b'"version":"9"')
    file.write_bytes(header)
    with pytest.raises(UserError, match="'cqr-gallery' version '9', this cqr reads"):
        galleries.open_gallery(run.path / "index")
    assert built(run).computed == 20
    assert len(galleries.open_gallery(run.path / "index")) == 20


def test_a_run_of_other_features_or_without_weights_is_refused(run, features):
    run.weights.unlink()
    with pytest.raises(UserError, match="has no weights yet"):
        built(run)
    with pytest.raises(UserError, match="was trained on regions of 6 numbers"):
        built(replace(run, region_dim=6))
    assert not (run.path / "index").exists()
    assert json.loads((run.path / "run.json").read_text())["format"] == "cqr-run"


def test_vectors_that_are_not_finite_are_refused(run):
    model = run.model()
    with torch.no_grad():
        next(model.out_regions.parameters()).fill_(torch.nan)
    save_weights(run.weights, model)
    with pytest.raises(UserError, match=r"the vectors of 20 images are not finite, first 0.png"):
        built(run)


def test_the_columns_keep_their_types(run, tmp_path):
    rows = {"path": ["1.png"], "n": [1], "x": [0.5], "yes": [True], "name": ["a"]}
    pd.DataFrame(rows).to_parquet(tmp_path / "about.parquet")
    found = built(run, metadata=tmp_path / "about.parquet").gallery.metadata.dtypes.astype(str)
    assert found.to_dict() == {"n": "Int64", "x": "Float64", "yes": "boolean", "name": "string"}
