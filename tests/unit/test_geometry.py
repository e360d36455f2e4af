import numpy as np
import pytest

from kneeoa.geometry import Box, KeyPoints, crop

POINTS = KeyPoints(((20, 100), (60, 84), (110, 102), (10, 112), (62, 96), (105, 110)))


def test_mirror_swaps_image_sides_and_twice_is_nothing():
    mirrored = POINTS.mirrored(200)

    assert mirrored.points[0] == (200 - 110, 102)
    assert mirrored.mirrored(200) == POINTS
    assert Box(10, 0, 30, 5).mirrored(100) == Box(70, 0, 90, 5)


def test_mirrored_crop_is_the_crop_of_the_mirrored_image(rng):
    image, box = rng.integers(0, 255, (50, 80), np.uint8), Box(7, 10, 31, 40)

    assert (crop(image[:, ::-1], box.mirrored(80)) == crop(image, box)[:, ::-1]).all()


@pytest.mark.parametrize("box", [Box(-10, -5, 20, 20), Box(70, 40, 100, 90), Box(-50, -50, -20, -20)])
def test_crop_outside_repeats_the_edge(rng, box):
    image = rng.integers(0, 255, (50, 80), np.uint8)

    cut = crop(image, box)

    assert cut.shape == (box.height, box.width)
    assert (cut[-1, -1], cut[0, 0]) == tuple(
        image[np.clip(y, 0, 49), np.clip(x, 0, 79)]
        for x, y in ((int(box.x2) - 1, int(box.y2) - 1), (int(box.x1), int(box.y1)))
    )


def test_iou():
    assert Box(0, 0, 2, 2).iou(Box(1, 0, 3, 2)) == pytest.approx(1 / 3)
    assert Box(0, 0, 1, 1).iou(Box(2, 2, 3, 3)) == 0


def test_knee_box_is_a_square_of_1_3_w():
    box = POINTS.knee_box()

    assert (box.width, box.height) == pytest.approx((130, 130))
    assert box.centre == pytest.approx((60, 98))


def test_six_points_are_required():
    with pytest.raises(ValueError, match="6 key points"):
        KeyPoints(((0, 0),))
