"""Prepared single-knee images for the detector: composed films through the very preparation that serving uses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kneeoa.geometry import KeyPoints
from kneeoa.imaging.prepare import prepare_single, split_bilateral
from kneeoa.tasks import Laterality
from training.data.knee_kl import Knee
from training.synthesis.composed_films import Film, compose

WITHOUT_KNEE = 0.25  # share of views that show no upright knee: turned films and shafts only


@dataclass(frozen=True)
class View:
    """A prepared single-knee image, uint8 (h, w), with its knee; ``key_points`` None where there is none."""

    image: np.ndarray
    key_points: KeyPoints | None


def film_views(film: Film) -> list[View]:
    """Both halves of a bilateral film, each with the knee on it."""
    knees = sorted(film.knees, key=lambda knee: knee.box.x1)
    columns = split_bilateral(film.pixels.shape[1])
    return [
        View(prepare_single(film.pixels, c), knee.key_points.shifted(-c[0]))
        for c, knee in zip(columns, knees, strict=True)
    ]


def without_knee(rng: np.random.Generator, view: View) -> View:
    """What must not be found: a knee lying on its side or upside down, or a shaft alone."""
    kind = int(rng.integers(4))
    if kind < 3:
        return View(np.ascontiguousarray(np.rot90(view.image, kind + 1)), None)
    assert view.key_points is not None
    top = int(view.key_points.knee_box().y1)
    return View(view.image[: max(top, 64)], None)


def with_some_without(rng: np.random.Generator, view: View) -> list[View]:
    """The view and, for a share of them, one without an upright knee."""
    return [view, without_knee(rng, view)] if rng.random() < WITHOUT_KNEE else [view]


def pairs(rng: np.random.Generator, knees: Sequence[Knee], number: int) -> list[list[Knee]]:
    """Random right and left knees, in the order a film shows them."""
    sides = [[knee for knee in knees if knee.side is side] for side in (Laterality.RIGHT, Laterality.LEFT)]
    return [[side[rng.integers(len(side))] for side in sides] for _ in range(number)]


def compose_views(
    rng: np.random.Generator,
    knees: Sequence[Knee],
    key_points: dict[str, KeyPoints],
    films: int,
    spacing_mm: float = 0.8,
) -> list[View]:
    """Views of ``films`` composed films; the detector sees 2 mm pixels, so 0.8 mm films lose it nothing."""
    views = []
    for pair in pairs(rng, knees, films):
        for view in film_views(compose(rng, pair, key_points, spacing_mm)):
            views += with_some_without(rng, view)
    return views
