"""Which part of a film was exposed: blank borders are cut before anything is split or equalised."""

import cv2
import numpy as np

from kneeoa.geometry import halved

THUMBNAIL = 256  # [X] px; polarity and content are judged on a small copy, free of noise
FLAT = 0.15  # [X] of the film's contrast; rows and columns with less along them are collimation or air
HALF = 0.005  # [X] of the width; how close to the middle a blank half ends


def field_of(pixels: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns inside the borders whose every line is constant; the whole film where it is blank.

    Exact on purpose: a film with such a border and the same film without it are then read alike, pixel by pixel.
    """
    top, left, (bottom, right) = 0, 0, pixels.shape
    before = None
    while before != (before := (top, bottom, left, right)):
        while top < bottom and _constant(pixels[top, left:right]):
            top += 1
        while top < bottom and _constant(pixels[bottom - 1, left:right]):
            bottom -= 1
        while left < right and _constant(pixels[top:bottom, left]):
            left += 1
        while left < right and _constant(pixels[top:bottom, right - 1]):
            right -= 1
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else (slice(None), slice(None))


def _constant(line: np.ndarray) -> bool:
    return not line.size or bool((line == line[0]).all())


def blank_half(columns: slice, width: int) -> bool:
    """Whether a field takes one half of its film and the other is blank: a bilateral film that lost a half."""
    left, right = (columns.start or 0) / width, 1 - (width if columns.stop is None else columns.stop) / width
    return abs(max(left, right) - 0.5) < HALF and min(left, right) < 0.25


def lively(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """Where there is contrast along the columns, then along the rows: x1, x2, y1, y2 as shares of the sides."""
    film = thumbnail(pixels)
    low, high = np.percentile(film, (1, 99))
    ends: list[float] = []
    for _ in range(2):
        dark, bright = np.percentile(film, (5, 95), axis=0)
        found = np.flatnonzero(bright - dark > FLAT * (high - low))
        first, stop = (int(found[0]), int(found[-1]) + 1) if found.size else (0, film.shape[1])
        ends += [first / film.shape[1], stop / film.shape[1]]
        film = film[:, first:stop].T
    return ends[0], ends[1], ends[2], ends[3]


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """The film in small, at most `THUMBNAIL` pixels a side."""
    while min(pixels.shape) >= 2 and max(pixels.shape) >= 4 * THUMBNAIL:
        pixels = halved(pixels)
    scale = THUMBNAIL / max(pixels.shape)
    size = tuple(max(1, round(scale * side)) for side in reversed(pixels.shape))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels
