"""The image preparation of Wang et al. 2021: invert, split, 8 bit, equalise, in the order of their text.

Marks in the docstrings: **[P]** in the paper, **[X]** our choice where the paper says nothing.
"""

import cv2
import numpy as np

from kneeoa.errors import NotARadiograph
from kneeoa.imaging.field import field_of, lively, thumbnail
from kneeoa.imaging.radiograph import LEVELS, Radiograph, as_levels

BILATERAL_ASPECT = 0.8  # [X] width / height from which a film can show both knees
MIN_SIDE = 64  # [X] px; below, no knee joint can be told from noise
MAX_ASPECT = 10  # [X] longer side / shorter; half of a long-leg film has 7, and a strip costs the search dearly
CLIP_PERCENTILES = (5.0, 99.0)  # [X] the ancestors' process_xray(img, 5, 99)
RANKED_PIXELS = 1_000_000  # [X] of a larger image every second, third … row is counted
FRAME = 0.05  # [X] share of the width, at either side, that counts as background


def looks_bilateral(height: int, width: int) -> bool:
    """[X] Whether a film is wide enough for two knees; a hint for films on which nothing is found."""
    return width >= BILATERAL_ASPECT * height


def correct_polarity(pixels: np.ndarray, declared: str | None) -> tuple[np.ndarray, str]:
    """[P] Invert films with bright background and dark knees; how to find them is [X].

    Two medians are compared: the outer 5 % of columns at both sides (background), and the central third (knee; of each
    half where the film is wide enough for two, since the middle of a bilateral film is the gap between the legs). Flat
    rows and columns are trimmed first, for collimation frames a film in black or white whatever its polarity. Top and
    bottom are left out, because the leg runs through them.

    - Declared (DICOM, already applied by the reader): the tag stands. Nothing measured on grey values alone was right
      often enough to overrule it; the detector looks at the inverted film where it finds no knee.
    - No declaration (raster): invert when the sides are brighter than the centre.

    Parameters
    ----------
    pixels : ndarray of shape (h, w)
        Arbitrary units, finite.
    declared : ``monochrome1``, ``monochrome2`` or None

    Returns
    -------
    (pixels, rule)
        The rule is the declaration itself, ``frame_brighter`` or ``as_is``.
    """
    if declared is not None:
        return pixels, declared
    film = _trim_flat(thumbnail(pixels[field_of(pixels)]))
    edge = max(1, round(FRAME * film.shape[1]))
    sides = np.median(np.concatenate([film[:, :edge], film[:, -edge:]], axis=1))
    if sides > np.median(_centre(film)):
        return inverted(pixels), "frame_brighter"
    return pixels, "as_is"


def inverted(pixels: np.ndarray) -> np.ndarray:
    """The film with the opposite polarity, in the same range of values."""
    return pixels.max() - pixels + pixels.min()


def for_display(radiograph: Radiograph, rule: str) -> np.ndarray:
    """The film as the detector read it, bright bones, uint8 (h, w); ``rule`` is the reply's ``film.polarity``.

    Raises
    ------
    NotARadiograph
        If it has no contrast.
    """
    pixels = correct_polarity(radiograph.pixels, radiograph.polarity)[0]
    return to_8bit(inverted(pixels) if rule == "inverted_to_find_knees" else pixels)


def _trim_flat(film: np.ndarray) -> np.ndarray:
    """Cut off the columns, then the rows, outside the first and the last one with contrast along it."""
    (h, w), (x1, x2, y1, y2) = film.shape, lively(film)
    return film[round(y1 * h) : round(y2 * h), round(x1 * w) : round(x2 * w)]


def _centre(film: np.ndarray) -> np.ndarray:
    """The central third of the film, or of each of its halves, as one flat array."""
    h, w = film.shape
    parts = 2 if looks_bilateral(h, w) and w > 1 else 1
    halves = np.array_split(film[h // 3 : h - h // 3], parts, axis=1)
    return np.concatenate([half[:, n // 3 : n - n // 3].ravel() for half in halves for n in (half.shape[1],)])


def to_8bit(pixels: np.ndarray) -> np.ndarray:
    """[P] Convert to 8 bit; [X] clip to the 5th and 99th percentile and stretch to 0 … 255. NaN becomes 0.

    Raises
    ------
    NotARadiograph
        No contrast between the two percentiles.
    """
    levels, _, table = _stretched(pixels)
    return np.asarray(cv2.LUT(levels, table))


def _stretched(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A film's levels, how many pixels have each of the 65,536, and the 8-bit value of each."""
    levels = as_levels(pixels)
    known = levels if pixels.dtype == np.uint16 or np.isfinite(pixels).all() else levels[np.isfinite(pixels)][:, None]
    counts = cv2.calcHist([known[:: known.size // RANKED_PIXELS + 1]], [0], None, [LEVELS], [0, LEVELS]).ravel()
    below = np.cumsum(counts, dtype=np.float64)
    low, high = np.searchsorted(below, np.multiply(CLIP_PERCENTILES, below[-1] / 100)).tolist()
    if not high > low:
        raise NotARadiograph
    table = np.zeros(LEVELS, np.uint8)
    table[low:high] = np.rint(np.arange(high - low) * (255.0 / (high - low)))
    table[high:] = 255
    return levels, counts, table


def equalize(image: np.ndarray) -> np.ndarray:
    """[P] Histogram equalisation of a single-knee uint8 image; [X] the global one, not CLAHE."""
    return np.asarray(cv2.LUT(image, _equalising(np.bincount(image.ravel(), minlength=256))))


def _equalising(counts: np.ndarray) -> np.ndarray:
    """The equalised value of each of 256, uint8, from how many pixels have it."""
    below = np.cumsum(counts) - counts[np.flatnonzero(counts)[0]]
    return np.rint(below.clip(0) * (255.0 / max(below[-1], 1))).astype(np.uint8)


def split_bilateral(width: int, overlap: float = 0.0) -> tuple[tuple[int, int], tuple[int, int]]:
    """[P] Split at the middle column; an odd width shares it, so both halves are equally wide.

    Parameters
    ----------
    width : int
        Of the film, px.
    overlap : float
        [X] How far each half reaches beyond the middle, as a share of the film's width; 0 is the paper.

    Returns
    -------
    (start, stop), (start, stop)
        Half-open column ranges of the image-left and the image-right half.
    """
    if not 0 <= overlap < 0.5:
        raise ValueError("overlap must be at least 0 and below 0.5")
    half = (width + 1) // 2 + round(overlap * width)
    return (0, half), (width - half, width)


def prepare_single(pixels: np.ndarray, columns: tuple[int, int] | None = None) -> np.ndarray:
    """[P] 8 bit, then equalise, on the single-knee image ([X]: percentiles and histogram are this knee's own).

    Parameters
    ----------
    pixels : ndarray of shape (h, w)
        The film's field with its polarity corrected.
    columns : (start, stop), optional
        The single knee's columns; all when absent.

    Returns
    -------
    uint8 ndarray of shape (h, stop − start)

    Raises
    ------
    NotARadiograph
        The shorter side has fewer than 64 pixels or less than a tenth of the longer, or there is no contrast.
    """
    knee = pixels if columns is None else pixels[:, slice(*columns)]
    check_shape(*knee.shape)
    levels, counts, table = _stretched(knee)
    return np.asarray(cv2.LUT(levels, _equalising(np.bincount(table, counts, minlength=256))[table]))


def check_shape(height: int, width: int) -> None:
    """Refuse what cannot be a single-knee image.

    Raises
    ------
    NotARadiograph
        The shorter side has fewer than 64 pixels or less than a tenth of the longer.
    """
    if min(height, width) < MIN_SIDE:
        raise NotARadiograph(f"A single-knee image must be at least {MIN_SIDE} pixels wide and high.")
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise NotARadiograph(f"No radiograph of a knee is {MAX_ASPECT} times as long as it is wide.")
