"""Asking: `cqr index` and `cqr search` as typed, new pictures, and the evaluator's ranking."""

import fcntl
import io
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from command_line import cqr
from cqr import cli
from cqr.errors import UserError
from cqr.pipeline.detectors import DetectorSpec
from cqr.pipeline.extract import Job, extract
from cqr.search import console
from cqr.search.engine import Engine
from cqr.search.pictures import NewPictures, detector
from cqr.search.question import Question, WeightedText
from cqr.trainer.datasets.queries import tasks
from cqr.trainer.ranking.encode import encode
from cqr.trainer.training.material import Wanted, collect, collect_for
from cqr.trainer.training.settings import settle
from cqr.trainer.training.start import start
from cqr.trainer.training.train import train

CPU = torch.device("cpu")
SMALL = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=24"]


def process(*words):
    return subprocess.run(
        [sys.executable, "-m", "cqr.cli", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        timeout=120,
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with pictures in two folders, their features, a run and an index; never changed."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    for i in range(12):
        place = folder / "photos" / ("a" if i < 8 else "b")
        place.mkdir(parents=True, exist_ok=True)
        blocks = rng.integers(0, 255, (5, 7, 3), dtype=np.uint8)
        picture = Image.fromarray(blocks).resize((112, 84), Image.Resampling.NEAREST)
        picture.save(place / f"{i % 8}.png")
    lines = [f"a/{i}.png,make it {('red', 'blue')[i % 2]},a/{(i + 3) % 8}.png\n" for i in range(8)]
    (folder / "photos.csv").write_text("reference,text,target\n" + "".join(lines))
    before = Path.cwd()
    os.chdir(folder)
    try:
        spec = DetectorSpec("bundled", device="cpu")
        out = Path("artifacts/photos.h5")
        extract(Job(Path("photos"), out, k=4, detector=spec, workers=1))
        material = collect(out.resolve())
        run = start(material, settle({}, {"epochs": 1, "batch": 4, "k": 3}, SMALL), None)
        train(run, material, device="cpu")
        assert CliRunner().invoke(cli.app, ["index", "--device", "cpu"]).exit_code == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made)
    return made


@pytest.fixture
def engine(here):
    return Engine.open(device="cpu")


def asked(engine, *names, texts=("make it red",), **more):
    references = tuple(map(engine.named, names))
    question = Question(references, tuple(map(WeightedText, texts)), **more)
    return engine.ask(question).hits


def test_the_commands_as_typed(here):
    done = process("index", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "artifacts/runs/photos-lbf-001/index: 12 vectors of 24, exact index",
        "Encoded 0 pictures, kept 12, dropped 0",
        'Next: cqr search --image a/0.png --text "make it red"',  # the table's, of that picture
    ]
    done = process("search", "--image", "a/0.png", "--text", "make it red", "--k", 3)
    assert done.returncode == 0, done.stderr
    ranked = re.findall(r"│ +(\d+) │ (-?\d\.\d{4}) │ ([ab]/\d\.png) +│", done.stdout)
    assert [rank for rank, _, _ in ranked] == ["1", "2", "3"]
    done = cqr(
        *("search", "--image", "photos/a/0.png", "--text", "2:make it red", "--text", "blue"),
        *("--not", "large", "--k", 3, "--json", "--keep-reference"),
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["texts"] == [
        {"text": "make it red", "weight": 2.0},
        {"text": "blue", "weight": 1.0},
    ]
    assert said["not"] == ["large"]
    assert [hit["rank"] for hit in said["hits"]] == [1, 2, 3]
    assert all(Path(hit["file"]).is_file() for hit in said["hits"])
    assert said["seconds"].keys() == {"encode", "search"}


def test_a_terminal_of_true_colours_shows_the_pictures(engine, monkeypatch):
    """Each pixel of a thumbnail is the colour of a half character."""
    answer = engine.ask(Question((engine.named("a/0.png"),), k=2))
    shown = {}
    for colors in ("truecolor", "standard"):
        out = io.StringIO()
        terminal = Console(file=out, force_terminal=True, color_system=colors, width=100)
        monkeypatch.setattr(console, "results", terminal)
        console.print_answer(answer, engine)
        shown[colors] = out.getvalue()
    colors = re.findall(r"38;2;(\d+);(\d+);(\d+)", shown["truecolor"])
    assert len(colors) >= 2 * console.THUMB
    for hit in answer.hits:
        with Image.open(engine.file(hit.row)) as picture:
            assert tuple(map(str, picture.getpixel((2, 2)))) in colors
    assert "38;2" not in shown["standard"]


def test_with_no_color_no_pictures_are_drawn(engine, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, color_system="truecolor", width=100)
    monkeypatch.setattr(console, "results", terminal)
    console.print_answer(engine.ask(Question((engine.named("a/0.png"),), k=2)), engine)
    assert "▄" not in out.getvalue()
    assert "38;2" not in out.getvalue()
    assert "picture" in out.getvalue()


def test_what_was_not_understood_is_said_before_the_results(here):
    done = cqr("search", "--image", "a/0.png", "--text", "make zebra red", "--k", 1, "--json")
    said = json.loads(done.stdout)
    assert said["notes"] == ["zebra: not known to this model"]
    assert said["understood"] == [{"text": "make zebra red", "unknown": ["zebra"], "cut": ""}]
    assert said["new_pictures"] == []
    Image.new("RGB", (1, 1)).save("one.gif")
    done = cqr("search", "--image", "one.gif", "--text", "zebra", "--k", 1)
    notes = done.stderr.splitlines()
    assert notes[0] == "zebra: not known to this model"
    assert notes[1].startswith("No word of this question is known to this model")
    assert re.fullmatch(r"one.gif: \d+ objects? found", notes[2])
    Path("one.gif").unlink()


def test_a_picture_that_cannot_be_shown_says_why(engine, monkeypatch):
    answer = engine.ask(Question((engine.named("a/0.png"),), k=2))
    out = io.StringIO()
    terminal = Console(file=out, force_terminal=True, color_system="truecolor", width=100)
    monkeypatch.setattr(console, "results", terminal)
    monkeypatch.setattr(Engine, "file", lambda *_: Path("gone.png"))
    console.print_answer(answer, engine)
    assert out.getvalue().count("cannot be opened") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--image", "x.png"), "x.png is neither a picture of .* nor a file"),
        (("--image", "photos.csv"), "photos.csv is not a picture of a known format"),
        (("--image", "a/0.png", "--text", "0:red"), "the weight must be above 0"),
        (("--image", "a/0.png", "--k", "0"), "--k 0 is not between 1 and 10,000"),
        (("--image", "a/0.png", "--where", "x == 1"), "there is no column 'x'"),
        (("--image", "a/0.png", "--index", "near"), "--index near is not exact, hnsw or milvus"),
        (("--image", "3.png"), "2 pictures are called 3.png, among them a/3.png and b/3.png"),
        (("--image", "a/0.png", "--features", "x.h5"), "no feature file x.h5"),
    ],
)
def test_what_a_user_can_cause_is_one_sentence(here, words, sentence):
    done = CliRunner().invoke(cli.app, ["search", *words, "--device", "cpu"])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert re.match(f"Error: .*{sentence}", done.stderr), done.stderr
    assert done.stderr.count("\n") == 1


def test_a_run_that_was_not_indexed_is_by_the_way(here, tmp_path):
    run = shutil.copytree("artifacts/runs/photos-lbf-001", tmp_path / "run")
    shutil.rmtree(run / "index")
    typed = ["search", "--run", str(run), "--image", "a/0.png", "--json", "--device", "cpu"]
    done = CliRunner().invoke(cli.app, typed)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["hits"]
    assert (run / "index" / "gallery.safetensors").exists()


def test_without_an_index_it_says_so(here, tmp_path):
    run = shutil.copytree("artifacts/runs/photos-lbf-001", tmp_path / "run")
    shutil.rmtree(run / "index")
    with pytest.raises(UserError, match=r"there is no index in .* yet: build it with `cqr index`"):
        Engine.open(run, device="cpu")


def test_two_at_once_are_refused(made, tmp_path, monkeypatch):
    monkeypatch.chdir(shutil.copytree(made, tmp_path / "made"))
    [run] = Path("artifacts/runs").iterdir()
    with (run / "index/.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = cqr("index", "--device", "cpu")
    assert done.returncode == 1
    sentence = f"Error: another cqr is indexing into {run}/index; wait for it"
    assert done.stderr.splitlines()[-1] == sentence


def test_an_index_of_other_weights_is_refused(here, tmp_path):
    run = shutil.copytree("artifacts/runs/photos-lbf-001", tmp_path / "run")
    with (run / "weights.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\1")
    with pytest.raises(UserError, match=r"out of date \(the run has other weights\): run"):
        Engine.open(run, device="cpu")


def test_the_reference_is_left_out_unless_it_is_to_be_kept(engine):
    everything = {f"a/{i}.png" for i in range(8)} | {f"b/{i}.png" for i in range(4)}
    assert {hit.path for hit in asked(engine, "a/0.png", k=50)} == everything - {"a/0.png"}
    two = asked(engine, "a/0.png", "b/1.png", k=50)
    assert {hit.path for hit in two} == everything - {"a/0.png", "b/1.png"}
    kept = asked(engine, "a/0.png", k=50, keep_references=True)
    assert {hit.path for hit in kept} == everything
    assert [hit.score for hit in kept] == sorted((hit.score for hit in kept), reverse=True)
    alike = asked(engine, "a/0.png", texts=(), keep_references=True)
    assert alike[0].path == "a/0.png"
    assert alike[0].score == pytest.approx(1, abs=1e-3)


def test_a_picture_of_the_gallery_is_known_by_any_of_its_names(engine, here, tmp_path):
    row = engine.gallery.rows["a/5.png"]
    names = ["a/5.png", "photos/a/5.png", str(here / "photos/a/5.png"), "photos/b/../a/5.png"]
    for name in [*names, "5.png"]:
        assert engine.named(name).row == row
        assert engine.reference(name).name == "a/5.png"
    assert engine.file(row) == here / "photos/a/5.png"
    assert engine.size(row) == (112, 84)
    with pytest.raises(UserError, match=r"is no picture of .*index: name one as a/0.png"):
        engine.reference("../photos.csv")


def test_a_new_picture_has_the_regions_that_an_extraction_would_have_given_it(engine, here):
    stored = engine.reference("a/5.png")
    file = here / "photos/a/5.png"
    pixels = np.asarray(Image.open(file))
    for picture in (file, file.read_bytes(), pixels):
        new = engine.picture(picture)
        assert new.row is None
        count = new.regions.mask.sum()
        assert stored.regions.mask.sum() == count
        for part in ("features", "boxes", "mask"):
            ours, theirs = (getattr(r.regions, part)[:, :count] for r in (new, stored))
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert set(new.seconds) == {"decode", "load", "detect"}
    question = Question((new,), (WeightedText("make it red"),), k=12)
    answer = engine.ask(question)
    assert "a/5.png" in [hit.path for hit in answer.hits]  # a copy is no reference
    assert set(answer.seconds) == {"decode", "load", "detect", "encode", "search"}
    apart = asked(engine, "a/5.png", k=12, keep_references=True)
    assert [hit.path for hit in answer.hits] == [hit.path for hit in apart]
    with pytest.raises(UserError, match="the picture is not a picture of a known format"):
        engine.picture(b"no picture")


def test_a_whole_image_is_one_region_of_a_new_picture_too(engine, here):
    whole = engine.reader.seen_as("whole")
    stored = whole.gather(whole.rows(["a/5.png"]))
    new = NewPictures(whole, None, "cpu").reference(here / "photos/a/5.png", "it")
    for part in ("features", "boxes", "mask"):
        ours, theirs = getattr(new.regions, part), getattr(stored, part)
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def file_with(engine, **identity):
    file = engine.reader.file
    return replace(file, header=replace(file.header, detector={**file.detector, **identity}))


def test_another_detector_than_the_one_that_made_the_features_is_refused(engine):
    with pytest.raises(UserError, match=r"not the one that is here \(weights was 0000000000000000"):
        detector(file_with(engine, weights="0" * 64), device="cpu")
    with pytest.raises(UserError, match=r"\(version was 0.1, is .*\): bring that one back"):
        detector(file_with(engine, version="0.1"), device="cpu")
    with pytest.raises(UserError, match=r"were made elsewhere \(import\): start from a picture"):
        detector(file_with(engine, name="import"), device="cpu")
    with pytest.raises(UserError, match=r"needs the detector that made .*: .*x.pth does not exist"):
        detector(engine.reader.file, Path("x.pth"), device="cpu")


def test_the_weights_that_the_extraction_was_given_are_taken_again(engine):
    file = engine.reader.file
    command = f"{file.header.command} --weights '/no/where/my weights.pth'"
    moved = replace(file, header=replace(file.header, command=command))
    with pytest.raises(
        UserError, match=r"the weights file /no/where/my weights.pth does not exist"
    ):
        detector(moved, device="cpu")


def test_a_search_ranks_as_the_evaluator_does(drawn_scenes):
    """On the same queries, of vectors that are the evaluator's but for their rounding."""
    features = drawn_scenes(references=12, modifications=5)
    material = collect(features)
    for path in material.reader.paths:
        file = Path(material.reader.file.image_root, path)
        file.parent.mkdir(exist_ok=True)
        file.touch()
    run = start(material, settle({}, {"epochs": 2, "batch": 16}, SMALL), None)
    train(run, material, device="cpu")
    assert CliRunner().invoke(cli.app, ["index", "--device", "cpu"]).exit_code == 0
    engine = Engine.open(device="cpu")
    scored = collect_for(run, None, Wanted(), split="scored", max_missing=0.01)
    (work,) = tasks(scored.dataset, "test")
    vectors = encode(run.trained_model(), scored.reader, run.words(), work, CPU)
    stored = engine.gallery.vectors[[engine.gallery.rows[path] for path in work.gallery]]
    np.testing.assert_allclose(stored, vectors.gallery, atol=5e-4)
    ranked = replace(vectors, gallery=torch.from_numpy(stored.astype(np.float32))).rank(work)
    only = set(work.gallery)
    for number, query in enumerate(work.queries.itertuples()):
        hits = asked(engine, query.reference, texts=(query.text,), k=len(engine.gallery))
        found = [hit for hit in hits if hit.path in only][:50]
        scores = [hit.score for hit in found]
        np.testing.assert_allclose(scores, ranked.scores[number], atol=1e-5)
        there = {work.gallery[i]: s for i, s in zip(ranked.top[number], scores, strict=True)}
        last = scores[-1]  # of those that rounding may put to either side of the fiftieth
        own = [there.get(hit.path, last) for hit in found]
        np.testing.assert_allclose(own, scores, atol=2e-5)


def test_several_threads_may_ask_at_once(engine):
    expected = asked(engine, "a/0.png")
    wrong = []

    def ask():
        for _ in range(5):
            engine.picture(engine.file(3))
            if asked(engine, "a/0.png") != expected:
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_words_over_the_regions_of_a_new_picture(engine, here):
    found = engine.attended(engine.picture(here / "photos/a/1.png"), "make it red")
    assert engine.attends
    assert found.words == ["make", "it", "red"]
    assert found.weights.shape == (3, len(found.boxes))
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-4)
