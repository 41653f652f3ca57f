"""The selection of K boxes, against a naive reading of its rule."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cqr.pipeline.detectors import selection
from cqr.pipeline.detectors.selection import Candidates, Selection, select

torch.set_num_threads(1)

WIDTH, HEIGHT = 40, 30
RULES = (Selection(), Selection((0.5,), (0.05,)), Selection((0.3, 0.6), (0.2, 0.1, 0.0)))
SCORES = [0.0, 0.001, 0.01, 0.02, 0.05, 0.06, 0.3, 0.3001, 0.9, 1.0]
WILD = [-8.0, 3.0, 7.0, 48.0, np.nan, np.inf, -np.inf]


def drawn(seed, n):
    """Mostly boxes that overlap, some equal, some that stick out; a few that are none."""
    rng = np.random.default_rng(seed)
    found = []
    for kind in rng.choice(["box", "again", "wild", "no score"], n, p=[0.7, 0.1, 0.1, 0.1]):
        corner = rng.integers(-4, 28, 2)
        box = (*corner, *(corner + rng.integers(2, 20, 2)))
        if kind == "wild":
            box = rng.choice(WILD, 4)
        if kind == "again" and found:
            box = found[-1][0]
        score = np.nan if kind == "no score" else rng.choice(SCORES)
        found.append((tuple(map(float, box)), int(rng.integers(3)), float(score)))
    return found


several = st.builds(drawn, st.integers(0, 2**31), st.integers(0, 40))


def naive(found, k, rule):
    """Steps, candidates and pairs one by one.  Whole pixels: float32 areas are exact."""
    usable = []
    for box, kind, score in found:
        if not (np.isfinite(box).all() and np.isfinite(score)):
            continue
        x1, y1, x2, y2 = box
        box = (*_clip(x1, y1), *_clip(x2, y2))
        if box[2] - box[0] >= 0.01 and box[3] - box[1] >= 0.01:
            usable.append((box, kind, np.float32(score)))
    usable.sort(key=lambda one: -one[2])  # stable
    taken, is_taken = [], [False] * len(usable)
    first = True
    for least in rule.min_score:
        for limit in rule.nms:
            rivals = []
            for i, (box, kind, score) in enumerate(usable):
                if not score > np.float32(least) or is_taken[i] or len(taken) >= k:
                    continue
                if first:
                    if any(other == kind and _iou(box, b) > limit for b, other in rivals):
                        continue
                    rivals.append((box, kind))
                    if any(box == b for b, _ in taken):
                        continue
                elif any(_iou(box, b) > limit for b, _ in taken):
                    continue
                taken.append((box, score))
                is_taken[i] = True
            first = False
    return taken


def _clip(x, y):
    return min(max(x, 0), WIDTH), min(max(y, 0), HEIGHT)


def _iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return float(np.float32(width * height) / np.float32(sum(areas) - width * height))


def candidates(found):
    return Candidates(
        torch.tensor([f[0] for f in found], dtype=torch.float32).reshape(-1, 4),
        torch.tensor([f[1] for f in found], dtype=torch.int64),
        torch.tensor([f[2] for f in found], dtype=torch.float32),
    )


def check(found, k, rule):
    boxes, scores = select(candidates(found), (WIDTH, HEIGHT), k, rule)
    expected = naive(found, k, rule)
    assert boxes.tolist() == [list(box) for box, _ in expected]
    assert scores.tolist() == [float(score) for _, score in expected]


@settings(deadline=None)
@given(several, st.integers(1, 20), st.sampled_from(RULES), st.sampled_from([1, 3, 1024]))
def test_takes_what_the_rule_says(found, k, rule, block):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selection, "_BLOCK", block)
        check(found, k, rule)


def test_most_draws_have_boxes_between_which_the_rule_chooses():
    sizes = []

    @settings(derandomize=True, database=None, deadline=None)
    @given(several, st.sampled_from([RULES[0], RULES[2]]))
    def draw(found, rule):
        strict = Selection(rule.nms[:1], rule.min_score[:1])
        sizes.append((len(found), *(len(naive(found, 40, r)) for r in (rule, strict))))

    draw()
    assert np.mean([most > more > few > 0 for most, more, few in sizes]) > 0.5


@settings(deadline=None)
@given(several, st.integers(1, 20), st.sampled_from(RULES))
def test_smaller_k_is_a_prefix(found, k, rule):
    boxes, scores = select(candidates(found), (WIDTH, HEIGHT), 20, rule)
    fewer, their_scores = select(candidates(found), (WIDTH, HEIGHT), k, rule)
    assert torch.equal(fewer, boxes[:k])
    assert torch.equal(their_scores, scores[:k])


def test_the_steps_unless_others_are_said():
    assert list(Selection().steps()) == [
        (0.5, 0.05), (0.6, 0.05), (0.7, 0.05), (0.8, 0.05), (0.9, 0.05),
        (0.5, 0.01), (0.6, 0.01), (0.7, 0.01), (0.8, 0.01), (0.9, 0.01),
        (0.5, 0.0), (0.6, 0.0), (0.7, 0.0), (0.8, 0.0), (0.9, 0.0),
    ]  # fmt: skip


def test_without_a_step_nothing_is_taken():
    found = candidates([((0.0, 0.0, 9.0, 9.0), 0, 0.9)] * 3)
    boxes, scores = select(found, (WIDTH, HEIGHT), 2, Selection((), ()))
    assert (boxes.shape, scores.shape) == ((0, 4), (0,))


def test_a_box_is_a_hundredth_of_a_pixel_wide_and_high_or_dropped():
    thin = [(0.0, 0.0, 0.01, 9.0), (0.0, 0.0, 9.0, 0.01)]
    thinner = [(0.0, 0.0, 0.0099, 9.0), (0.0, 0.0, 9.0, 0.0099)]
    found = candidates([(one, 0, 0.9) for one in (*thinner, *thin)])
    boxes, _ = select(found, (WIDTH, HEIGHT), 9, Selection())
    np.testing.assert_array_equal(boxes.numpy(), np.array(thin, np.float32))


def test_an_overlap_of_just_the_limit_is_allowed_in_every_step():
    whole = (0.0, 0.0, 10.0, 10.0)
    for own in (0.9, 0.02):  # in the first step, and in one that extends
        half, away = ((0.0, 0.0, 10.0, 5.0), 0, own), ((20.0, 0.0, 30.0, 9.0), 0, own - 0.005)
        boxes, _ = select(
            candidates([(whole, 0, 0.95), away, half]), (WIDTH, HEIGHT), 3, Selection()
        )
        assert boxes.tolist() == [list(whole), list(half[0]), list(away[0])]


def test_many_candidates_are_taken_alike():
    random = np.random.default_rng(0)
    corners = random.integers(0, 30, (4000, 2))
    boxes = np.concatenate((corners, corners + random.integers(1, 6, (4000, 2))), axis=1)
    scores = random.choice([0.001, 0.005, 0.02, 0.06], 4000)
    found = [(tuple(map(float, boxes[i])), i % 3, scores[i]) for i in range(4000)]
    for k in (36, 900):
        check(found, k, Selection())


def test_strict_before_loose():
    """Within a step by score; a looser step's better box comes after a stricter step's."""
    strict = ((0.0, 0.0, 10.0, 10.0), 0, 0.9), ((20.0, 0.0, 30.0, 10.0), 0, 0.1)
    near = ((0.0, 0.0, 10.0, 8.0), 0, 0.8)  # overlaps the first by 0.8
    boxes, _ = select(candidates([*strict, near]), (WIDTH, HEIGHT), 3, Selection())
    assert boxes.tolist() == [list(strict[0][0]), list(strict[1][0]), list(near[0])]
