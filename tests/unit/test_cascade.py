"""The search for a knee, with levels that say what the test wants."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import nms

from kneeoa.detection.cascade import LOOKS, SMALLEST_OF_TWO, Cascade, CascadeConfig, Found, _distinct, beside
from kneeoa.detection.networks import STRIDE, WINDOW
from kneeoa.geometry import Box, KeyPoints

OFFSETS = (0.125, 0.0, -0.125, 0.25)
POINTS = KeyPoints(((20, 100), (60, 84), (110, 102), (10, 112), (62, 96), (105, 110)))


class Bright(nn.Module):
    """Level 1: a knee is a window that is bright all over; the brighter, the surer."""

    def forward(self, x):
        mean = F.avg_pool2d(x, WINDOW, STRIDE)
        offsets = torch.tensor(OFFSETS).view(1, 4, 1, 1).expand(len(x), 4, *mean.shape[2:])
        return 100 * (mean.squeeze(1) - 0.9), offsets


class Even(nn.Module):
    """Level 2: the crop's mean decides; the box and the points are always at the same shares of it."""

    def forward(self, x):
        n = len(x)
        return x.mean((1, 2, 3)), torch.tensor(OFFSETS).expand(n, 4), torch.arange(12).div(16).expand(n, 12)


def cascade(**config) -> Cascade:
    return Cascade(Bright(), Even(), CascadeConfig(**config))


def film(*squares: tuple[int, int, int], shape=(120, 160), value=255) -> np.ndarray:
    """Black, with white squares at x, y of a side."""
    image = np.zeros(shape, np.uint8)
    for x, y, side in squares:
        image[y : y + side, x : x + side] = value
    return image


def test_a_window_of_the_smallest_size_is_found_where_it_is():
    """0.3 of 160 pixels are one window at full size."""
    ((box,), nothing) = cascade().propose(np.stack([film((56, 40, WINDOW)), film()]))

    assert box == Box(56 + 6, 40, 56 + WINDOW - 6, 40 + WINDOW + 12)
    assert nothing == []


def test_larger_knees_are_found_further_down_the_pyramid():
    """The third step is 0.709² as large: a window covers 95 pixels there, and the one two to the right and one down is white."""
    (boxes,) = cascade(nms_all=1.0).propose(film((31, 15, 98))[None])

    step = 0.709**2
    x, y, side = 2 * STRIDE / step, STRIDE / step, WINDOW / step
    expected = x + side / 8, y, x + side * 7 / 8, y + side * 5 / 4
    assert min(np.abs(np.subtract(box.as_tuple(), expected)).max() for box in boxes) < 1e-3
    assert max(box.width for box in boxes) < side  # the next step's windows are wider than the square


def test_a_smaller_knee_can_be_asked_for():
    small = film((64, 48, 24))

    assert cascade().propose(small[None]) == [[]]
    assert cascade().propose(small[None], 0.15)[0]


def test_proposals_are_the_surest_first_and_no_more_than_asked_for():
    image = np.maximum(film((0, 0, WINDOW), value=252), film((96, 64, WINDOW)))

    two, one = (cascade(proposals=n).propose(image[None])[0] for n in (64, 1))

    assert [box.x1 for box in two] == [96 + 6, 6]
    assert one == two[:1]
    assert cascade(score1=1 - 1e-6).propose(image[None])[0] == []


def test_of_overlapping_proposals_the_weaker_one_is_dropped():
    image = film((40, 40, WINDOW + STRIDE))  # four windows, two thirds of which overlap

    few, all_ = (cascade(nms_scale=n, nms_all=n).propose(image[None])[0] for n in (0.3, 1.0))

    assert len(few) == 1
    assert len([box for box in all_ if box.height == WINDOW + 12]) == 4


@pytest.mark.parametrize("number", [0, 1, 300])
@pytest.mark.parametrize("most", [0.3, 0.7])
def test_the_same_proposals_are_dropped_as_by_torchvision(number, most):
    rng = np.random.default_rng(0)
    corners, scores = rng.uniform(0, 200, (number, 2)), rng.uniform(0.6, 1, number)
    boxes = np.hstack([corners, corners + rng.uniform(40, 60, (number, 2))])

    kept = _distinct(boxes, scores, most)

    assert kept.tolist() == nms(torch.from_numpy(boxes), torch.from_numpy(scores), most).tolist()


def test_level_2_says_where_in_the_square_around_a_box_the_knee_is():
    image = np.full((100, 100), 255, np.uint8)

    (found,) = cascade().refine([(image, Box(20.2, 30.4, 52.2, 46.4))])

    # the square is 32 pixels wide: [20, 52) × [22, 54)
    assert found.box == Box(20 + 4, 22, 52 - 4, 54 + 8)
    assert found.key_points.points[0] == (20.0, 22 + 2.0)
    assert found.key_points.points[5] == (20 + 20.0, 22 + 22.0)
    assert found.score == pytest.approx(1 / (1 + np.exp(-127.5 / 128)))
    assert cascade().refine([]) == []


def looked(scores, monkeypatch, **config):
    """A cascade whose level 2 gives these scores in turn, and the windows it was asked about."""
    asked, every = [], iter(scores)
    one = cascade(**config)

    def refine(windows):
        asked.extend(windows)
        return [Found(next(every), box, POINTS.shifted(box.x1)) for _, box in windows]

    monkeypatch.setattr(one, "refine", refine)
    return one, asked


def test_the_best_box_is_looked_at_five_times_more_and_three_times_turned(monkeypatch):
    one, asked = looked([0.3, 0.95, 0.92, 0.97, 0.91, 0.94, 0.99, 0.1, 0.4, 0.2], monkeypatch, look=0.1)
    image = film(shape=(200, 300))
    image[0] = 7  # so that up and down differ

    found = one.locate(image, [Box(0, 0, 5, 5), Box(8, 0, 13, 5)])

    knee = POINTS.shifted(8).knee_box()
    step = 0.1 * knee.width
    upright, turned = asked[2:7], asked[7:]
    assert [box for _, box in upright] == [knee, *(knee.shifted(x, y) for x in (-step, step) for y in (-step, step))]
    assert all((shown == image).all() for shown, _ in upright)
    top = 200 - knee.y2
    assert [box.as_tuple() for _, box in turned] == [
        pytest.approx((knee.x1, top + dy, knee.x2, top + dy + knee.height)) for dy in (-step, 0, step)
    ]
    assert all((shown == image[::-1]).all() for shown, _ in turned)
    assert len(asked) == 2 + LOOKS
    assert (found.score, found.turned) == (0.91, 0.4)  # the least of all looks; the most of the turned ones
    assert found.box.as_tuple() == pytest.approx(knee.as_tuple())
    assert found.key_points.points[0][0] == pytest.approx(20 + knee.x1)


def test_what_is_no_knee_at_first_sight_is_not_looked_at_again(monkeypatch):
    one, asked = looked([0.5, 0.9, 0.4, *[0.95] * LOOKS], monkeypatch, score2=0.9)

    first, second, third = one.locate_each([(film(), [Box(0, 0, 5, 5)])] * 3)

    assert [first.score, second.score, third.score] == [0.5, 0.9, 0.4]
    assert second.turned == 0.95
    assert len(asked) == 3 + LOOKS


def test_each_film_has_its_own_looks(monkeypatch):
    scores = [0.95, 0.96, *[0.93] * 5, *[0.1] * 3, *[0.94] * 5, *[0.2] * 3]
    one, _ = looked(scores, monkeypatch)

    first, second = one.locate_each([(film(), [Box(x, 0, x + 5, 5)]) for x in (0, 50)])

    assert [(f.score, f.turned) for f in (first, second)] == [(0.93, 0.1), (0.94, 0.2)]
    assert second.box.x1 - first.box.x1 == pytest.approx(50)


@pytest.mark.parametrize(
    ("score", "turned", "expected"), [(0.9, 0.98, False), (0.9, 0.995, True), (0.5, 0.94, False), (0.5, 0.96, True)]
)
def test_a_knee_is_upside_down_if_a_tenth_of_the_doubt_is_left_when_it_is_turned(score, turned, expected):
    assert Found(score, Box(0, 0, 1, 1), POINTS, turned).upside_down == expected


def test_a_large_film_is_searched_in_a_copy_and_found_in_its_own_pixels(monkeypatch):
    seen = []
    one = cascade()
    monkeypatch.setattr(one, "propose", lambda images, *_: seen.append(images.shape) or [[Box(1, 2, 3, 4)], []])
    monkeypatch.setattr(one, "locate_each", lambda pairs: [Found(0.9, boxes[0], POINTS) for _, boxes in pairs])

    found, nothing = one.detect([film(shape=(900, 960)), film(shape=(900, 960))])

    assert seen == [(2, 450, 480)]  # 2 × 3 × 48 / 0.3 = 960 pixels are halved once
    assert (found.box, found.key_points) == (Box(2, 4, 6, 8), POINTS.scaled(2))
    assert nothing is None
    one.detect([film(shape=(900, 959))] * 2)
    assert seen[1] == (2, 900, 959)
    assert one.detect([]) == []


def test_of_a_whole_film_the_best_knee_and_the_best_beside_it_are_taken(monkeypatch):
    size = 40
    places = [Box(x, 10, x + size, 10 + size) for x in (100, 104, 10, 190)]
    one = cascade()
    asked = []
    monkeypatch.setattr(one, "propose", lambda images, smallest: asked.append((images.shape, smallest)) or [places])
    scores = dict(zip(places, (0.95, 0.94, 0.7, 0.8), strict=True))
    monkeypatch.setattr(one, "refine", lambda windows: [Found(scores[box], box, POINTS) for _, box in windows])
    monkeypatch.setattr(one, "locate_each", lambda pairs: [Found(0.9, boxes[0], POINTS) for _, boxes in pairs])

    pair = one.detect_pair(film(shape=(100, 250)))

    assert [found.box for found in pair] == [places[0], places[3]]
    assert asked == [((1, 100, 250), SMALLEST_OF_TWO)]
    scores[places[3]] = 0.6
    assert [found.box for found in one.detect_pair(film(shape=(100, 250)))] == [places[2], places[0]]
    monkeypatch.setattr(one, "propose", lambda *_: [places[:2]])
    assert [found.box for found in one.detect_pair(film(shape=(100, 250)))] == [places[0]]
    monkeypatch.setattr(one, "propose", lambda *_: [[]])
    assert one.detect_pair(film(shape=(100, 250))) == []


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (Box(81, 0, 181, 100), True),
        (Box(80, 0, 180, 100), False),  # too near
        (Box(-81, 0, 19, 100), True),
        (Box(200, 149, 300, 249), True),
        (Box(200, 150, 300, 250), False),  # too low
        (Box(200, -149, 300, -49), True),
        (Box(200, 0, 261, 100), True),
        (Box(200, 0, 260, 100), False),  # too small
        (Box(81, 0, 281, 200), False),
        (Box(200, 0, 360, 160), True),
    ],
)
def test_the_other_knee_is_beside_this_one_about_as_high_and_as_large(other, expected):
    assert beside(Box(0, 0, 100, 100), other) == beside(other, Box(0, 0, 100, 100)) == expected


def test_a_finding_moves_with_its_image():
    found = Found(0.9, Box(1, 2, 3, 4), POINTS, 0.5)

    assert found.shifted(10) == Found(0.9, Box(11, 2, 13, 4), POINTS.shifted(10), 0.5)
    assert found.scaled(2) == Found(0.9, Box(2, 4, 6, 8), POINTS.scaled(2), 0.5)
