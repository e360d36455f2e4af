"""Whole films and single joints, with labels and exact geometry."""

from collections.abc import Sequence

import cv2
import numpy as np

from kneeoa.tasks import Laterality
from training.synthesis.composed_films import Film, FilmKnee
from training.synthesis.phantom.anatomy import draw_anatomy, draw_size
from training.synthesis.phantom.grades import sample_grades
from training.synthesis.phantom.physics import expose
from training.synthesis.phantom.render import draw_leg
from training.synthesis.phantom.style import STYLES

Grades = dict[str, int]
RIGHT, LEFT = Laterality.RIGHT, Laterality.LEFT

BILATERAL_MM, SINGLE_MM = (430.0, (350.0, 415.0)), (200.0, (290.0, 310.0))  # width, range of heights
# Knee centres of 748 OAI knees: distance from the film's own side edge (mean, s.d.) and from the top, in mm.
_FROM_EDGE_MM, _FROM_TOP_MM = (148.0, 20.0), (208.0, 26.0)


def _place(rng: np.random.Generator, width: float, height: float, single: bool) -> tuple[float, float]:
    """Where a right knee's joint goes, in mm: from the left edge and from the top; never cut off, never across the middle."""
    x = rng.normal(width / 2, 8) if single else rng.normal(*_FROM_EDGE_MM)
    y = rng.normal(height / 2, 12) if single else rng.normal(*_FROM_TOP_MM) + (height - 415) / 2
    reach = 70.0
    return float(np.clip(x, reach, (width if single else width / 2 + 18) - reach)), float(np.clip(y, 80, height - 80))


def _marker(rng: np.random.Generator, film: np.ndarray, side: Laterality, mm: float, x_mm: float) -> None:
    """A lead letter beside the knee; lead lets nothing through. Drawn in place."""
    at = round(x_mm / mm), round(rng.uniform(0.08, 0.9) * film.shape[0])
    size, thick = rng.uniform(0.35, 0.6) / mm, max(round(rng.uniform(1.0, 2.0) / mm), 1)
    lead = np.zeros(film.shape, np.uint8)
    cv2.putText(lead, side.value, at, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick, cv2.LINE_AA)
    film += lead * np.float32(2.2 / 255)


def _collimate(rng: np.random.Generator, film: np.ndarray, mm: float) -> np.ndarray:
    """Shutters at the edges: outside the beam the film is flat, dark or (as some systems print it) bright."""
    sides, used = rng.uniform(0, 18, 4) / mm, rng.random(4) < 0.6
    left, right, top, bottom = (sides * used).astype(int)
    inside = np.zeros(film.shape, np.float32)
    inside[top : film.shape[0] - bottom, left : film.shape[1] - right] = 1
    inside = cv2.GaussianBlur(inside, (0, 0), max(0.4 / mm, 0.5))
    return inside * film + (1 - inside) * np.float32(rng.choice([0.0, 0.0, 0.03, 0.9]))


def draw_film(
    rng: np.random.Generator,
    grades: Sequence[Grades] | None = None,
    *,
    spacing_mm: float = 0.3,
    sides: Sequence[Laterality] = (RIGHT, LEFT),
    style: str = "train",
) -> Film:
    """A film as the clinic displays it: the right knee at the image's left.

    Parameters
    ----------
    grades : sequence of dict, optional
        One set of eight grades per side, in the order of ``sides``; random where not given.
    spacing_mm : float
        Size of a pixel. A bilateral film is 430 mm wide, a single one 200 mm.
    sides : sequence of Laterality
        Both sides, or one of them for a single-knee film.
    style : {"train", "test"}
        Range of looks.
    """
    look, single = STYLES[style], len(sides) == 1
    wanted = list(grades) if grades is not None else [sample_grades(rng) for _ in sides]
    width_mm, heights = SINGLE_MM if single else BILATERAL_MM
    height_mm = rng.uniform(*heights)
    height, width = round(height_mm / spacing_mm), round(width_mm / spacing_mm)
    reach = width if single else round(0.62 * width)  # a leg needs no canvas on the other leg's side
    level = _place(rng, width_mm, height_mm, single)[1]  # both knees stand on one floor
    size = draw_size(rng)
    total, knees = np.zeros((height, width), np.float32), []
    for side, own in zip(sides, wanted, strict=True):
        x = _place(rng, width_mm, height_mm, single)[0]
        origin = x / spacing_mm, (level + rng.normal(0, 5)) / spacing_mm
        anatomy = draw_anatomy(rng, own, look, size * rng.uniform(0.98, 1.02))
        leg, points = draw_leg(rng, anatomy, own, (height, reach), origin, spacing_mm, look)
        if side is LEFT:  # every knee is drawn as a right one
            total[:, width - reach :] += leg[:, ::-1]
            points = points.mirrored(width)
        else:
            total[:, :reach] += leg
        knees.append(FilmKnee(side, points, points.knee_box(), dict(own)))
    if rng.random() < 0.8:
        for side in sides:
            from_edge = rng.uniform(8, 40) if not single else rng.uniform(6, 20)
            _marker(rng, total, side, spacing_mm, width_mm - from_edge - 15 if side is LEFT else from_edge)
    film = expose(rng, total, spacing_mm, look)
    if rng.random() < 0.5:
        film = _collimate(rng, film, spacing_mm)
    return Film(film, spacing_mm, tuple(knees))


def draw_joint(
    rng: np.random.Generator,
    grades: Grades | None = None,
    *,
    side: Laterality = RIGHT,
    spacing_mm: float = 0.4,
    style: str = "train",
) -> tuple[np.ndarray, FilmKnee]:
    """One knee region alone, for training graders: uint8 (s, s), about 1.5 W wide, and its knee in crop pixels."""
    look, grades = STYLES[style], grades if grades is not None else sample_grades(rng)
    anatomy = draw_anatomy(rng, grades, look, draw_size(rng))
    width = anatomy.key_points.width / spacing_mm
    size = round(rng.uniform(1.45, 1.55) * width)
    x, y = size / 2 + np.clip(rng.normal(0, 0.03, 2), -0.06, 0.06) * width
    leg, points = draw_leg(rng, anatomy, grades, (size, size), (x, y), spacing_mm, look)
    crop = (expose(rng, leg, spacing_mm, look) * 255).astype(np.uint8)
    if side is LEFT:
        crop, points = np.ascontiguousarray(crop[:, ::-1]), points.mirrored(size)
    return crop, FilmKnee(side, points, points.knee_box(), dict(grades))
