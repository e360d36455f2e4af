"""A replaced joint is rejected; a bright, an over-exposed or a screwed one is not."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from kneeoa.detection.implant import shows_implant
from kneeoa.geometry import Box, KeyPoints
from kneeoa.imaging import Radiograph, decode
from kneeoa.tasks import Laterality
from training.data.knee_kl import read_knee_kl
from training.evaluation.evaluate_films import composed_films
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film

FINE = 4  # times finer than the film's pixels, for smooth edges
Shape = tuple[str, tuple[float, ...]]
# In widths of the joint, from its centre: (x, y, half width, half height) of ellipses, (x1, y1, x2, y2) of rectangles.
STYLES: dict[str, tuple[Shape, ...]] = {
    "condylar": (
        ("ellipse", (-0.22, -0.17, 0.22, 0.16)),
        ("ellipse", (0.22, -0.17, 0.22, 0.16)),
        ("rectangle", (-0.38, -0.34, 0.38, -0.2)),
        ("rectangle", (-0.44, 0.07, 0.44, 0.12)),
        ("rectangle", (-0.07, 0.12, 0.07, 0.5)),
    ),
    "hinged": (
        ("rectangle", (-0.36, -0.32, 0.36, -0.03)),
        ("rectangle", (-0.07, -0.75, 0.07, -0.3)),
        ("rectangle", (-0.42, 0.05, 0.42, 0.14)),
        ("rectangle", (-0.08, 0.1, 0.08, 0.7)),
    ),
    "half": (
        ("ellipse", (-0.24, -0.12, 0.17, 0.1)),
        ("rectangle", (-0.42, 0.06, -0.08, 0.11)),
        ("rectangle", (-0.28, 0.1, -0.24, 0.2)),
    ),
}


def replaced(film: np.ndarray, points: KeyPoints, style: str, brightest: float) -> np.ndarray:
    """A film, bones bright, with a knee replacement drawn at a joint."""
    mask = np.zeros([FINE * side for side in film.shape], np.uint8)
    centre, unit = FINE * points.as_array().mean(axis=0), FINE * points.width
    for kind, (a, b, c, d) in STYLES[style]:
        if kind == "ellipse":
            x, y = (round(v) for v in centre + np.array((a, b)) * unit)
            cv2.ellipse(mask, (x, y), (round(c * unit), round(d * unit)), 0, 0, 360, 255, -1)
        else:
            corners = [[round(v) for v in centre + np.array(at) * unit] for at in ((a, b), (c, d))]
            cv2.rectangle(mask, corners[0], corners[1], 255, -1)
    share = cv2.resize(mask, film.shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    share = cv2.GaussianBlur(share, (0, 0), 0.8)
    return (1 - share) * film + share * np.float32(brightest)


@pytest.fixture(scope="module")
def phantom() -> Radiograph:
    return decode(to_dicom(draw_film(np.random.default_rng(5), spacing_mm=0.8, style="test")))


@pytest.mark.parametrize("style", STYLES)
def test_a_replaced_knee_is_rejected_and_the_other_one_graded(detector, phantom, style):
    plain = detector.detect(phantom)[1]
    points = plain[0].key_points
    assert [knee.status for knee in plain] == ["found", "found"]
    film = replace(phantom, pixels=replaced(phantom.pixels, points, style, 1.3 * phantom.pixels.max()))

    right, left = detector.detect(film)[1]

    assert (right.side, right.status, right.reason, right.crop) == (Laterality.RIGHT, "rejected", "implant", None)
    assert (left.side, left.status) == (Laterality.LEFT, "found")


def test_a_film_of_a_replaced_knee_alone_is_not_looked_at_inverted(detector, phantom):
    alone = decode(to_dicom(draw_film(np.random.default_rng(7), spacing_mm=0.8, style="test", sides=[Laterality.LEFT])))
    points = detector.detect(alone)[1][0].key_points
    film = replace(alone, pixels=replaced(alone.pixels, points, "hinged", 1.3 * alone.pixels.max()))

    facts, (knee,) = detector.detect(film)

    assert (knee.status, knee.reason) == ("rejected", "implant")
    assert facts["warnings"] == []


@pytest.mark.parametrize("exposure", [1.2, 1.5, 2, 3])
def test_overexposure_is_no_implant(detector, phantom, exposure):
    film = replace(phantom, pixels=np.minimum(exposure * phantom.pixels, phantom.pixels.max()))

    assert "implant" not in {knee.reason for knee in detector.detect(film)[1]}


def test_two_screws_are_no_implant(detector, phantom):
    film = phantom.pixels.copy()
    for knee in detector.detect(phantom)[1]:
        (x, y), size = knee.box.centre, knee.box.width
        for dy in (-0.25, 0.25):
            tip = round(x + 0.15 * size), round(y + dy * size)
            cv2.line(film, (round(x - 0.15 * size), tip[1]), tip, 1.3 * float(film.max()), max(1, round(0.02 * size)))

    assert [knee.status for knee in detector.detect(replace(phantom, pixels=film))[1]] == ["found", "found"]


def test_a_joint_without_contrast_is_no_implant():
    assert not shows_implant(np.zeros((80, 80), np.float32), Box(10, 10, 60, 60))


def test_real_knees_are_told_from_replaced_ones(knee_kl):
    marked = [k for k in read_knee_kl(knee_kl, "val") if k.well_marked and not k.inverted]
    films = [(knee.image().astype(np.float32), knee.key_points) for knee in marked]
    assert len(films) > 20

    alarms = [shows_implant(film, points.knee_box()) for film, points in films]
    exposed = [shows_implant(np.minimum(1.3 * film, 255), points.knee_box()) for film, points in films]
    found = {
        style: np.mean([shows_implant(replaced(0.8 * f, p, style, 255), p.knee_box()) for f, p in films])
        for style in STYLES
    }

    assert np.mean(alarms) <= 0.01
    assert np.mean(exposed) <= 0.05
    assert min(found.values()) >= 0.95


def test_the_reply_of_a_composed_film_is_never_ok(detector, service, knee_kl):
    film = composed_films(knee_kl, 4, 0, detector)[0].film
    pixels = replaced(0.8 * film.pixels, film.knees[1].key_points, "condylar", 1.0)

    reply = service.grade(to_dicom(replace(film, pixels=pixels))).message

    assert reply["status"] == "partial"
    assert [(knee["status"], knee["reason"]) for knee in reply["knees"]] == [("graded", None), ("rejected", "implant")]
    assert reply["knees"][1]["grades"] is None
