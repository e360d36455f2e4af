"""Joint spaces in phantoms, whose geometry is known, and in real knees, whose landmarks are."""

import numpy as np
import pytest

from kneeoa.measurement.joint_space import LOADED, joint_space_of, joint_spaces
from training.data.knee_kl import read_knee_kl
from training.evaluation.joint_spaces import agreement, drawn, on_knees, on_phantoms


@pytest.mark.parametrize(("mm", "off"), [(0.2, 0.2), (0.4, 0.3)])  # measured on 100: 0.15, 0.24
def test_the_space_between_a_phantoms_bones_is_measured(mm, off):
    measured, true = on_phantoms(40, mm, seed=0)
    found = agreement(measured, true)

    assert found["mean_absolute"] < off
    assert found["r"] > 0.97
    assert np.mean(measured[true < 0.1] < 0.5) > 0.8  # bones that touch have no edges there, and others nearby


def test_real_knees_as_served_agree_with_their_landmarks(knee_kl, detector):
    """Landmarks are a registration's, a millimetre or two off themselves."""
    measured, known = on_knees(detector.cascade, read_knee_kl(knee_kl, "val"))

    assert len(measured) == 56
    for of_measured, of_known in zip(measured.T, known.T, strict=True):
        assert agreement(of_measured, of_known)["r"] > 0.87  # 0.94 lateral, 0.90 medial


def test_agreement_is_bland_and_altmans():
    found = agreement(np.array([1.0, 2.0, 4.0]), np.array([2.0, 3.0, 3.0]))

    assert (found["n"], found["bias"], found["mean_absolute"]) == (3, -0.333, 1.0)
    assert found["limits"] == pytest.approx(1.96 * 1.1547, abs=0.001)


def test_mirror_images_have_mirrored_spaces():
    image, key_points, _ = drawn(3, 0.3)
    left, right = joint_spaces(image, key_points)
    mirrored = joint_spaces(np.ascontiguousarray(image[:, ::-1]), key_points.mirrored(image.shape[1]))

    assert [s.width for s in mirrored] == pytest.approx([right.width, left.width], abs=0.7)  # px
    assert left.x < right.x


def test_surfaces_traced_in_noise_stay_near_the_joint_and_never_cross(rng):
    """They would in a fifth of these films: there the space is closed, not negative."""
    key_points = drawn(3, 0.3)[1]
    corners = key_points.as_array()
    (left, right), w = corners[[3, 5], 0], key_points.width
    noise = [rng.integers(0, 255, (400, 400), np.uint8) for _ in range(20)]
    widths = []
    for film in (*noise, np.zeros((400, 400), np.uint8), rng.integers(0, 255, (50, 60), np.uint8)):
        for space in joint_spaces(film, key_points):
            share = (space.x - left) / (right - left)
            assert LOADED[0] - 1e-6 < min(share, 1 - share) < LOADED[1] + 1e-6
            assert corners[:3, 1].min() - 0.15 * w < space.y1 <= space.y2 < corners[3:, 1].max() + 0.15 * w
            widths.append(space.width)

    assert min(widths) == 0


DETECTED = {"knee": "L", "main_joint": [100.0, 50.0, 300.0, 170.0]}
POINTS = {"femur_left": [120, 90], "femur_notch": [200, 80], "femur_right": [280, 90]}
POINTS |= {"tibia_left": [120, 120], "tibia_eminence": [200, 115], "tibia_right": [280, 120]}


def bands(scale: int = 1) -> np.ndarray:
    """A joint of which the space is 10 film pixels wide: rows 50 to 60 of the crop."""
    joint = np.full((120, 200), 200, np.uint8)
    joint[50:60] = 60
    return joint.repeat(scale, 0).repeat(scale, 1)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_reply_has_widths_and_their_places_in_film_pixels(scale):
    knee = {**DETECTED, "key_points": POINTS}

    told = joint_space_of(knee, bands(scale), (0.2, 0.4))

    assert list(told) == ["lateral", "medial"]
    for compartment, side in (("lateral", 1), ("medial", -1)):
        for place in ("minimum", "fixed"):
            width = told[compartment][place]
            (x, y1), (x2, y2) = width["ends"]
            assert (y1, y2) == (pytest.approx(100, abs=0.3), pytest.approx(110, abs=0.3))
            assert x == x2
            assert (x > 200) == (side > 0)  # a left knee has its lateral side at the image's right
            assert width["px"] == pytest.approx(10, abs=0.4)
            assert width["mm"] == pytest.approx(0.2 * width["px"], abs=0.01)  # the row's spacing
        assert told[compartment]["fixed"]["ends"][0][0] == pytest.approx(200 + side * 40, abs=1)  # 0.25 of 160 px
    assert joint_space_of(knee, bands(scale), None)["medial"]["minimum"]["mm"] is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"knee": "unknown"},
        {"key_points": None},
        {"main_joint": None},
        {"main_joint": [100.0, 50.0, 100.2, 170.0]},
        {"main_joint": [3e5, -1e6, -1e6, 1e6]},
        {"key_points": POINTS | {"femur_left": [290, 90]}},
        {"key_points": dict.fromkeys(POINTS, [200, 100])},
        {"key_points": POINTS | {"tibia_right": [1e6, 120]}},
    ],
    ids=str,
)
def test_where_nothing_can_be_measured_nothing_is_said(wrong):
    assert joint_space_of({**DETECTED, "key_points": POINTS, **wrong}, bands(), (0.2, 0.2)) is None
