"""Draws whole synthetic films with all eight labels controlled and exact geometry."""

from collections.abc import Sequence

import numpy as np

from kneeoa.geometry import KeyPoints
from kneeoa.tasks import Laterality
from training.films import FILM_MM, KNEE_SD_MM, KNEE_X_MM, KNEE_Y_MM, Film, FilmKnee, finish
from training.phantom.anatomy import draw_outlines
from training.phantom.grades import kl_of, sample_grades
from training.phantom.render import draw_leg

__all__ = ["draw_film", "draw_joint", "kl_of", "sample_grades"]

Grades = dict[str, int]


def draw_film(
    rng: np.random.Generator, grades: Sequence[Grades] | None = None, spacing_mm: float = 0.3, style: str = "train"
) -> Film:
    """A bilateral film, right knee at the image's left; ``grades`` in that order, random where not given."""
    right, left = grades or (sample_grades(rng), sample_grades(rng))
    width, height = (round(v / spacing_mm) for v in FILM_MM)
    film, knees = np.full((height, width), rng.uniform(0.02, 0.1), np.float32), []
    for side, mean_x, wanted in zip((Laterality.RIGHT, Laterality.LEFT), KNEE_X_MM, (right, left), strict=True):
        x, y = rng.normal((mean_x, KNEE_Y_MM), 0.6 * np.array(KNEE_SD_MM)) / spacing_mm
        x = width - x if side is Laterality.LEFT else x  # every knee is drawn as a right one
        leg, points = draw_leg(rng, draw_outlines(rng, wanted), film.shape, (x, y), spacing_mm, style)
        if side is Laterality.LEFT:
            leg, points = leg[:, ::-1], points.mirrored(width)
        film = np.maximum(film, leg)
        knees.append(FilmKnee(side, points, points.knee_box(), wanted))
    return Film(finish(rng, film, spacing_mm), spacing_mm, tuple(knees))


def draw_joint(
    rng: np.random.Generator, grades: Grades | None = None, spacing_mm: float = 0.45, style: str = "train"
) -> tuple[np.ndarray, KeyPoints, Grades]:
    """One right knee joint: uint8 (s, s) crop about 115 mm wide, key points in its pixels, grades."""
    grades = grades or sample_grades(rng)
    side = round(115 / spacing_mm)
    centre = tuple(rng.normal(side / 2, 3 / spacing_mm, 2))
    leg, points = draw_leg(rng, draw_outlines(rng, grades), (side, side), centre, spacing_mm, style)
    return (finish(rng, leg, spacing_mm, room=False) * 255).astype(np.uint8), points, grades
