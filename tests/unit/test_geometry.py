import numpy as np
import pytest

from kneeoa.geometry import Box, KeyPoints, crop, halved, main_joint, turned

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
    assert Box(0, 0, 1, 1).iou(Box(0, 3, 1, 4)) == 0
    assert Box(0.5, 0.25, 4.5, 3.25).iou(Box(2.5, 1.25, 5.5, 5.25)) == pytest.approx(4 / (12 + 12 - 4))


def test_a_box_is_moved_scaled_squared_and_rounded():
    box = Box(1.5, 2.5, 7.25, 4.75)

    assert (box.width, box.height, box.centre) == (5.75, 2.25, (4.375, 3.625))
    assert box.shifted(10.0, -2.0) == Box(11.5, 0.5, 17.25, 2.75)
    assert box.shifted(0.5) == Box(2.0, 2.5, 7.75, 4.75)
    assert box.scaled(2) == Box(3.0, 5.0, 14.5, 9.5)
    assert Box.square((4.0, 7.25), 5.0) == Box(1.5, 4.75, 6.5, 9.75)
    assert box.squared() == Box(1.5, 0.75, 7.25, 6.5)
    assert Box(0, 0, 2, 6).squared() == Box(-2, 0, 4, 6)
    assert Box(1.4, 2.6, 7.3, 4.7).rounded() == Box(1, 3, 7, 5)
    assert Box(5.2, 6.2, 5.3, 6.3).rounded() == Box(5, 6, 6, 7)


def test_key_points_move_and_scale_with_their_image():
    assert POINTS.shifted(2.5, -1.0).points[1] == (62.5, 83.0)
    assert POINTS.shifted(2.5).points[1] == (62.5, 84.0)
    assert POINTS.scaled(0.5).points[2] == (55.0, 51.0)
    assert POINTS.width == 100
    assert KeyPoints.from_array(POINTS.as_array().ravel()) == KeyPoints.from_array(POINTS.points) == POINTS


def test_knee_box_is_a_square_of_1_3_w():
    box = POINTS.knee_box()

    assert (box.width, box.height) == pytest.approx((130, 130))
    assert box.centre == pytest.approx((60, 98))
    assert POINTS.knee_box(2.0).width == 200


def test_the_knee_box_lies_around_the_middle_of_the_outermost_points():
    points = KeyPoints.from_array([(10, 5), (14, 7), (21, 6), (11, 12), (15, 10), (20, 14)])

    assert points.knee_box().centre == (15.5, 9.5)


@pytest.mark.parametrize(("degrees", "cos", "sin"), [(90, 0, 1), (-30, 0.75**0.5, -0.5)])
def test_points_turn_counter_clockwise_about_their_middle(degrees, cos, sin):
    points = KeyPoints.from_array([(10, 5), (14, 7), (21, 6), (11, 12), (15, 10), (19, 14)])  # about (15, 9)

    expected = [(15 + cos * (x - 15) + sin * (y - 9), 9 - sin * (x - 15) + cos * (y - 9)) for x, y in points.points]

    np.testing.assert_allclose(points.turned(degrees).as_array(), expected, atol=1e-9)


@pytest.mark.parametrize(
    ("degrees", "size", "place"),
    [(90, (60, 40), (10, 52)), (-90, (60, 40), (30, 8)), (30, (65, 72), (11.95, 34.84))],
)
def test_an_image_turns_counter_clockwise_and_is_held_whole(degrees, size, place):
    image = np.zeros((40, 60), np.float32)
    image[9:12, 7:10] = 1  # about (8, 10), counted from pixel centres

    out = turned(image, degrees)
    rows, columns = np.indices(out.shape)

    assert out.shape == size
    assert out.sum() == pytest.approx(9, abs=0.2)
    assert ((columns * out).sum() / out.sum(), (rows * out).sum() / out.sum()) == pytest.approx(place, abs=0.1)


def test_six_points_are_required():
    with pytest.raises(ValueError, match="6 key points"):
        KeyPoints(((0, 0),))


def test_the_main_joint_takes_another_margin():
    assert main_joint(Box(5, 0, 135, 130), POINTS, margin=0.5) == Box(5, 34, 135, 162)


def test_a_crop_is_a_copy_of_its_own(rng):
    image = rng.integers(0, 255, (50, 80), np.uint8)
    before = image.copy()

    crop(image, Box(0, 0, 80, 50))[:] = 0

    assert (image == before).all()
    assert (crop(image, Box(3, 4, 3.2, 4.2)) == image[4:5, 3:4]).all()


def test_a_crop_that_shrinks_averages_and_one_that_grows_interpolates():
    stripes = np.tile(np.array([0, 200], np.uint8), (8, 8))

    assert (crop(stripes, Box(0, 0, 16, 8), (4, 2)) == 100).all()
    assert crop(stripes, Box(0, 0, 2, 2), (8, 8))[0].tolist() == [0, 0, 25, 75, 125, 175, 200, 200]
    assert crop(stripes, Box(0, 0, 16, 8), (4, 8)).shape == (8, 4)


def test_half_an_image_is_the_mean_of_each_four_pixels():
    image = np.array([[0, 4, 7], [8, 12, 7], [7, 7, 7]], np.uint8)

    assert halved(image).tolist() == [[6]]
    assert halved(np.zeros((9, 12), np.uint8)).shape == (4, 6)
