"""cqr from Python: what a notebook does in one call is what the commands do."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import command_line
import cqr
from cqr import api
from cqr.trainer.training.runs import Run
from drawn_gallery import make

TINY = {"width": 16, "heads": 2, "vep_depth": 1, "tep_depth": 1, "fusion_depth": 1, "embed_dim": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 8 drawn scenes, and everything that it needs beside it."""
    return make(tmp_path_factory.mktemp("gallery"))


def test_importing_cqr_loads_nothing_heavy_and_takes_no_time():
    code = (
        "import sys, cqr\n"
        "cqr.__version__\n"
        "heavy = {'torch', 'numpy', 'pandas', 'h5py', 'matplotlib', 'PIL', 'typer', 'rich'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_face_has_the_names_that_it_promises():
    assert cqr.__version__ == version("cqr")
    for name in ("extract", "open_features", "train", "evaluate", "open_gallery"):
        assert callable(getattr(cqr, name))
        assert name in dir(cqr)
    assert issubclass(cqr.UserError, Exception)
    with pytest.raises(AttributeError, match="has no attribute 'search_all'"):
        _ = cqr.search_all


def test_the_three_lines_from_python(tmp_path, capfd):
    """Strings for paths throughout, and not a word printed."""
    rng = np.random.default_rng(0)
    names = [f"{i:02d}.png" for i in range(12)]
    (tmp_path / "photos").mkdir()
    for name in names:
        pixels = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / name)
    table = pd.DataFrame(
        {"reference": names, "text": "another one", "target": names[1:] + names[:1]}
    )
    table.to_csv("photos.csv", index=False)

    features = cqr.extract("photos", k=4, detector="grid", device="cpu", progress=False)
    assert (features.path, features.k, features.paths) == (Path("artifacts/photos.h5"), 4, names)
    again = cqr.open_features("artifacts/photos.h5")
    regions = again.regions("03.png")
    assert (regions.k, regions.count, regions.width, regions.height) == (4, 4, 64, 48)
    assert regions._repr_html_().count("<rect") == 4
    assert again.show("03.png").size[0] == 420
    with pytest.raises(cqr.UserError, match=r"x.png is not in artifacts/photos.h5: name a pict"):
        again.regions("x.png")

    assert api.next_of(features) == "cqr train --features artifacts/photos.h5"
    Path("photos.csv").rename("elsewhere.csv")
    alone = "cqr search --features artifacts/photos.h5 --image 00.png"
    assert api.next_of(features) == alone  # nothing to train on: it must not be a training
    Path("elsewhere.csv").rename("photos.csv")

    settings = {"epochs": 1, "validation": 0.0, "batch": 4}
    run = cqr.train("artifacts/photos.h5", options=TINY, progress=False, **settings)
    assert run == Run.load(str(run.path))
    assert run.settings.epochs == 1
    assert run.settings.options["width"] == 16

    evaluation = cqr.evaluate(str(run.path), progress=False, examples=0)
    written = json.loads((run.path / "evaluation/metrics.json").read_text())
    assert {str(k): value for k, value in evaluation.recall.items()} == written["recall"]
    assert len(evaluation.queries) == written["queries"]
    assert "R@10" in evaluation._repr_html_()
    assert capfd.readouterr() == ("", "")


def test_what_a_command_prints_is_what_the_function_prints(run, monkeypatch, capsys):
    monkeypatch.chdir(run.parents[2])
    cqr.evaluate(run, examples=0)
    called = capsys.readouterr().out
    assert called == command_line.cqr("evaluate", "--run", run, "--examples", 0).stdout


@pytest.fixture(scope="module")
def gallery(run):
    return cqr.open_gallery(str(run), device="cpu", progress=False)


def test_a_gallery_is_searched_by_a_path_a_file_a_picture_or_an_array(gallery):
    name = gallery.gallery.paths[0]
    file = gallery.file(0)
    text = "make top-left small red circle blue"
    asked = [name, str(file), file]
    found = [gallery.search(image, text, k=5) for image in asked]
    assert found[0].paths == found[1].paths == found[2].paths
    assert len(found[0]) == 5
    assert name not in found[0].paths
    assert found[0].scores == sorted(found[0].scores, reverse=True)
    assert [hit.path for hit in found[0]] == found[0].paths
    assert found[0][0].file.is_file()

    picture = Image.open(file)
    new = [gallery.search(one, text, k=5) for one in (picture, np.asarray(picture.convert("RGB")))]
    assert new[0].paths == new[1].paths
    assert name in gallery.search(picture, k=3).paths  # the picture itself is not left out


def test_a_search_says_what_each_word_looks_at(gallery):
    text = "make small circle blue"
    looked = gallery.search(gallery.gallery.paths[0], text).attended
    assert looked.words == text.split()
    assert looked.weights.sum(1) == pytest.approx(1, abs=1e-5)
    assert gallery.search(gallery.gallery.paths[0]).attended is None


def test_a_notebook_shows_pictures(gallery):
    answer = gallery.search(gallery.gallery.paths[0], "blue", k=3)
    assert answer._repr_html_().count("data:image/jpeg;base64,") == 3
    gone = answer[0]._replace(file=Path("gone.png"), path="<b>.png")
    assert "the picture" in gone._repr_html_()
    assert "&lt;b&gt;.png" in gone._repr_html_()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: cqr.extract("nowhere"), "nowhere does not exist; name a folder of pictures"),
        (lambda: cqr.open_features("a.h5"), "no feature file a.h5; make it with"),
        (lambda: cqr.train("a.h5", epoch=3), "epoch is no setting of a training"),
        (lambda: cqr.train("a.h5", device="abacus"), "the device abacus cannot be used"),
        (lambda: cqr.evaluate(), "there is no run in artifacts/runs yet"),
        (lambda: cqr.open_gallery("x"), "x is not a run"),
    ],
)
def test_what_a_user_can_cause_is_a_user_error(call, sentence):
    with pytest.raises(cqr.UserError, match=sentence):
        call()


def test_a_picture_of_the_wrong_kind_is_refused(gallery):
    with pytest.raises(cqr.UserError, match=r"H x W x 3 uint8, this is \(4, 4\) float64"):
        gallery.search(np.zeros((4, 4)), "blue")
    with pytest.raises(cqr.UserError, match="is neither a picture of"):
        gallery.search("nowhere.png", "blue")
