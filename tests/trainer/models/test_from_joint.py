"""Learning from zero-shot: its form, its start, which is never lost, and what evaluate says."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import cqr
from cqr.errors import UserError
from cqr.search.pictures import region_batch
from cqr.trainer.features import RegionBatch, RegionReader
from cqr.trainer.models import build
from cqr.trainer.models.from_joint import FromJoint
from cqr.trainer.models.zero_shot import ZeroShot
from cqr.trainer.text.vocabulary import TextSpec, WordBatch
from cqr.trainer.training.settings import Settings
from cqr.trainer.training.steps import resident

pytest.importorskip("transformers", reason="pip install 'cqr[text]'")
import around_models
import joint_space
import tiny_backbones

E = joint_space.E
COLOURS = ("red", "blue", "green", "black")
SHAPES = ("ball", "box", "cone", "ring", "star")
SMALL = ["width=16", "heads=2", "vep_depth=1", "tep_depth=1", "fusion_depth=1", "embed_dim=16"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_backbones.tiny_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture
def photos(clip):
    """Features of 80 pictures of four colours and five shapes, and a table of questions."""
    rng = np.random.default_rng(0)
    looks = [(c, s) for c in COLOURS for s in SHAPES for _ in range(4)]
    codes = {name: 2 * rng.normal(size=E) for name in (*COLOURS, *SHAPES)}
    whole = np.stack([4 + codes[c] + codes[s] + rng.normal(size=E) for c, s in looks])
    paths = [f"{c}-{s}-{i:02d}.png" for i, (c, s) in enumerate(looks)]
    rows = []
    for path, (colour, shape) in zip(paths, looks, strict=True):
        for new in COLOURS:
            there = [p for p, look in zip(paths, looks, strict=True) if look == (new, shape)]
            if new != colour:
                rows.append((path, f"make it {new}", str(rng.choice(there))))
    frame = pd.DataFrame(rows, columns=["reference", "text", "target"])
    frame["split"] = np.where(frame["reference"].str[-5].isin(["0", "5"]), "test", "train")
    Path("artifacts").mkdir()
    frame.to_csv("artifacts/photos.queries.csv", index=False)
    joint = joint_space.described(clip)
    return joint_space.write(Path("artifacts/photos.h5"), joint, paths=paths, whole=whole)


def trained(features, **settings):
    given = {"start": "joint", "epochs": 2, "batch": 16, "warmup": 5, "validation": 0.2} | settings
    options = {"lbf": SMALL, "tirg": ["embed_dim=16"]}.get(given.get("model", "lbf"), [])
    return cqr.train(features, options=options, progress=False, device="cpu", **given)


# --- the form ------------------------------------------------------------------------------------


def wrapped(name="lbf", seed=0):
    torch.manual_seed(seed)
    options = around_models.SMALL_LBF if name == "lbf" else {}
    inner = build(
        name, {**options, "embed_dim": 32}, region_dim=E, text=TextSpec(max_words=8, dim=6)
    )
    start = ZeroShot(region_dim=E)
    start.mean_image += 0.1 * torch.randn(E)
    start.mean_text += 0.1 * torch.randn(E)
    start.scale.fill_(2.5)
    return FromJoint(inner, embed_dim=32, start=start).eval()


def asked(number=5, k=3):
    torch.manual_seed(1)
    regions = RegionBatch(
        torch.randn(number, k, E), torch.rand(number, k, 4), torch.ones(number, k).bool(),
        torch.randn(number, E),
    )  # fmt: skip
    return regions, WordBatch(
        torch.randn(number, 4, 6), torch.ones(number, 4).bool(), torch.randn(number, E)
    )


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("name", ["lbf", "tirg", "compose-ae"])
def test_at_first_it_is_zero_shot_and_then_a_correction_of_it(name):
    made, (regions, words) = wrapped(name), asked()
    z, i = made.start.encode_query(regions, words), made.start.encode_image(regions)
    torch.testing.assert_close(made.encode_query(regions, words), z)
    torch.testing.assert_close(made.encode_image(regions), i)
    with torch.no_grad():
        for layer in (made.to_query, made.to_image):
            layer.weight.normal_()
        d, seen = made.model.encode_query(regions, words), made.model.encode_image(regions)
        query, image, extra = made(regions, words, regions)
    array = around_models.array
    expected = unit(array(z) + array(d) @ array(made.to_query.weight).T)
    np.testing.assert_allclose(array(made.encode_query(regions, words)), expected, atol=1e-5)
    found = unit(array(i) + array(seen) @ array(made.to_image.weight).T)
    np.testing.assert_allclose(array(made.encode_image(regions)), found, atol=1e-5)
    scale = made.model.scale.item()
    assert scale**2 == pytest.approx(1 / 0.07)
    np.testing.assert_allclose(array(query), scale * expected, atol=1e-4)
    np.testing.assert_allclose(array(image), scale * found, atol=1e-4)
    assert bool(extra) == (name == "compose-ae")
    torch.testing.assert_close(made.encode_text(words), made.start.encode_text(words))


def test_the_start_is_not_trained_and_the_rest_is():
    made, (regions, words) = wrapped(), asked()
    assert not [name for name, _ in made.named_parameters() if name.startswith("start.")]
    at_first = around_models.in_training(made, regions, words, regions)
    assert {"to_query.weight", "to_image.weight"}.isdisjoint(at_first)
    with torch.no_grad():
        made.to_query.weight.normal_()
        made.to_image.weight.normal_()
    made.zero_grad()
    assert not around_models.in_training(made, regions, words, regions)


def test_regions_come_with_the_whole_where_both_are_asked_for(photos):
    plain = RegionReader(photos)
    both, whole = plain.seen_as("regions", 2, whole=True), plain.seen_as("whole", whole=True)
    rows = np.array([3, 70, 12])
    batch = both.gather(rows)
    assert batch.features.shape == (3, 2, E)
    torch.testing.assert_close(batch.own, whole.gather(rows).features[:, 0])
    assert plain.gather(rows).whole is None
    assert whole.gather(rows).whole is None
    new = region_batch(plain.file.regions(plain.paths[70]), both)
    torch.testing.assert_close(new.own[0], batch.own[1])
    torch.testing.assert_close(new.features[0], batch.features[1])


# --- a training ----------------------------------------------------------------------------------


def test_the_start_is_scored_first_and_measured_on_the_features(photos):
    run = trained(photos)
    log = run.history()
    assert [line["epoch"] for line in log] == [0, 1, 2]
    assert "loss" not in log[0]
    start = cqr.train(photos, model="zero-shot", progress=False)
    weights, measured = load_file(run.weights), load_file(start.weights)
    for name, value in measured.items():
        assert torch.equal(weights[f"start.{name}"], value)
    assert run.text_encoder == start.text_encoder
    assert run.vocabulary is None


def test_it_learns_more_than_its_start_and_evaluate_says_by_how_much(photos, capsys):
    run = trained(photos, epochs=12, lr=5e-3)
    found = cqr.evaluate(run)
    said = capsys.readouterr().out
    start = cqr.evaluate(
        cqr.train(photos, model="zero-shot", data="artifacts/photos.queries.csv", progress=False),
        progress=False,
    )
    beside = found.metrics["start"]
    assert beside["recall"] == start.metrics["recall"]
    for k, d in beside["difference"].items():
        assert d["mean"] == pytest.approx(found.metrics["recall"][k] - beside["recall"][k])
        assert d["low"] <= d["mean"] <= d["high"]
    assert beside["difference"]["10"]["low"] > 0  # it did learn
    assert beside["difference"]["10"]["not_better"] < 0.025
    row = next(line for line in said.splitlines() if line.startswith("│ R@10 "))
    assert f"{beside['recall']['10']:.2f}" in row
    assert f"{beside['difference']['10']['mean']:+.2f}" in row
    page = (run.path / "evaluation" / "report.html").read_text()
    assert "What was learned" in page
    assert json.loads((run.path / "evaluation" / "metrics.json").read_text())["start"] == beside
    assert start.metrics["start"] is None


def test_a_training_that_only_harms_keeps_its_start(photos):
    """The targets are what zero-shot finds, so nothing can be better."""
    engine = cqr.open_gallery(features=photos, progress=False)
    table = pd.read_csv("artifacts/photos.queries.csv").drop_duplicates(["reference", "text"])
    table["target"] = [engine.search(r.reference, r.text, k=1).paths[0] for r in table.itertuples()]
    table.to_csv("artifacts/photos.queries.csv", index=False)
    run = trained(photos, lr=0.5, epochs=3)
    log = run.history()
    assert log[0]["recall"]["1"] == 100
    assert max(line["score"] for line in log[1:]) < log[0]["score"]
    weights = load_file(run.weights)
    assert not weights["to_query.weight"].any()
    beside = cqr.evaluate(run, progress=False).metrics["start"]
    assert all(d["mean"] == 0 for d in beside["difference"].values())


@pytest.mark.parametrize("model", ["lbf", "tirg"])
def test_the_chosen_epoch_is_never_below_the_start_on_held_out_queries(photos, model):
    run = trained(photos, model=model)
    scores = [line["score"] for line in run.history()]
    kept = load_file(run.weights)
    last = load_file(run.checkpoint)
    best = max(range(3), key=lambda i: (scores[i], i))
    same = all(torch.equal(kept[n], last[f"model.{n}"]) for n in kept)
    assert same == (best == 2)
    assert kept["to_query.weight"].any() == (best > 0)


def test_an_interrupted_training_ends_with_the_same_weights(photos):
    chosen = Settings(
        start="joint", epochs=2, batch=16, warmup=5, validation=0.2,
        options=dict(around_models.settings("lbf", embed=16).options),
    )  # fmt: skip
    run = around_models.resumed(photos, chosen)
    assert [line["epoch"] for line in run.history()] == [0, 1, 2]


def test_what_lies_on_the_device_trains_the_same(photos, monkeypatch):
    """Pictures as regions and as wholes, word pieces, and the texts' own vectors."""
    mapped = trained(photos)
    monkeypatch.setattr(resident, "room", lambda device: 2**40)
    near = trained(photos, fresh=True)
    assert mapped.path != near.path
    a, b = (load_file(run.checkpoint) for run in (mapped, near))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_is_searched_as_any_other(photos):
    run = trained(photos, epochs=1)
    engine = cqr.open_gallery(run, progress=False)
    one, two = (engine.search("red-ball-00.png", [text]) for text in ("make it blue", "blue"))
    assert len(one) == 10
    assert one.attended is not None
    assert one.attended.weights.shape[1] == 3
    assert one.paths != two.paths or one.scores != two.scores
    assert len(engine.search(text="a blue ball")) == 10


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"learners": 2}, "--learners"),
        ({"snr": True}, "--snr"),
        ({"model": "zero-shot"}, "--model zero-shot"),
    ],
)
def test_what_does_not_go_with_it_is_refused(photos, given, named):
    with pytest.raises(UserError, match=f"--start joint and {named} do not go together"):
        trained(photos, **given)


def test_features_without_a_space_of_texts_cannot_be_started_from(photos):
    plain = joint_space.write(Path("plain.h5"), None, paths=RegionReader(photos).paths)
    with pytest.raises(UserError, match=r"plain\.h5 shares no space with texts"):
        trained(plain, data="artifacts/photos.queries.csv")


def test_with_a_table_of_ones_own_it_is_the_default(photos):
    def started(**given):
        run = cqr.train(photos, options=SMALL, epochs=1, batch=16, device="cpu", progress=False,
                        **given)  # fmt: skip
        return run.settings.start

    assert started() == "joint"
    assert started(start="scratch") == "scratch"
    assert started(snr=True) == "scratch"  # which does not go with it
