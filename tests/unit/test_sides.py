"""Never the wrong side: what the detector says of films whose layout, borders or tags mislead."""

from dataclasses import replace

import numpy as np
import pytest

from kneeoa.imaging import Radiograph, decode
from kneeoa.tasks import Laterality
from training.evaluation.evaluate_films import composed_films
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film

pytestmark = pytest.mark.slow

R, L, UNKNOWN = Laterality.RIGHT, Laterality.LEFT, Laterality.UNKNOWN


def _radiograph(seed: int, **how) -> Radiograph:
    return decode(to_dicom(draw_film(np.random.default_rng(seed), spacing_mm=0.8, style="test", **how)))


@pytest.fixture(scope="module")
def bilateral() -> Radiograph:
    return _radiograph(5)


@pytest.fixture(scope="module")
def single() -> Radiograph:
    return _radiograph(7, sides=[L])


def _seen(detector, film, *how):
    facts, knees = detector.detect(film, *how)
    return [(knee.side, knee.side_source, knee.status) for knee in knees], facts["warnings"]


def _bordered(film: Radiograph, left: int, right: int, value: float) -> Radiograph:
    return replace(film, pixels=np.pad(film.pixels, ((0, 0), (left, right)), constant_values=value))


@pytest.mark.parametrize("value", [0.0, 4095.0])
@pytest.mark.parametrize(("left", "right"), [(0, 300), (300, 0), (180, 170), (0, 170)])
def test_a_single_knee_keeps_its_side_wherever_it_lies_on_a_wide_film(detector, single, left, right, value):
    wide = _bordered(single, left, right, value)

    untagged, _ = _seen(detector, wide)
    tagged, warned = _seen(detector, replace(wide, laterality=L))
    told, _ = _seen(detector, wide, L)

    assert untagged == [(UNKNOWN, "unknown", "found")]
    assert tagged == [(L, "dicom_tag", "found")]
    assert "laterality_conflict" not in warned
    assert told == [(L, "request", "found")]


@pytest.mark.parametrize("borders", [(40, 70, 0.0), (200, 0, 4095.0), (0, 33, 2000.0)])
def test_a_constant_border_changes_nothing(detector, bilateral, borders):
    plain, bordered = (detector.detect(film)[1] for film in (bilateral, _bordered(bilateral, *borders)))

    for knee, other in zip(plain, bordered, strict=True):
        assert (knee.side, knee.status, knee.score) == (other.side, other.status, other.score)
        assert knee.box.shifted(borders[0]).as_tuple() == pytest.approx(other.box.as_tuple())
        assert np.array_equal(knee.crop, other.crop)


@pytest.mark.parametrize("tag", [R, L])
def test_two_knees_and_one_side_named_is_a_conflict(detector, bilateral, tag):
    for knees, warned in (_seen(detector, replace(bilateral, laterality=tag)), _seen(detector, bilateral, tag)):
        assert knees == [(UNKNOWN, "unknown", "found")] * 2
        assert "laterality_conflict" in warned


def test_tags_that_contradict_each_other_tell_no_side(detector, single):
    knees, warned = _seen(detector, replace(single, contradictory=True), L)

    assert knees == [(UNKNOWN, "unknown", "found")]
    assert "laterality_conflict" in warned


@pytest.mark.parametrize("declared", [False, True])
def test_a_narrow_bilateral_film_shows_both_knees(detector, bilateral, declared):
    height, width = bilateral.pixels.shape
    cut = (width - round(0.75 * height)) // 2
    narrow = replace(bilateral, pixels=bilateral.pixels[:, cut : width - cut].copy(), bilateral=declared)
    assert narrow.pixels.shape[1] < 0.8 * height

    assert _seen(detector, narrow)[0] == [(R, "position", "found"), (L, "position", "found")]


@pytest.mark.parametrize("value", [0.0, 4095.0])
@pytest.mark.parametrize("blank", ["left", "right"])
def test_beside_a_blank_half_the_good_knee_is_found_and_the_other_told(detector, bilateral, blank, value):
    film, middle = bilateral.pixels.copy(), bilateral.pixels.shape[1] // 2
    film[:, :middle] = value if blank == "left" else film[:, :middle]
    film[:, middle:] = value if blank == "right" else film[:, middle:]
    statuses = ["not_found", "found"] if blank == "left" else ["found", "not_found"]

    guessed, _ = _seen(detector, replace(bilateral, pixels=film))
    declared, _ = _seen(detector, replace(bilateral, pixels=film, bilateral=True))

    assert guessed == [(UNKNOWN, "unknown", status) for status in statuses]  # a single knee with a border looks so too
    assert declared == [(side, "position", status) for side, status in zip((R, L), statuses, strict=True)]


def test_a_view_that_is_not_frontal_is_rejected_unless_asked_for(detector, single):
    lateral = replace(single, frontal=False, laterality=L)

    facts, (refused,) = detector.detect(lateral)
    asked, warned = _seen(detector, lateral, None, None, True)

    assert (refused.status, refused.reason, refused.side) == ("rejected", "not_frontal", L)
    assert facts["layout"] == "single"
    assert asked == [(L, "dicom_tag", "found")]
    assert "not_frontal" in warned


def test_an_upside_down_film_is_told_as_one(detector, bilateral):
    turned = replace(bilateral, pixels=np.ascontiguousarray(bilateral.pixels[::-1]))

    reasons = {(knee.status, knee.reason) for knee in detector.detect(turned)[1]}

    assert reasons == {("rejected", "upside_down")}


def test_overexposure_that_clips_the_joint_warns(detector, bilateral):
    exposed = replace(bilateral, pixels=np.minimum(1.5 * bilateral.pixels, bilateral.pixels.max()))

    assert "clipped_histogram" not in _seen(detector, bilateral)[1]
    assert "clipped_histogram" in _seen(detector, exposed)[1]


def test_a_single_knee_that_does_not_look_like_its_side_makes_it_doubtful(detector, knee_kl):
    film = composed_films(knee_kl, 4, 0, detector)[0].film
    right = replace(decode(to_dicom(replace(film, pixels=film.pixels[:, : film.pixels.shape[1] // 2]))), laterality=R)
    mirrored = replace(right, pixels=right.pixels[:, ::-1].copy())

    assert "side_doubtful" not in _seen(detector, right)[1]
    assert "side_doubtful" in _seen(detector, mirrored)[1]
    assert "side_doubtful" in _seen(detector, replace(right, laterality=L))[1]
    assert "side_doubtful" not in _seen(detector, replace(mirrored, rows_run_to_right=True))[1]
    assert "side_doubtful" not in _seen(detector, replace(mirrored, laterality=UNKNOWN))[1]
