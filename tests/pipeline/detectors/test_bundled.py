"""The detector of this package: its shipped weights at work, and its training for a few steps."""

import json
import random
import subprocess
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torchvision.ops import box_iou  # noqa: E402

from cqr.errors import UserError  # noqa: E402
from cqr.pipeline.detectors import DetectorSpec, bundled, bundled_training  # noqa: E402
from cqr.scenes import crowd, draw, protocol, render  # noqa: E402
from cqr.scenes.arrange import arrange  # noqa: E402
from cqr.scenes.layouts import LAYOUTS  # noqa: E402

K = 12
GRID = bundled.KINDS["grid"]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def detector():
    return DetectorSpec("bundled", device="cpu").load()


@pytest.fixture(scope="module")
def views():
    """Scenes of the test split, whose pairs training does not show."""
    rng = random.Random(11)
    scenes = [protocol.reference(protocol.pairs("test"), rng) for _ in range(8)]
    return [arrange(scene, rng) for scene in scenes]


def drawings(views):
    return [np.asarray(draw.draw(view)) for view in views]


def check(detector, pictures, truths, views):
    """Each object has its own box, nothing else has one, and the features tell what it is."""
    right = total = 0
    for regions, truth, view in zip(detector(pictures, K), truths, views, strict=True):
        assert regions.count == len(truth)
        found = torch.from_numpy(regions.boxes[: regions.count])
        overlap, which = box_iou(torch.tensor(truth, dtype=torch.float32), found).max(1)
        assert overlap.min() > 0.7
        assert sorted(which.tolist()) == list(range(len(truth)))
        said = bundled.words(regions.features[which.numpy()])
        for one, placed in zip(said, view.objects, strict=True):
            right += sum(word == getattr(placed.object, name) for name, word in one.items())
            total += len(one)
    assert right / total > 0.9


def test_words_are_those_of_the_scenes():
    words = {"color": protocol.COLORS, "shape": protocol.SHAPES, "size": protocol.SIZES}
    assert bundled.KINDS["grid"].attributes == words
    assert bundled.KINDS["crowd"].attributes == {**words, "shape": crowd.SHAPES}
    assert {name: kind.size for name, kind in bundled.KINDS.items()} == {
        name: layout.size for name, layout in LAYOUTS.items()
    }


def test_the_weights_are_small():
    assert all(kind.weights.stat().st_size <= 6e6 for kind in bundled.KINDS.values())


def test_objects_of_drawings_are_found(detector, views):
    truths = [[draw.box(placed) for placed in view.objects] for view in views]
    check(detector, drawings(views), truths, views)


def test_objects_of_pictures_are_found(detector, views):
    try:
        renderer = render.Renderer()
    except UserError as error:
        pytest.skip(str(error))
    rendered = [renderer.render(view) for view in views]
    renderer.close()
    truths = [[one.box for one in seen] for _, seen in rendered]
    check(detector, [picture for picture, _ in rendered], truths, views)


def test_things_of_a_crowd_are_found():
    """Those of which at least a quarter is seen, under other pairs than those of training."""
    try:
        renderer = render.Renderer(crowd.SIZE)
    except UserError as error:
        pytest.skip(str(error))
    detect = DetectorSpec("bundled", "crowd", device="cpu").load()
    assert detect.max_k >= 72
    rng = random.Random(4)
    allowed = crowd.pairs("test")
    views = [crowd.arrange(crowd.reference(allowed, rng), rng) for _ in range(4)]
    pictures = [renderer.render(view)[0] for view in views]
    renderer.close()
    found = told = total = 0
    for regions, view in zip(detect(pictures, 48), views, strict=True):
        seen = [one for one in crowd.sights(view) if one.visible >= 0.25]
        truth = torch.tensor([one.box for one in seen])
        overlap, which = box_iou(truth, torch.from_numpy(regions.boxes)).max(1)
        said = bundled.words(regions.features[which.numpy()])
        for one, share, words in zip(seen, overlap.tolist(), said, strict=True):
            total += 1
            found += share >= 0.5
            told += share >= 0.5 and all(getattr(one.thing, n) == w for n, w in words.items())
    assert found / total > 0.9
    assert told / total > 0.75


def test_what_the_heads_say_stands_behind_the_visual_feature(detector, views):
    plain = DetectorSpec("bundled", config="visual", device="cpu").load()
    assert (plain.dim, detector.dim) == (256, 256 + 8 + 3 + 2)
    assert plain.identity != detector.identity
    pictures = drawings(views[:2])
    for visual, both in zip(plain(pictures, K), detector(pictures, K), strict=True):
        np.testing.assert_array_equal(visual.boxes, both.boxes)
        np.testing.assert_allclose(both.features[:, :256], visual.features, rtol=1e-5, atol=1e-6)
        at = 256
        for name, values in GRID.attributes.items():
            head = plain.backend.network.attributes[name]
            weight, bias = (p.detach().double().numpy() for p in (head.weight, head.bias))
            odds = np.exp(visual.features[: visual.count] @ weight.T + bias)
            said = both.features[: both.count, at : at + len(values)]
            np.testing.assert_allclose(said, odds / odds.sum(1, keepdims=True), atol=1e-5)
            at += len(values)


def test_an_unknown_config_is_refused():
    with pytest.raises(
        UserError, match="no config nope; choose --config from attributes, visual, crowd"
    ):
        DetectorSpec("bundled", config="nope", device="cpu").load()


def test_a_batch_changes_nothing(detector, views):
    pictures = drawings(views)
    pictures[3] = np.repeat(np.repeat(pictures[3], 3, axis=0), 2, axis=1)  # of another size
    together = detector(pictures, K)
    for picture, regions in zip(pictures, together, strict=True):
        (alone,) = detector([picture], K)
        assert alone.count == regions.count
        for name in ("features", "boxes", "scores", "whole"):
            np.testing.assert_allclose(
                getattr(alone, name), getattr(regions, name), rtol=1e-4, atol=1e-4
            )


def test_the_network_sees_at_work_what_it_saw_in_training(detector):
    """Padding at work alone once cost a tenth of the shapes."""
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    network, backend = detector.backend.network, detector.backend
    with torch.inference_mode():
        images, _ = network.transform([torch.tensor(picture).permute(2, 0, 1) / 255])
        trained_on = network.backbone(images.tensors)["0"]
        resized = backend.resize(picture, backend.network_size(64, 64))
        at_work = backend.encode(resized[None].float()).features["0"]
    assert tuple(images.tensors.shape[:1:-1]) == GRID.size
    np.testing.assert_allclose(at_work, trained_on, rtol=1e-3, atol=1e-3)


def test_less_is_the_beginning_of_more(detector, views):
    pictures = drawings(views)
    for few, many in zip(detector(pictures, 3), detector(pictures, 36), strict=True):
        first = many.first(3)
        assert few.count == first.count
        for name in ("features", "boxes", "scores", "whole"):
            assert (getattr(few, name) == getattr(first, name)).all()


def test_an_empty_scene_is_one_region_the_whole(detector):
    (regions,) = detector(drawings([arrange((), random.Random(0))]), K)
    assert regions.count == 1
    assert regions.boxes[0].tolist() == [0, 0, 64, 64]
    assert regions.scores.sum() == 0
    assert (regions.features[0] == regions.whole).all()


@pytest.mark.parametrize("shape", [(1, 1), (300, 5), (40, 900)])
def test_any_picture_will_do(detector, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    (regions,) = detector([noise], detector.max_k)
    assert (regions.height, regions.width) == shape


def test_there_is_one_configuration():
    with pytest.raises(UserError, match="--config"):
        DetectorSpec("bundled", config="large", device="cpu").load()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, views):
    """As `cqr scenes` makes it, but drawings stand in for 3D pictures, which need OpenGL."""
    folder = tmp_path_factory.mktemp("scenes")
    images = []
    for number, view in enumerate(views):
        name = f"{number}.png"
        draw.draw(view).save(folder / name)
        words = ("shape", "color", "size")
        objects = [
            {word: getattr(placed.object, word) for word in words}
            | dict.fromkeys(("box", "drawing_box"), draw.box(placed))
            for placed in view.objects
        ]
        images.append({"file": name, "drawing": name, "objects": objects})
    images[-1] |= {"objects": []}
    (folder / "train.json").write_text(json.dumps({"images": images, "queries": []}))
    (folder / "scenes.json").write_text("{}")
    return folder  # without test.json: training must not ask for it


def test_a_value_competes_only_with_those_that_occur_beside_the_others(folder):
    pictures, _ = bundled_training.examples(folder, "train")
    seen = bundled_training.seen_together(pictures, GRID)
    images = json.loads((folder / "train.json").read_text())["images"]
    objects = [one for image in images for one in image["objects"]]
    combinations = {tuple(one[name] for name in GRID.attributes) for one in objects}
    assert int(seen.sum()) == len(combinations)
    example = max(pictures, key=lambda one: len(one.boxes))
    (own,) = (
        image["objects"] for image, one in zip(images, pictures, strict=True) if one is example
    )
    for axis, (name, values) in enumerate(GRID.attributes.items()):
        table = bundled_training.rivals(seen, example.attributes, name)
        for one, row in zip(own, table.tolist(), strict=True):
            words = [one[other] for other in GRID.attributes]
            for value, rival in zip(values, row, strict=True):
                words[axis] = value
                assert rival == (tuple(words) in combinations)


def test_training_writes_weights_that_load(folder, tmp_path, capsys):
    for name in ("first", "second"):
        bundled_training.save(bundled_training.train(folder, 3, seed=5), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert "step 3/3" in capsys.readouterr().out
    path = (tmp_path / "first").rename(tmp_path / "new.safetensors")
    trained = DetectorSpec("bundled", weights=path, device="cpu").load()
    shipped = DetectorSpec("bundled", device="cpu").load()
    assert trained.identity != shipped.identity
    (regions,) = trained(drawings([arrange((), random.Random(0))]), K)
    assert np.isfinite(regions.whole).all()


def test_training_lowers_the_loss(folder):
    torch.manual_seed(0)
    network = bundled.Network(GRID).train()
    pictures, _ = bundled_training.examples(folder, "train")
    seen = bundled_training.seen_together(pictures, GRID)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)

    def step():
        parts = bundled_training.losses(network, pictures[:4], seen)
        total = torch.stack(list(parts.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        return float(total.detach()), set(parts)

    first, parts = step()
    assert parts > set(GRID.attributes)
    assert min(step()[0] for _ in range(8)) < 0.8 * first


def test_what_training_cannot_use_is_one_sentence(tmp_path, folder):
    with pytest.raises(UserError, match="cqr scenes"):
        bundled_training.examples(tmp_path, "train")
    images = json.loads((folder / "train.json").read_text())["images"]
    (tmp_path / "scenes.json").write_text("{}")
    without = {"images": [image | {"drawing": None} for image in images]}
    (tmp_path / "train.json").write_text(json.dumps(without))
    with pytest.raises(UserError, match="--no-drawings"):
        bundled_training.examples(tmp_path, "train")
    arguments = ["--scenes", str(tmp_path), "--out", str(tmp_path / "x.safetensors")]
    module = [sys.executable, "-m", "cqr.pipeline.detectors.bundled_training"]
    run = subprocess.run([*module, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("Error: ")
