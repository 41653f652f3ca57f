"""Zero-shot composition: against plain numpy, as a run, and as every command takes it."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

import cqr
from cqr import api, cli
from cqr.errors import UserError
from cqr.search.at_once import run_for
from cqr.search.question import Question, WeightedText
from cqr.trainer.features import RegionBatch
from cqr.trainer.models import build
from cqr.trainer.text import tower
from cqr.trainer.text.joint import Joint
from cqr.trainer.text.vocabulary import WordBatch
from cqr.trainer.training import material, untrained
from cqr.trainer.training.runs import Run
from cqr.trainer.training.settings import Settings, settle

pytest.importorskip("transformers", reason="pip install 'cqr[text]'")
import joint_space
import tiny_backbones

E = joint_space.E


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_backbones.tiny_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def features(clip, tmp_path):
    return joint_space.write(Path("artifacts/photos.h5"), joint_space.described(clip))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def vectors(features):
    """N x E: the pictures' own, from the file."""
    blocks = cqr.open_features(features).blocks()
    return np.concatenate([rows.arrays["whole/features"] for rows in blocks]).astype(np.float64)


def texts_of(clip, texts):
    return tower.load(Joint.of({"joint": joint_space.described(clip)})).encode(texts).vector.numpy()


def images_and_texts(number=6, seed=0):
    rng = np.random.default_rng(seed)
    x, t = rng.normal(size=(2, number, E)).astype(np.float32) * 9
    batch = RegionBatch(
        torch.tensor(x)[:, None], torch.zeros(number, 1, 4), torch.ones(number, 1).bool()
    )
    words = WordBatch(torch.zeros(number, 1, 4), torch.ones(number, 1).bool(), torch.tensor(t))
    return x, t, batch, words


def model(compose="sum", scale=2.5, seed=1):
    made = build("zero-shot", {"compose": compose}, region_dim=E, text=None).eval()
    rng = np.random.default_rng(seed)
    made.mean_image[:] = torch.tensor(rng.normal(size=E) * 0.1)
    made.mean_text[:] = torch.tensor(rng.normal(size=E) * 0.1)
    made.scale.fill_(scale)
    return made, made.mean_image.numpy(), made.mean_text.numpy()


def test_a_query_is_the_centred_picture_and_the_scaled_centred_text():
    made, mean_image, mean_text = model()
    x, t, batch, words = images_and_texts()
    i, c = unit(unit(x) - mean_image), unit(unit(t) - mean_text)
    np.testing.assert_allclose(made.encode_image(batch), i, atol=1e-6)
    np.testing.assert_allclose(made.encode_text(words), c, atol=1e-6)
    np.testing.assert_allclose(made.encode_query(batch, words), unit(i + 2.5 * c), atol=1e-6)
    words.weight = torch.arange(1.0, 7.0)
    weights = np.arange(1, 7)[:, None]
    np.testing.assert_allclose(
        made.encode_query(batch, words), unit(i + 2.5 * weights * c), atol=1e-6
    )


def test_on_the_sphere_the_query_lies_between_picture_and_text_at_the_share_of_the_scale():
    made, mean_image, mean_text = model("slerp", scale=3)
    x, t, batch, words = images_and_texts()
    i, c = unit(unit(x) - mean_image), unit(unit(t) - mean_text)
    query = made.encode_query(batch, words).numpy()
    whole = np.arccos((i * c).sum(1))
    np.testing.assert_allclose(np.arccos((i * query).sum(1)), 0.75 * whole, atol=1e-4)
    np.testing.assert_allclose(np.arccos((c * query).sum(1)), 0.25 * whole, atol=1e-4)


def test_plain_sums_are_of_the_vectors_as_they_are():
    made, *_ = model("raw-sum", scale=1)
    x, t, batch, words = images_and_texts()
    np.testing.assert_allclose(made.encode_query(batch, words), unit(x + t), atol=1e-6)
    np.testing.assert_allclose(made.encode_image(batch), unit(x), atol=1e-6)


@pytest.mark.parametrize("compose", ["sum", "slerp", "raw-sum"])
def test_a_text_that_says_nothing_leaves_the_picture(compose):
    made, *_ = model(compose)
    _, _, batch, words = images_and_texts()
    words.vector[2] = 0
    query, image = made.encode_query(batch, words), made.encode_image(batch)
    torch.testing.assert_close(query[2], image[2])
    assert (query[[0, 1, 3]] - image[[0, 1, 3]]).norm(dim=1).min() > 0.1
    assert not made.encode_text(words)[2].any()


def test_a_product_is_refused_since_it_is_no_single_vector(features):
    with pytest.raises(UserError, match="not the score of one vector") as said:
        cqr.train(features, model="zero-shot", options={"compose": "product"}, progress=False)
    assert "\n" not in str(said.value)
    assert not Path("artifacts/runs").exists()


def spreads(i, c):
    """Of pictures and of phrases, by loops."""
    wide = [np.std([a @ b for b in np.delete(i, n, 0)]) for n, a in enumerate(i)]
    said = sorted((np.std([t @ a for a in i]) for t in c), reverse=True)
    return np.mean(wide), np.mean(said[: round(len(c) / 4)])


def test_a_run_is_made_from_the_features_alone(features, clip):
    run = cqr.train(features, model="zero-shot", progress=False)
    state = load_file(run.weights)
    assert state.keys() == {"mean_image", "mean_text", "scale"}
    x, t = unit(vectors(features)), unit(texts_of(clip, tower.phrases()).astype(np.float64))
    np.testing.assert_allclose(state["mean_image"], x.mean(0), atol=1e-5)
    np.testing.assert_allclose(state["mean_text"], t.mean(0), atol=1e-5)
    wide, said = spreads(unit(x - x.mean(0)), unit(t - t.mean(0)))
    assert state["scale"].item() == pytest.approx(wide / said, rel=1e-3)

    again = Run.load(run.path)
    assert again == run
    assert again.dataset == ""
    assert again.detector["joint"] == joint_space.described(clip)
    assert again.text_encoder.sha256["model.safetensors"] == joint_space.sha256(
        clip / "model.safetensors"
    )
    made = again.trained_model()
    assert torch.equal(made.mean_image, state["mean_image"])
    assert sum(p.numel() for p in made.parameters()) == 0
    assert again.settings.options == {"compose": "sum"}


def test_of_a_large_gallery_a_part_is_looked_at_the_same_each_time(features, monkeypatch, clip):
    monkeypatch.setattr(untrained, "SAMPLE", 10)
    one, two = (
        load_file(cqr.train(features, model="zero-shot", progress=False).weights) for _ in range(2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    some = unit(vectors(features)[np.linspace(0, 39, 10).round().astype(int)])
    np.testing.assert_allclose(one["mean_image"], some.mean(0), atol=1e-5)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_few_pictures_make_a_run_too(clip, number):
    file = joint_space.write(Path("few.h5"), joint_space.described(clip), number=number)
    run = cqr.train(file, model="zero-shot", progress=False)
    scale = load_file(run.weights)["scale"].item()
    assert np.isfinite(scale)
    assert scale == 1 or number == 3


def test_a_model_that_was_trained_with_sums_is_asked_by_sums(clip, tmp_path):
    named = tmp_path / "BGE-VL-base"
    shutil.copytree(clip, named)
    file = joint_space.write(Path("bge.h5"), joint_space.described(named))
    run = cqr.train(file, model="zero-shot", progress=False)
    assert run.settings.options == {"compose": "raw-sum"}
    state = load_file(run.weights)
    assert not state["mean_image"].any()
    assert state["scale"] == 1
    other = cqr.train(file, model="zero-shot", options={"compose": "sum"}, progress=False)
    assert load_file(other.weights)["mean_image"].any()


def test_features_that_are_not_finite_are_refused(clip):
    file = joint_space.write(Path("bad.h5"), joint_space.described(clip))
    shard = Path("bad.shards/00000.h5")
    import h5py

    with h5py.File(shard, "r+") as content:
        content["whole/features"][3] = np.nan
    with pytest.raises(UserError, match="not finite: check them with `cqr inspect"):
        cqr.train(file, model="zero-shot", progress=False)
    assert not list(Path("artifacts/runs").glob("*/run.json"))


def table(number=12):
    """A table of questions that share no picture; its file, and the questions."""
    rng = np.random.default_rng(0)
    a, b = rng.permutation(40)[: 2 * number].reshape(2, number)
    frame = pd.DataFrame(
        {
            "reference": [f"p{n:02d}.png" for n in a],
            "text": [f"make it {w}" for w in ("red", "blue", "larger") * (number // 3)],
            "target": [f"p{n:02d}.png" for n in b],
            "split": "test",
        }
    )
    there = {*frame["reference"], *frame["target"]}
    one, two = [f"p{n:02d}.png" for n in range(40) if f"p{n:02d}.png" not in there][:2]
    pair = pd.DataFrame(
        {"reference": [one], "text": ["make it red"], "target": [two], "split": ["train"]}
    )
    pd.concat([frame, pair]).to_csv("photos.csv", index=False)
    return Path("photos.csv"), frame


def test_evaluate_ranks_as_numpy_does(features, clip):
    run = cqr.train(features, model="zero-shot", progress=False)
    file, asked = table()
    found = cqr.evaluate(run, data=file, progress=False)
    state = {k: v.double().numpy() for k, v in load_file(run.weights).items()}
    i = unit(unit(vectors(features)) - state["mean_image"])
    c = unit(unit(texts_of(clip, asked["text"].tolist())) - state["mean_text"])
    gallery = material.collect(features, material.Wanted(file), split="scored").dataset
    places = [int(path[1:3]) for path in gallery.gallery("test")]
    ranks = []
    for reference, target, text in zip(asked["reference"], asked["target"], c, strict=True):
        query = i[int(reference[1:3])] + state["scale"] * text
        scores = {n: query @ i[n] for n in places if n != int(reference[1:3])}
        ranks.append(1 + sum(s > scores[int(target[1:3])] for s in scores.values()))
    assert found.queries["rank"].tolist() == ranks
    assert found.metrics["text_encoder"] == str(clip)
    assert (run.path / "evaluation-table" / "report.html").exists()


def test_a_data_set_without_training_pairs_is_scored(clip):
    root = Path("circo")
    images = [f"{n:012d}.jpg" for n in range(40)]
    info = {"info": {}, "images": [{"id": n, "file_name": f} for n, f in enumerate(images)]}
    asked = [
        {
            "reference_img_id": n,
            "target_img_id": n + 1,
            "gt_img_ids": [n + 1, n + 2],
            "relative_caption": "has two of them",
            "shared_concept": "a dog",
            "id": n,
            "semantic_aspects": ["cardinality"],
        }
        for n in range(0, 30, 5)
    ]
    for name, content in (
        ("annotations/val.json", asked),
        ("COCO2017_unlabeled/annotations/image_info_unlabeled2017.json", info),
    ):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(json.dumps(content))
    file = joint_space.write(
        Path("artifacts/circo.h5"),
        joint_space.described(clip),
        paths=images,
        root=(root / "COCO2017_unlabeled/unlabeled2017").resolve(),
    )
    run = cqr.train(file, model="zero-shot", progress=False)
    found = cqr.evaluate(run, data=root, progress=False)
    assert found.metrics["dataset"] == "circo"
    assert found.metrics["measures"]["mAP@5"] >= 0
    assert len(found.queries) == 6


def test_a_search_makes_run_and_index_and_says_so_once(features, clip):
    done = CliRunner().invoke(
        cli.app,
        ["search", "--features", str(features), "--image", "p03.png", "--text", "in red", "--json"],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert "Made artifacts/runs/photos-zero-shot-001, which is not trained" in done.stderr
    run = Run.load("artifacts/runs/photos-zero-shot-001")
    state = {k: v.double().numpy() for k, v in load_file(run.weights).items()}
    i = unit(unit(vectors(features)) - state["mean_image"])
    (c,) = unit(unit(texts_of(clip, ["in red"])) - state["mean_text"])
    scores = i @ unit(i[3] + state["scale"] * c)
    scores[3] = -np.inf
    assert said["hits"][0]["path"] == f"p{scores.argmax():02d}.png"
    assert said["hits"][0]["score"] == pytest.approx(scores.max(), abs=2e-3)

    done = CliRunner().invoke(
        cli.app, ["search", "--text", "in red", "--json"], catch_exceptions=False
    )
    alone = i @ c
    assert done.exit_code == 0, done.output
    assert "Made" not in done.stderr
    assert json.loads(done.stdout)["hits"][0]["path"] == f"p{alone.argmax():02d}.png"


def asked(engine, *texts, image=True, nots=(), **more):
    references = (engine.reference("p05.png"),) if image else ()
    return engine.ask(Question(references, tuple(texts), tuple(nots), keep_references=True, **more))


def test_weights_of_texts_are_within_the_composition(features, clip):
    engine = cqr.open_gallery(features=features, progress=False)
    state = {k: v.double().numpy() for k, v in load_file(engine.run.weights).items()}
    i = unit(unit(vectors(features)) - state["mean_image"])
    red, large, wood = unit(unit(texts_of(clip, ["red", "large", "of wood"])) - state["mean_text"])
    s = state["scale"]

    def expect(answer, vector):
        scores = np.sort(i @ unit(vector))[::-1][:10]
        np.testing.assert_allclose(answer.scores, scores, atol=2e-3)

    expect(asked(engine, WeightedText("red", 2)), i[5] + 2 * s * red)
    expect(
        asked(engine, WeightedText("red", 2), WeightedText("large")),
        unit(i[5] + 2 * s * red) + unit(i[5] + s * large),
    )
    expect(asked(engine), i[5])
    expect(
        asked(engine, WeightedText("red", 3), WeightedText("large"), image=False), 3 * red + large
    )
    expect(
        asked(engine, WeightedText("red"), nots=["of wood"]),
        unit(i[5] + s * red) - 0.5 * (unit(i[5] + s * wood) - i[5]),
    )
    expect(asked(engine, WeightedText("red"), image=False, nots=["of wood"]), red - 0.5 * wood)
    assert engine.search(text="red").paths == asked(engine, WeightedText("red"), image=False).paths


def test_a_question_of_nothing_is_refused(features):
    engine = cqr.open_gallery(features=features, progress=False)
    with pytest.raises(UserError, match="needs a picture"):
        engine.search()
    with pytest.raises(UserError, match="needs a picture"):
        engine.search(nots=["red"])


def test_the_run_of_the_features_is_taken_before_another(features, clip, monkeypatch):
    lines = []
    first = run_for(None, features, say=lines.append)
    assert len(lines) == 1
    other = joint_space.write(Path("artifacts/more.h5"), joint_space.described(clip), seed=5)
    second = run_for(None, other, say=lines.append)
    assert len(lines) == 2
    assert second.path.name == "more-zero-shot-001"
    assert run_for(None, features, say=lines.append) == first
    assert run_for(None, None, say=lines.append) == second  # the newest
    assert run_for(first.path, other, say=lines.append) == first
    assert len(lines) == 2


def test_without_any_run_the_newest_features_answer(features):
    lines = []
    assert run_for(None, None, say=lines.append).features == features.resolve()
    assert "pictures and texts" in lines[0]


def test_without_features_the_command_to_make_some_is_named():
    with pytest.raises(UserError, match="no feature file in artifacts: extract"):
        run_for(None, None)


def test_features_of_another_space_are_refused(features, clip, tmp_path):
    run = cqr.train(features, model="zero-shot", progress=False)
    stranger = tiny_backbones.tiny_clip(tmp_path / "stranger", seed=3)
    other = joint_space.write(Path("artifacts/other.h5"), joint_space.described(stranger))
    for refused in (
        lambda: cqr.open_gallery(run, features=other, progress=False),
        lambda: cqr.evaluate(run, features=other, data=table()[0], progress=False),
    ):
        with pytest.raises(UserError, match="another space of pictures than artifacts/other"):
            refused()


def test_a_tower_that_is_gone_is_said_and_one_that_was_moved_is_read(clip, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(clip, mine)
    file = joint_space.write(Path("artifacts/photos.h5"), joint_space.described(mine))
    run = cqr.train(file, model="zero-shot", progress=False)
    expected = cqr.open_gallery(run, progress=False).search(text="red").paths
    shutil.move(mine, tmp_path / "there")
    tower._load.cache_clear()
    with pytest.raises(UserError, match=r"not in .*mine any longer.*--text-encoder"):
        cqr.open_gallery(run, progress=False)
    moved = cqr.open_gallery(run, text_encoder=str(tmp_path / "there"), progress=False)
    assert moved.search(text="red").paths == expected
    stranger = tiny_backbones.tiny_clip(tmp_path / "stranger", seed=3)
    with pytest.raises(UserError, match=r"model.safetensors differs"):
        cqr.open_gallery(run, text_encoder=str(stranger), progress=False)
    again = cqr.train(file, model="zero-shot", text_encoder=str(tmp_path / "there"), progress=False)
    assert torch.equal(load_file(again.weights)["scale"], load_file(run.weights)["scale"])


def test_features_without_a_space_of_texts_are_found_by_likeness():
    file = joint_space.write(Path("artifacts/plain.h5"), None, dim=10)
    done = CliRunner().invoke(cli.app, ["index", "--features", str(file)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Made artifacts/runs/plain-likeness-001" in done.stderr
    assert done.stdout.endswith("Next: cqr search --image p00.png\n")
    x = unit(vectors(file))
    i = unit(x - x.mean(0))
    engine = cqr.open_gallery(progress=False)
    scores = i @ i[7]
    scores[7] = -np.inf
    assert engine.search("p07.png").paths[0] == f"p{scores.argmax():02d}.png"
    for ask in (
        lambda: engine.search("p07.png", "in red"),
        lambda: cqr.evaluate(data=table()[0], progress=False),
    ):
        with pytest.raises(UserError, match="shares no space with texts: leave the text out"):
            ask()
    with pytest.raises(UserError, match="answers no text alone"):
        engine.search(text="in red")


def test_zero_shot_of_features_without_a_space_of_texts_is_refused():
    file = joint_space.write(Path("artifacts/plain.h5"), None)
    with pytest.raises(UserError, match=r"plain.h5 shares no space with texts"):
        cqr.train(file, model="zero-shot", progress=False)


def test_settings_that_mean_nothing_to_it_are_refused():
    with pytest.raises(UserError, match="whole pictures"):
        settle({}, {"model": "zero-shot", "input": "regions"}, [])
    with pytest.raises(UserError, match="NAME of likeness: it has none"):
        settle({}, {"model": "likeness"}, ["compose=sum"])
    with pytest.raises(UserError, match="choose one of"):
        settle({}, {"model": "zero-shot"}, ["compose=mean"])
    with pytest.raises(UserError, match="learners"):
        Settings(model="zero-shot", input="whole", learners=2)


def test_a_run_knows_its_data_set_where_one_is_given(features):
    file, _ = table()
    run = cqr.train(features, data=file, model="zero-shot", progress=False)
    assert run.dataset == "table"
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        found = cqr.evaluate()
    assert found.metrics["run"] == run.path.name
    assert (run.path / "evaluation" / "metrics.json").exists()


def test_a_data_set_for_evaluation_alone_is_scored_by_the_lines_that_are_named(clip):
    """The walk over CIRCO, by the lines that the commands name."""
    paths = [f"{number:012d}.jpg" for number in range(1, 31)]
    root = Path("CIRCO/COCO2017_unlabeled/unlabeled2017")
    root.mkdir(parents=True)
    entry = {"reference_img_id": 1, "relative_caption": "is red", "shared_concept": "a ball"}
    entries = {
        "val": [
            {**entry, "id": i, "target_img_id": i + 2, "gt_img_ids": [i + 2]} for i in range(9)
        ],
        "test": [{**entry, "id": 9}],
    }
    Path("CIRCO/annotations").mkdir()
    for split, content in entries.items():
        Path(f"CIRCO/annotations/{split}.json").write_text(json.dumps(content))
    joint = joint_space.described(clip)
    file = joint_space.write(Path("artifacts/circo.h5"), joint, root=root.resolve(), paths=paths)
    following = api.next_of(cqr.open_features(file))
    assert following == "cqr train --features artifacts/circo.h5 --model zero-shot"
    for line in (following, "cqr evaluate"):
        done = CliRunner().invoke(cli.app, line.split()[1:], catch_exceptions=False)
        assert done.exit_code == 0, done.output
    metrics = json.loads(next(Path("artifacts/runs").rglob("metrics.json")).read_text())
    assert (metrics["dataset"], metrics["queries"]) == ("circo", 9)


def test_without_texts_a_data_set_without_training_pairs_is_searched():
    root = Path("CIRCO/unlabeled2017")
    root.mkdir(parents=True)
    Path("CIRCO/annotations").mkdir()
    Path("CIRCO/annotations/val.json").write_text('[{"reference_img_id": 1}]')
    file = joint_space.write(Path("artifacts/circo.h5"), None, root=root.resolve())
    assert api.next_of(cqr.open_features(file)).startswith("cqr search --features artifacts/circo")
