"""Joint spaces in phantoms, whose geometry is known, and in real knees, whose landmarks are."""

import numpy as np
import pytest

from kneeoa.geometry import KeyPoints
from kneeoa.measurement.joint_space import LOADED, joint_space_of, joint_spaces
from training.data.knee_kl import SIX, read_knee_kl
from training.data.landmarks import GOOD_FIT, as_right, joint_space_mm
from training.synthesis.phantom.anatomy import draw_anatomy, draw_size, surface_y
from training.synthesis.phantom.film import draw_joint
from training.synthesis.phantom.grades import sample_grades
from training.synthesis.phantom.style import STYLES


def drawn(seed: int, mm: float) -> tuple[np.ndarray, KeyPoints, list[float]]:
    """A phantom joint, its key points, and its true narrowest spaces in mm, lateral and medial."""
    rng = np.random.default_rng(seed)
    grades = sample_grades(rng)
    state = rng.bit_generator.state
    anatomy = draw_anatomy(rng, grades, STYLES["test"], draw_size(rng))
    rng.bit_generator.state = state
    image, knee = draw_joint(rng, grades, style="test", spacing_mm=mm)
    left, right = anatomy.key_points.as_array()[[3, 5], 0]
    shares = (np.linspace(*LOADED, 30), 1 - np.linspace(*LOADED, 30))
    columns = [left + share * (right - left) for share in shares]
    true = [(surface_y(anatomy.plateau, x) - surface_y(anatomy.condyles, x)).min() for x in columns]
    return image, knee.key_points, [max(width, 0.0) for width in true]


@pytest.mark.parametrize(("mm", "off"), [(0.2, 0.2), (0.4, 0.3)])  # measured on 60, key points 1.6 mm off: 0.13, 0.23
def test_the_space_between_a_phantoms_bones_is_measured(mm, off):
    pairs = []
    for seed in range(40):
        image, key_points, true = drawn(seed, mm)
        pairs += [(space.width * mm, width) for space, width in zip(joint_spaces(image, key_points), true, strict=True)]
    measured, true = np.array(pairs).T

    assert np.abs(measured - true).mean() < off
    assert np.corrcoef(measured, true)[0, 1] > 0.97
    assert measured[true < 0.1].max() < 0.7  # bones that touch have no edges there, and others nearby


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


def test_real_knees_agree_with_their_landmarks(knee_kl):
    """Landmarks are a registration's, a millimetre or two off themselves."""
    knees = [k for k in read_knee_kl(knee_kl, "val") if k.landmarks is not None and k.fit_score >= GOOD_FIT]
    measured = []
    for knee in knees:
        image, points = as_right(knee)
        spaces = joint_spaces(image, KeyPoints.from_array(points[SIX]))
        measured.append([space.width * knee.mm_per_px for space in spaces])
    known = np.array([joint_space_mm(knee) for knee in knees])

    for of_known, of_measured in zip(known.T, np.array(measured).T, strict=True):
        assert np.corrcoef(of_known, of_measured)[0, 1] > 0.88  # 0.92 on 56, lateral and medial


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
