"""What the one class over all backends promises, with a backend whose answers are known."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from cqr.errors import UserError
from cqr.pipeline.detectors.regional import RegionDetector, antialiased, interpolated
from cqr.pipeline.detectors.selection import Candidates, Selection

torch.set_num_threads(1)


@dataclass
class Known:
    """Sees pictures at half their size; the feature of a box is the box and the picture's mean."""

    boxes: list[list[float]]
    scores: list[float]
    scale: float = 1.0
    dim: int = 5
    max_k: int = 8
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    selection: Selection = field(default_factory=Selection)
    identity: dict = field(default_factory=lambda: {"name": "known", "config": "c"})
    resize = staticmethod(antialiased)

    def network_size(self, width, height):
        return width // 2, height // 2

    def encode(self, batch):
        return batch.mean((1, 2, 3))

    def find(self, maps, k):
        boxes = torch.tensor(self.boxes).reshape(-1, 4)
        classes = torch.zeros(len(boxes), dtype=torch.int64)
        return [Candidates(boxes, classes, torch.tensor(self.scores))] * len(maps)

    def pool(self, maps, boxes):
        each = [torch.cat((b, m.expand(len(b), 1)), 1) for b, m in zip(boxes, maps, strict=True)]
        return torch.cat(each) * self.scale

    def whole(self, maps):
        return None


def picture(width, height, value=100):
    return np.full((height, width, 3), value, np.uint8)


def test_a_feature_belongs_to_the_box_of_its_row():
    backend = Known([[5, 5, 20, 15], [-4, -4, 10, 9]], [0.3, 0.9])
    (regions,) = RegionDetector(backend)([picture(100, 60)], 4)
    assert regions.count == 2
    assert regions.boxes[:2].tolist() == [[0, 0, 20, 18], [10, 10, 40, 30]]
    assert regions.features[:2].tolist() == [[0, 0, 10, 9, 100], [5, 5, 20, 15, 100]]
    assert regions.whole.tolist() == [0, 0, 50, 30, 100]
    np.testing.assert_allclose(regions.scores, [0.9, 0.3, 0, 0])
    assert not regions.features[2:].any()
    assert not regions.boxes[2:].any()
    assert (regions.width, regions.height, regions.k) == (100, 60, 4)


@pytest.mark.parametrize("boxes", [[], [[np.nan] * 4] * 3, [[60, 40, 70, 50]]])
def test_no_region_at_all_is_the_whole_picture(boxes):
    detector = RegionDetector(Known(boxes, [0.9] * len(boxes)))
    (regions,) = detector([picture(101, 61)], 3)
    assert regions.count == 1
    assert regions.boxes[0].tolist() == [0, 0, 101, 61]
    assert regions.features[0].tolist() == regions.whole.tolist() == [0, 0, 50, 30, 100]
    assert regions.scores[0] == 0


def test_k_survives_proposals_that_are_not_finite():
    backend = Known([[np.nan, 0, 9, 9], [0, 0, np.inf, 9], [1, 1, 9, 9]], [0.9, 0.8, 0.7])
    (regions,) = RegionDetector(backend)([picture(100, 60)], 2)
    assert (regions.count, regions.k) == (1, 2)


def test_boxes_are_clipped_after_scaling():
    """Regions refuses a box that sticks out; scaling alone would give such boxes."""
    halves = np.arange(100, 600, dtype=np.float32)
    widths = [int(2 * h + 1) for h in halves if h * ((2 * h + 1) / h) > 2 * h + 1]
    assert widths
    for width in widths[:9]:
        detector = RegionDetector(Known([[0, 0, 1e4, 1e4]], [0.9]))
        (regions,) = detector([picture(width, 31)], 1)
        assert regions.boxes[0].tolist() == [0, 0, width, 31]


def test_one_picture_in_a_batch_keeps_its_numbers():
    detector = RegionDetector(Known([[5, 5, 20, 15]], [0.9]))
    pictures = [picture(100, 60, 10), picture(101, 61, 200), picture(100, 60, 30)]
    together = detector(pictures, 2)
    for one, regions in zip(pictures, together, strict=True):
        (alone,) = detector([one], 2)
        assert (alone.width, alone.height) == (one.shape[1], one.shape[0])
        np.testing.assert_array_equal(alone.features, regions.features)
        np.testing.assert_array_equal(alone.boxes, regions.boxes)
    assert detector([], 2) == []


def test_pictures_of_other_network_sizes_are_refused():
    with pytest.raises(ValueError, match="one network size"):
        RegionDetector(Known([], []))([picture(100, 60), picture(60, 100)], 1)


@pytest.mark.parametrize("k", [-1, 0, 9])
def test_k_out_of_range_is_the_users_to_mend(k):
    with pytest.raises(UserError, match=r"--k must be between 1 and 8 .* known/c, is"):
        RegionDetector(Known([], []))([], k)


def test_features_that_are_not_finite_name_the_weights():
    with pytest.raises(UserError, match=r"not finite.*--weights"):
        RegionDetector(Known([], [], scale=float("inf")))([picture(100, 60)], 1)


def test_identity_holds_the_selection():
    one, other = Known([], []), Known([], [], selection=Selection(nms=(0.5,)))
    assert RegionDetector(one).identity != RegionDetector(other).identity
    assert RegionDetector(other).identity == {
        "name": "known",
        "config": "c",
        "selection": {"nms": [0.5], "min_score": [0.05, 0.01, 0.0]},
    }


@pytest.mark.parametrize("resize", [antialiased, interpolated])
def test_resizing(resize):
    """Flat colours stay, size and order of axes are the network's, no pixel is shared."""
    source = np.zeros((20, 30, 3), np.uint8)
    source[:] = (10, 20, 30)
    for size in ((15, 10), (30, 20), (64, 7)):
        pixels = resize(source, size)
        assert pixels.shape == (3, size[1], size[0])
        assert [pixels[c].float().mean().item() for c in range(3)] == pytest.approx([10, 20, 30])
        pixels += 1
        assert source[0, 0].tolist() == [10, 20, 30]


@dataclass
class Averaging(Known):
    """Sees every picture at 64 x 48 or 48 x 64."""

    margin: int = 3

    def network_size(self, width, height):
        return (64, 48) if width > height else (48, 64)


@pytest.mark.parametrize(
    ("size", "divisor"),
    [
        ((4032, 3024), 8),
        ((3024, 4032), 8),
        ((64 * 24, 48 * 24), 8),
        ((64 * 24 - 8, 48 * 24), 4),
        ((64 * 6, 48 * 6), 2),
        ((64 * 6 - 2, 48 * 6), 1),
        ((64, 48), 1),
        ((1, 1), 1),
        ((1607, 1601), 4),  # at an eighth a square, which the network would see another way up
    ],
)
def test_a_jpeg_stays_so_many_times_what_the_network_sees(size, divisor):
    assert RegionDetector(Averaging([], [])).fraction(*size) == divisor


def test_where_pixels_themselves_matter_a_jpeg_is_decoded_whole():
    assert (
        RegionDetector(Known([], [])).fraction(4032, 3024) == 1
    )  # it did not say that it averages
    described = RegionDetector(Averaging([], []), Known([], []))
    assert described.fraction(4032, 3024) == 1
    before = RegionDetector(Averaging([], []), scaled=False)
    assert before.fraction(4032, 3024) == 1
    assert "jpeg" not in before.identity
    assert RegionDetector(Averaging([], [])).identity["jpeg"] == {"margin": 3}


def test_regions_of_a_fraction_are_those_of_the_whole():
    backend = Known([[5, 5, 20, 15], [-4, -4, 10, 9]], [0.3, 0.9])
    (regions,) = RegionDetector(backend)([picture(100, 60)], 4)
    whole = regions.resized(399, 240)
    assert (whole.width, whole.height) == (399, 240)
    np.testing.assert_allclose(whole.boxes[:2], [[0, 0, 79.8, 72], [39.9, 40, 159.6, 120]])
    assert whole.boxes[2:].tolist() == [[0] * 4] * 2
    assert (whole.features == regions.features).all()
    assert regions.resized(100, 60) is regions
    full = Known([[0, 0, 50, 30]], [0.5])
    (regions,) = RegionDetector(full)([picture(100, 60)], 1)
    for width in (397, 793, 3023):  # never beyond the edge, whatever the rounding
        assert regions.resized(width, 60).boxes[0].tolist() == [0, 0, width, 60]
