"""Composes films from knee crops: place, shafts, soft tissue, background, markers, collimation, noise, either polarity.

The surroundings are synthetic, boxes and key points are exact. Films are floats 0 … 1 with bones bright until they are
stored by `training.synthesis.dicom_writer`.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kneeoa.geometry import Box, KeyPoints, crop
from kneeoa.tasks import Laterality

FILM_MM = (430.0, 415.0)  # width and height of a real bilateral OAI film
KNEE_X_MM, KNEE_Y_MM = (150.0, 330.0), 208.0  # mean knee centres: image left, image right; from the top
KNEE_SD_MM = (15.0, 25.0)


@dataclass(frozen=True)
class FilmKnee:
    """A knee on a film; box and key points in film pixels, grades by task name."""

    side: Laterality
    key_points: KeyPoints
    box: Box
    grades: dict[str, int]


@dataclass(frozen=True)
class Film:
    """Pixels float32 (h, w), 0 … 1, bones bright; ``spacing_mm`` is the size of a pixel."""

    pixels: np.ndarray
    spacing_mm: float
    knees: tuple[FilmKnee, ...]


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    coarse = rng.normal(0, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_CUBIC)


def _leg(
    rng: np.random.Generator,
    image: np.ndarray,
    scale: float,
    centre: tuple[float, float],
    shape: tuple[int, int],
    mm: float,
) -> tuple[np.ndarray, np.ndarray]:
    """One leg on a canvas: the crop, its edges carried on as shafts and soft tissue; and the leg's outline, 0 … 1."""
    knee = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    x, y = centre[0] - knee.shape[1] / 2, centre[1] - knee.shape[0] / 2
    x, y = round(x), round(y)
    canvas = crop(knee, Box(-x, -y, shape[1] - x, shape[0] - y)).astype(np.float32) / 255
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    outside = np.maximum(np.abs(rows - centre[1]) - knee.shape[0] / 2, np.abs(columns - centre[0]) - knee.shape[1] / 2)
    fade = np.clip(outside / (25 / mm), 0, 1)
    blurred = cv2.GaussianBlur(canvas, (0, 0), 3 / mm)
    texture = 0.05 * _smooth_noise(rng, shape, 24) + 0.03 * _smooth_noise(rng, shape, 90)
    canvas += fade * (blurred - canvas) + np.clip(outside / (4 / mm), 0, 1) * texture
    bend = rng.normal(0, 0.05) * (rows - centre[1])
    half = rng.uniform(58, 95) / mm * (1 + rng.normal(0, 0.12) * (rows - centre[1]) / shape[0])
    edge = rng.uniform(4, 14) / mm
    outline = 1 / (1 + np.exp((np.abs(columns - centre[0] - bend) - half) / edge))
    return canvas, outline


def compose(
    rng: np.random.Generator, knees: list, key_points: dict[str, KeyPoints], spacing_mm: float | None = None
) -> Film:
    """A bilateral film from a right and a left `Knee` (in image order: right knee at the image's left)."""
    mm = spacing_mm or rng.uniform(0.2, 0.3)
    width, height = (round(v / mm * rng.uniform(0.95, 1.05)) for v in FILM_MM)
    shape = height, width
    background = rng.uniform(0, 0.25)
    film = np.full(shape, background, np.float32)
    placed = []
    for knee, mean_x in zip(knees, KNEE_X_MM, strict=True):
        image = knee.image()
        scale = (knee.mm_per_px or rng.normal(100, 6) / image.shape[1]) / mm
        x, y = rng.normal((mean_x, KNEE_Y_MM), KNEE_SD_MM) / mm
        x = float(np.clip(x, 62 / mm, width - 62 / mm))
        x = min(x, width / 2 - 50 / mm) if mean_x < FILM_MM[0] / 2 else max(x, width / 2 + 50 / mm)
        canvas, outline = _leg(rng, image, scale, (x, y), shape, mm)
        half = np.s_[:, : width // 2] if mean_x < FILM_MM[0] / 2 else np.s_[:, width // 2 :]
        film[half] = (film + outline * (canvas - film))[half]
        size = image.shape[1] * scale
        corner = round(x - round(size) / 2), round(y - round(image.shape[0] * scale) / 2)
        points = key_points[knee.name].scaled(scale).shifted(*corner)
        placed.append(FilmKnee(knee.side, points, points.knee_box(), dict(knee.grades)))
    return Film(_finish(rng, film, mm), mm, tuple(placed))


def _finish(rng: np.random.Generator, film: np.ndarray, mm: float) -> np.ndarray:
    """What the machine and the room add: tone curve, scatter, marker, collimation, noise."""
    shape = film.shape
    film = np.clip(film, 0, 1) ** rng.uniform(0.6, 1.5) * (1 + 0.1 * _smooth_noise(rng, shape, 3))
    if rng.random() < 0.6:
        marker = np.zeros(shape, np.uint8)
        for letter, x in (("R", rng.uniform(0.02, 0.35)), ("L", rng.uniform(0.6, 0.9))):
            place = int(x * shape[1]), int(rng.uniform(0.06, 0.25) * shape[0])
            cv2.putText(marker, letter, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5 / mm, 255, max(round(1.2 / mm), 1))
        film = np.maximum(film, marker / np.float32(255))
    if rng.random() < 0.4:
        left, right, top, bottom = (rng.uniform(0, 0.05, 4) * (shape[1], shape[1], shape[0], shape[0])).astype(int)
        shutter = np.full(shape, rng.choice([0.0, 0.02, 0.5]), np.float32)
        inside = np.s_[top : shape[0] - bottom, left : shape[1] - right]
        shutter[inside] = film[inside]
        film = shutter
    film = film + rng.normal(0, rng.uniform(0.003, 0.02), shape)
    return np.clip(film, 0, 1).astype(np.float32)
