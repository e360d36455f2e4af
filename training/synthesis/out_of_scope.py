"""What must not be graded silently, made from films of real or drawn knees: turned, cut, of a child.

For measuring and for tests; nothing learns from these. Pixels are floats 0 … 1 with bones bright.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kneeoa.geometry import KeyPoints
from training.synthesis.composed_films import Film

WINDOW_MM = 95.0, 140.0  # to either side of a knee, above and below it: a film of one knee
EDGES = ("left", "right", "top", "bottom")
_FEMUR_MM, _TIBIA_MM = (18.0, 26.0), (12.0, 18.0)  # from the joint to a growth plate, where W is 80


@dataclass(frozen=True)
class Single:
    """A film of one knee: pixels float32 (h, w), key points in them."""

    pixels: np.ndarray
    key_points: KeyPoints
    spacing_mm: float


def single(film: Film, at: int, degrees: float = 0.0) -> Single:
    """One knee of a film, turned about itself; its key points are those before it was turned."""
    points, mm = film.knees[at].key_points, film.spacing_mm
    pixels = turned(film.pixels, degrees, middle(points))
    (x, y), (dx, dy), (h, w) = middle(points), np.array(WINDOW_MM) / mm, film.pixels.shape
    x1, x2, y1, y2 = max(0, round(x - dx)), min(w, round(x + dx)), max(0, round(y - dy)), min(h, round(y + dy))
    return Single(np.ascontiguousarray(pixels[y1:y2, x1:x2]), points.shifted(-x1, -y1), mm)


def middle(points: KeyPoints) -> tuple[float, float]:
    """Of the joint."""
    x, y = points.as_array().mean(axis=0)
    return float(x), float(y)


def turned(pixels: np.ndarray, degrees: float, about: tuple[float, float] | None = None) -> np.ndarray:
    """Counter-clockwise, on a canvas of the same size; what comes in from outside has the grey of the film's sides."""
    if not degrees:
        return pixels
    h, w = pixels.shape
    matrix = cv2.getRotationMatrix2D(about or (w / 2, h / 2), degrees, 1)
    sides = float(np.median(pixels[:, [0, 1, -2, -1]]))
    return np.asarray(cv2.warpAffine(pixels, matrix, (w, h), borderMode=cv2.BORDER_CONSTANT, borderValue=sides))


def cut(film: Single, edge: str, share: float) -> np.ndarray:
    """A film that ends within the joint: ``share`` of W, or of the height between the key points' rows, is beyond its edge."""
    x, y = film.key_points.as_array().T
    w = film.key_points.width
    parts: dict[str, slice | tuple[slice, slice]] = {
        "left": np.s_[:, round(x.min() + share * w) :],
        "right": np.s_[:, : round(x.max() - share * w)],
        "top": np.s_[round(y.min() + share * np.ptp(y)) :],
        "bottom": np.s_[: round(y.max() - share * np.ptp(y))],
    }
    return np.ascontiguousarray(film.pixels[parts[edge]])


def with_growth_plates(rng: np.random.Generator, film: Single, style: str) -> np.ndarray:
    """Open growth plates in femur and tibia: lucent, wavy bands with a dense rim, from side to side.

    ``smooth`` ones are a sine wave of one thickness; ``ragged`` ones follow random steps, and thin out here and there; by these
    two the limits were chosen. ``arched`` ones are a wedge along an arch, and hold a look out.
    """
    femur, tibia = film.key_points.as_array().reshape(2, 3, 2)
    unit = film.key_points.width / 80  # pixels a millimetre of a knee of W = 80
    across = femur[2] - femur[0] + tibia[2] - tibia[0]
    cos, sin = across / np.linalg.norm(across)
    rows, columns = np.mgrid[: film.pixels.shape[0], : film.pixels.shape[1]].astype(np.float32)
    image, depth = film.pixels.copy(), rng.uniform(0.2, 0.45)
    for bone, sign, away in ((femur, -1, _FEMUR_MM), (tibia, 1, _TIBIA_MM)):
        x, y = bone[[0, 2]].mean(axis=0)
        u = ((columns - x) * cos + (rows - y) * sin) / unit
        v = sign * ((rows - y) * cos - (columns - x) * sin) / unit
        wave, thickness = _wave(rng, style, u)
        off = np.abs(v - rng.uniform(*away) - wave)
        inside = 1 / (1 + np.exp((np.abs(u) - np.ptp(bone[:, 0]) / unit / 2 + 1.5) / 0.6))
        lucent, dense = np.exp(-((2 * off / thickness) ** 4)), np.exp(-((off - thickness) ** 2))
        image *= 1 + inside * (rng.uniform(0.0, 0.1) * dense - depth * lucent)
    return np.clip(image, 0, 1).astype(np.float32)


def _wave(rng: np.random.Generator, style: str, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of a growth plate: how far it strays from its level, and its thickness, in mm, at places ``u`` mm from the middle."""
    if style == "arched":
        arch = rng.uniform(2, 5) * rng.choice([-1, 1]) * (1 - (u / 40) ** 2)
        thin, thick = rng.uniform(1.4, 2.4), rng.uniform(2.4, 4.0)
        return arch, np.interp(u * rng.choice([-1, 1]), (-40, 40), (thin, thick))
    if style == "smooth":
        wave = rng.uniform(1.0, 2.5) * np.sin(2 * np.pi * u / rng.uniform(30, 50) + rng.uniform(0, 6.3))
        return wave, np.full_like(u, rng.uniform(2.0, 3.5))
    at = np.linspace(-45, 45, 13)
    steps = np.interp(u, at, np.cumsum(rng.normal(0, 1.0, at.size)))
    middle_peak = rng.uniform(-5, 5) * np.exp(-((u / 9) ** 2))
    return steps - steps.mean() + middle_peak, np.interp(u, at, rng.uniform(1.4, 3.6, at.size))
