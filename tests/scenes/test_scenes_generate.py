"""The folder on disk: the same for any number of workers, never half done without saying so."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from command_line import cqr
from cqr.errors import UserError
from cqr.scenes import generate as generation
from cqr.scenes import protocol, render
from cqr.scenes.generate import Settings, generate

TINY = Settings(seed=4, references=3, modifications=4)


@pytest.fixture(scope="module", autouse=True)
def _opengl():
    try:
        render.Renderer().close()
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "tiny"
    assert generate(out, TINY).fresh
    return out


def content(folder: Path):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_folder_holds_what_the_format_says(folder):
    manifest = json.loads((folder / "scenes.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("cqr-scenes", 1)
    assert (manifest["seed"], manifest["references"], manifest["modifications"]) == (4, 3, 4)
    assert manifest["image_size"] == [224, 168]
    assert manifest["splits"] == {s: {"images": 15, "queries": 12} for s in ("train", "test")}
    expected = {"scenes.json", "train.json", "test.json"}
    for split in ("train", "test"):
        assert {tuple(p) for p in manifest["pairs"][split]} == set(protocol.pairs(split))
        table = json.loads((folder / f"{split}.json").read_text())
        assert (len(table["images"]), len(table["queries"])) == (15, 12)
        made = protocol.make_split(split, 3, 4, seed=4)
        for number, (image, scene) in enumerate(zip(table["images"], made.scenes, strict=True)):
            assert image["file"] == f"images/css_{split}_{number:06d}.png"
            assert image["drawing"] == f"drawings/css_{split}_{number:06d}.png"
            expected |= {image["file"], image["drawing"]}
            assert image["caption"] == protocol.caption(scene)
            for file, box, size in (
                ("file", "box", (224, 168)),
                ("file", "visible_box", (224, 168)),
                ("drawing", "drawing_box", (64, 64)),
            ):
                assert Image.open(folder / image[file]).size == size
                boxes = np.array([one[box] for one in image["objects"]]).reshape(-1, 4)
                assert (boxes[:, :2] >= 0).all()
                assert (boxes[:, :2] < boxes[:, 2:]).all()
                assert (boxes[:, 2:] <= size).all()
            words = [
                " ".join(o[w] for w in ("cell", "size", "color", "shape")) for o in image["objects"]
            ]
            assert image["caption"] == ("; ".join(words) or "empty")
            assert all(0 < one["visible"] <= 1 for one in image["objects"])
        for query, intended in zip(table["queries"], made.queries, strict=True):
            assert query == vars(intended)
    assert set(content(folder)) == expected


def test_each_target_is_a_new_picture(folder):
    pictures = [path.read_bytes() for path in (folder / "images").iterdir()]
    assert len(set(pictures)) == len(pictures)


def test_two_workers_write_the_same_bytes(folder, tmp_path):
    counts = []
    generate(tmp_path / "two", TINY, workers=2, progress=lambda *done: counts.append(done))
    assert content(tmp_path / "two") == content(folder)
    assert counts == [(done, 30) for done in range(31)]


def test_a_finished_folder_is_left_alone(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert not generate(folder, TINY).fresh
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_other_settings_are_refused_and_replace_with_overwrite(tmp_path):
    out = tmp_path / "scenes"
    generate(out, Settings(0, 2, 2))
    before = content(out)
    other = Settings(0, 1, 1, drawings=False)
    with pytest.raises(UserError, match=r"references 2.*--overwrite"):
        generate(out, other)
    assert content(out) == before
    (out / "mine.txt").write_text("kept")
    generate(out, other, overwrite=True)
    assert (out / "mine.txt").read_text() == "kept"
    pictures = {f"images/css_{s}_{n:06d}.png" for s in ("train", "test") for n in range(2)}
    tables = {"scenes.json", "train.json", "test.json", "mine.txt"}
    assert set(content(out)) == pictures | tables
    assert json.loads((out / "train.json").read_text())["images"][0]["drawing"] is None


def test_a_smaller_test_split_leaves_training_as_it_is(tmp_path, folder):
    out = tmp_path / "fewer"
    settings = Settings(4, 3, 4, drawings=False, pictures=False, test_references=2)
    splits = generate(out, settings).manifest["splits"]
    assert splits["train"] == {"images": 15, "queries": 12}
    assert splits["test"] == {"images": 10, "queries": 8}
    queries = {
        where: json.loads((where / "train.json").read_text())["queries"] for where in (out, folder)
    }
    assert queries[out] == queries[folder]
    assert not generate(out, settings).fresh
    with pytest.raises(UserError, match=r"test_references 2.*--overwrite"):
        generate(out, Settings(4, 3, 4, drawings=False, pictures=False))


@pytest.mark.parametrize("layout", ["grid", "crowd"])
def test_more_texts_of_training_come_beside_what_there_was(tmp_path, layout):
    tables = {}
    for texts in (1, 4):
        out = tmp_path / str(texts)
        settings = Settings(
            4, 3, 5, drawings=False, pictures=False, layout=layout, test_references=1, texts=texts
        )
        assert generate(out, settings).manifest.get("texts", 1) == texts
        tables[texts] = json.loads((out / "train.json").read_text())
    one, four = (tables[texts]["queries"] for texts in (1, 4))
    assert one == four[::4]
    assert tables[1]["images"] == tables[4]["images"]
    assert (tmp_path / "1" / "test.json").read_bytes() == (
        tmp_path / "4" / "test.json"
    ).read_bytes()
    said = ("text", "by", "phrase")
    for i, query in enumerate(four):
        assert {k: v for k, v in query.items() if k not in said} == {
            k: v for k, v in one[i // 4].items() if k not in said
        }
    assert len({query["text"] for query in four}) > 2 * len(one)
    with pytest.raises(UserError, match=r"texts 4.*--overwrite"):
        generate(tmp_path / "4", Settings(4, 3, 5, drawings=False, pictures=False, layout=layout))


def test_tables_without_pictures_say_the_same(tmp_path, folder):
    out = tmp_path / "tables"
    generate(out, Settings(4, 3, 4, drawings=False, pictures=False))
    assert set(content(out)) == {"scenes.json", "train.json", "test.json"}
    for split in ("train", "test"):
        ours, theirs = (json.loads((f / f"{split}.json").read_text()) for f in (out, folder))
        assert ours["queries"] == theirs["queries"]
        for image, drawn in zip(ours["images"], theirs["images"], strict=True):
            assert image["caption"] == drawn["caption"]
            assert [o["box"] for o in image["objects"]] == [o["box"] for o in drawn["objects"]]
            assert all(one["visible"] is None for one in image["objects"])
    assert not generate(out, Settings(4, 3, 4, drawings=False, pictures=False)).fresh
    with pytest.raises(UserError, match="--no-drawings"):
        Settings(pictures=False)


def test_other_pairs_are_another_setting(tmp_path):
    out = tmp_path / "scenes"
    generate(out, Settings(0, 1, 1, drawings=False, pictures=False, held_out=1))
    manifest = json.loads((out / "scenes.json").read_text())
    assert manifest["held_out"] == 1
    assert {tuple(p) for p in manifest["pairs"]["train"]} == set(protocol.pairs("train", 1))
    with pytest.raises(UserError, match=r"held_out 1.*--overwrite"):
        generate(out, Settings(0, 1, 1, drawings=False, pictures=False))
    with pytest.raises(UserError, match="--held-out 3"):
        Settings(held_out=3)


def test_files_that_are_not_scenes_are_refused(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"not generated scenes.*--overwrite"):
        generate(tmp_path, TINY)
    assert os.listdir(tmp_path) == ["photo.jpg"]


def test_a_missing_picture_is_made_again(tmp_path):
    out, small = tmp_path / "scenes", Settings(0, 1, 1)
    generate(out, small)
    before = content(out)
    (out / "drawings" / "css_test_000001.png").unlink()
    assert generate(out, small).fresh
    assert content(out) == before


def test_an_interrupted_run_is_finished_by_the_same_call(tmp_path, folder):
    class Enough(Exception):
        pass

    def stop(done, total):
        if done == 7:
            raise Enough

    with pytest.raises(Enough):
        generate(tmp_path / "out", TINY, progress=stop)
    assert not (tmp_path / "out" / "scenes.json").exists()
    with pytest.raises(UserError, match="--overwrite"):
        generate(tmp_path / "out", Settings(5, 3, 4))
    assert generate(tmp_path / "out", TINY).fresh
    assert content(tmp_path / "out") == content(folder)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        generate(tmp_path / "file", TINY)
    with pytest.raises(UserError, match="--out"):
        generate(tmp_path / "file" / "below", TINY)


def test_no_opengl_touches_nothing(tmp_path, monkeypatch):
    def refuse(*_):
        raise UserError("no OpenGL")

    monkeypatch.setattr(generation, "_renderer", refuse)
    with pytest.raises(UserError, match="no OpenGL"):
        generate(tmp_path / "out", TINY)
    assert not (tmp_path / "out").exists()


def command(*arguments):
    return [sys.executable, "-m", "cqr.cli", "scenes", *map(str, arguments)]


def test_the_command_says_what_it_made_and_what_comes_next(tmp_path):
    out = tmp_path / "my scenes"
    line = command("--out", out, "--references", 2, "--modifications", 1, "--workers", 1)
    first = subprocess.run(line, capture_output=True, text=True, check=True)
    assert first.stdout.splitlines() == [
        f"{out} is complete",
        "  train: 4 pictures, 2 queries",
        "  test: 4 pictures, 2 queries",
        "The texts call a cube rectangle, a sphere circle and a cylinder triangle",
        f"Next: cqr extract --images '{out}' --k 36",
    ]
    again = cqr(*line[3:])
    assert again.stdout.startswith(f"{out} is complete already")
    refused = cqr(*line[3:], "--seed", "1")
    assert refused.returncode == 1
    assert refused.stderr.strip().startswith("Error: ")
    assert "--overwrite" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_workers_end_with_their_parent(tmp_path):
    line = command("--out", tmp_path / "out", "--workers", 2)
    parent = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    pictures = tmp_path / "out" / "images"
    while not (pictures.is_dir() and any(pictures.iterdir())):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    count = -1
    while count != (count := len(os.listdir(pictures))):  # comes to rest long before the 34,000th
        time.sleep(0.5)
    assert count < 10_000
