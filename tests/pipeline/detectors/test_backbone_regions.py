"""Which boxes a backbone describes, and what share of each token a box has."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_backbones as tiny
from cqr.errors import UserError
from cqr.pipeline.detectors import DetectorSpec
from cqr.pipeline.detectors.backbones import regions, source
from cqr.pipeline.detectors.backbones.tokens import shares
from cqr.pipeline.detectors.regional import antialiased
from cqr.pipeline.detectors.selection import Candidates, Selection
from cqr.pipeline.detectors.transformers import encoder

torch.set_num_threads(1)
CPU = torch.device("cpu")


@dataclass
class Finder:
    """Finds the same boxes, in halves of pixels, in every picture."""

    boxes: list[list[float]]
    max_k: int = 8
    dim: int = 3
    device: torch.device = CPU
    selection: Selection = field(default_factory=Selection)
    identity: dict = field(default_factory=lambda: {"name": "torchvision", "config": "known"})
    resize = staticmethod(antialiased)

    def network_size(self, width, height):
        return width // 2, height // 2

    def encode(self, batch):
        return batch

    def find(self, maps, k):
        boxes = torch.tensor(self.boxes).reshape(-1, 4)
        scores = torch.linspace(0.9, 0.5, len(boxes))
        return [Candidates(boxes, torch.zeros(len(boxes), dtype=torch.int64), scores)] * len(maps)


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return tiny.tiny_dinov2(tmp_path_factory.mktemp("dino") / "model")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny.tiny_clip(tmp_path_factory.mktemp("clip") / "model")


@pytest.fixture(scope="module")
def backbone(dino):
    return encoder(source.parse(str(dino), None, CPU))


def picture(width, height, seed=0):
    random = np.random.default_rng((width, height, seed))
    return random.integers(0, 256, (height, width, 3)).astype(np.uint8)


@given(
    st.lists(st.floats(-3, 9, width=32), min_size=4, max_size=4),
    st.integers(1, 6),
    st.integers(1, 6),
)
def test_shares_are_the_area_that_a_box_covers(edges, columns, rows):
    x1, x2 = sorted(edges[:2])
    y1, y2 = sorted(edges[2:])
    (found,) = shares(torch.tensor([[x1, y1, x2, y2]]), columns, rows).reshape(1, rows, columns)
    assert found.max() > 0  # each box has some token
    assert found.max() <= 1 + 1e-5
    x1, x2 = (min(max(x, 0), columns) for x in (x1, x2))
    y1, y2 = (min(max(y, 0), rows) for y in (y1, y2))
    if x2 - x1 < 0.01 or y2 - y1 < 0.01:
        assert (found > 1e-9).sum() <= 2 * max(columns, rows) + 2
        return
    fine = 200  # points a token, of which it is counted how many lie in the box
    points = (np.arange(fine * max(columns, rows)) + 0.5) / fine
    inside_x = ((points > x1) & (points < x2))[: fine * columns].reshape(columns, fine).mean(1)
    inside_y = ((points > y1) & (points < y2))[: fine * rows].reshape(rows, fine).mean(1)
    np.testing.assert_allclose(found, np.outer(inside_y, inside_x), atol=0.02)


def test_boxes_are_the_finders_and_features_the_backbones(backbone, dino):
    """Boxes of 16 x 8 pixels of 64 x 32 are a token of 4 x 4 each."""
    finder = Finder([[0, 0, 8, 4], [16, 8, 24, 12], [8, 4, 24, 12]])
    detector = regions.detector(backbone, "boxes", finder)
    image = picture(64, 32)
    (found,) = detector([image], 5)
    assert found.count == 3
    assert found.boxes[:3].tolist() == [[0, 0, 16, 8], [32, 16, 48, 24], [16, 8, 48, 24]]
    np.testing.assert_allclose(found.scores, [0.9, 0.7, 0.5, 0, 0], atol=1e-6)
    cells = DetectorSpec("transformers", str(dino), device="cpu").load()
    (grid,) = cells([image], 16)
    tokens = {tuple(b[:2].round()): f for b, f in zip(grid.boxes, grid.features, strict=True)}
    np.testing.assert_allclose(found.features[0], tokens[0, 0], atol=1e-4)
    np.testing.assert_allclose(found.features[1], tokens[32, 16], atol=1e-4)
    four = [tokens[x, y] for x in (16, 32) for y in (8, 16)]
    np.testing.assert_allclose(found.features[2], np.mean(four, 0), atol=1e-4)
    np.testing.assert_allclose(found.whole, grid.whole, atol=1e-4)
    identity = detector.identity
    assert (identity["name"], identity["regions"]) == ("transformers", "boxes")
    assert identity["finder"] == finder.identity
    assert identity["selection"]["nms"] == [0.5, 0.6, 0.7, 0.8, 0.9]


@pytest.mark.parametrize("kind", ["boxes", "crops"])
def test_nothing_found_is_the_whole_picture(kind, backbone):
    (found,) = regions.detector(backbone, kind, Finder([]))([picture(40, 30)], 3)
    assert found.count == 1
    assert found.boxes[0].tolist() == [0, 0, 40, 30]
    np.testing.assert_array_equal(found.features[0], found.whole)


@pytest.mark.parametrize("finder", [None, Finder([[1.3, 2, 8, 9.1], [10, 4, 10.2, 4.1]])])
def test_a_crop_is_embedded_as_a_picture_of_its_own(finder, backbone, dino):
    """Every pixel that the box touches, and no other."""
    image = picture(50, 40)
    (found,) = regions.detector(backbone, "crops", finder)([image], 5)
    alone = DetectorSpec("transformers", str(dino), device="cpu").load()
    assert found.count == (2 if finder else 5)
    for box, feature in zip(found.boxes, found.features[: found.count], strict=False):
        x1, y1 = np.floor(box[:2]).astype(int)
        x2, y2 = np.ceil(box[2:]).astype(int)
        (crop,) = alone([image[y1:y2, x1:x2]], 1)
        np.testing.assert_allclose(feature, crop.whole, rtol=1e-3, atol=1e-3)
    (whole,) = alone([image], 1)
    np.testing.assert_allclose(found.whole, whole.whole, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["boxes", "crops"])
@pytest.mark.parametrize("options", ["", "#own"])
def test_a_batch_changes_no_number(kind, options, clip):
    """Also where the backbone sees the pictures of a batch at other sizes than each other."""
    over = encoder(source.parse(f"{clip}{options}", None, CPU))
    finder = Finder([[0, 0, 8, 4], [3, 4, 20, 9]])
    detector = regions.detector(over, kind, finder)
    batch = [picture(60, 40), picture(61, 41), picture(60, 40, seed=1)]
    for one, together in zip(batch, detector(batch, 4), strict=True):
        (alone,) = detector([one], 4)
        np.testing.assert_allclose(alone.features, together.features, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(alone.whole, together.whole, rtol=1e-3, atol=1e-3)
        np.testing.assert_array_equal(alone.boxes, together.boxes)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (DetectorSpec("transformers", "{dino}", regions="boxes"), "name it with --finder"),
        (DetectorSpec("transformers", "{dino}", regions="objects"), "choose --regions from cells,"),
        (
            DetectorSpec("transformers", "{dino}", finder=DetectorSpec("bundled")),
            "cells needs no --finder",
        ),
        (
            DetectorSpec("transformers", "{dino}", finder=DetectorSpec("timm", "x")),
            "timm finds no boxes; choose from",
        ),
        (DetectorSpec("bundled", regions="crops"), "describes its own boxes; --regions and"),
    ],
)
def test_what_does_not_belong_together(spec, says, dino):
    import dataclasses

    config = spec.config and spec.config.format(dino=dino)
    with pytest.raises(UserError, match=says):
        dataclasses.replace(spec, config=config, device="cpu").load()


@pytest.mark.parametrize("kind", ["boxes", "crops"])
def test_a_real_finder_and_back_from_the_identity(kind, clip):
    spec = DetectorSpec(
        "transformers",
        str(clip),
        device="cpu",
        regions=kind,
        finder=DetectorSpec("bundled", device="cpu"),
    )
    detector = spec.load()
    (found,) = detector([picture(224, 168)], 6)
    assert found.features.shape == (6, tiny.JOINT)
    assert detector.identity["finder"]["name"] == "bundled"
    assert DetectorSpec.of(detector.identity, device="cpu").load().identity == detector.identity


def test_a_feature_file_says_what_made_it(clip, tmp_path):
    """From the command line to the file, and from the file to a new picture."""
    import json

    from PIL import Image
    from typer.testing import CliRunner

    from cqr.cli import app
    from cqr.pipeline.feature_file import open_features
    from cqr.search.pictures import detector as of_file

    (tmp_path / "photos").mkdir()
    for i in range(3):
        Image.fromarray(picture(40 + i, 30)).save(tmp_path / "photos" / f"{i}.png")
    command = f"extract --images photos --config {clip}#values --k 4 --device cpu --regions crops"
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output
    assert f"Model: {clip}#values, licence: mit" in done.stderr
    file = open_features(tmp_path / "artifacts" / "photos.h5")
    assert file.detector["joint"]["dim"] == file.header.dim == tiny.JOINT
    assert file.detector["licence"] == "mit"
    assert "--regions crops" in file.header.command
    made = of_file(file, device="cpu")
    assert json.loads(json.dumps(made.identity)) == file.detector
    again = CliRunner().invoke(app, command.split())
    assert "kept 3" in again.stdout
    other = CliRunner().invoke(app, command.replace("crops", "cells").split())
    assert "regions differ" in other.stderr
