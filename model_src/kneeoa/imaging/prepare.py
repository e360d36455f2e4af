"""The image preparation of Wang et al. 2021: invert, split, 8 bit, equalise, in the order of their text.

Marks in the docstrings: **[P]** in the paper, **[X]** our choice where the paper says nothing.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kneeoa.errors import NotARadiograph
from kneeoa.imaging.radiograph import Radiograph
from kneeoa.tasks import Laterality

BILATERAL_ASPECT = 0.8  # [X] width / height from which a film can show both knees
MIN_SIDE = 64  # [X] px; below, no knee joint can be told from noise
CLIP_PERCENTILES = (5.0, 99.0)  # [X] the ancestors' process_xray(img, 5, 99)
PERCENTILE_PIXELS = 4_000_000  # [X] of a larger image every second, third … pixel is ranked: sorting would take seconds
THUMBNAIL = 256  # [X] px; polarity is judged on a small copy, free of noise
FRAME = 0.05  # [X] share of the width, at either side, that counts as background
FLAT = 0.15  # [X] of the film's contrast; rows and columns with less along them are collimation or air


@dataclass(frozen=True)
class SingleKnee:
    """One knee's image, ready for the detector.

    Attributes
    ----------
    image : uint8 ndarray of shape (h, w)
        Equalised; as tall as the film.
    x_offset : int
        Film column of the image's first column, px.
    side : Laterality
    side_source : ``position``, ``position_swapped``, ``dicom_tag``, ``request`` or ``unknown``
    """

    image: np.ndarray
    x_offset: int
    side: Laterality
    side_source: str


def looks_bilateral(height: int, width: int) -> bool:
    """[X] Whether a film is wide enough for two knees; a hint, the detector decides."""
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
    film = _trim_flat(_thumbnail(pixels))
    edge = max(1, round(FRAME * film.shape[1]))
    sides = np.median(np.concatenate([film[:, :edge], film[:, -edge:]], axis=1))
    if sides > np.median(_centre(film)):
        return inverted(pixels), "frame_brighter"
    return pixels, "as_is"


def inverted(pixels: np.ndarray) -> np.ndarray:
    """The film with the opposite polarity, in the same range of values."""
    return pixels.max() + pixels.min() - pixels


def for_display(radiograph: Radiograph, rule: str) -> np.ndarray:
    """The film as the detector read it, bright bones, uint8 (h, w); ``rule`` is the reply's ``film.polarity``.

    Raises
    ------
    NotARadiograph
        If it has no contrast.
    """
    pixels = correct_polarity(radiograph.pixels, radiograph.polarity)[0]
    return to_8bit(inverted(pixels) if rule == "inverted_to_find_knees" else pixels)


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    scale = THUMBNAIL / max(pixels.shape)
    size = tuple(max(1, round(scale * side)) for side in reversed(pixels.shape))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) if scale < 1 else pixels


def _trim_flat(film: np.ndarray) -> np.ndarray:
    """Cut off the columns, then the rows, outside the first and the last one with contrast along it."""
    low, high = np.percentile(film, (1, 99))
    for _ in range(2):
        dark, bright = np.percentile(film, (5, 95), axis=0)
        lively = np.flatnonzero(bright - dark > FLAT * (high - low))
        film = (film[:, lively[0] : lively[-1] + 1] if lively.size else film).T
    return film


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
    finite = np.isfinite(pixels)
    known = pixels if finite.all() else pixels[finite]
    ranked = known.ravel()[:: known.size // PERCENTILE_PIXELS + 1]
    low, high = np.percentile(ranked, CLIP_PERCENTILES).tolist() if ranked.size else (0.0, 0.0)
    if not high > low:
        raise NotARadiograph
    scaled = np.clip(pixels, low, high)  # a copy; from here in place, for a film may fill an eighth of a gigabyte
    if known.size < pixels.size:
        np.nan_to_num(scaled, copy=False, nan=low)
    scaled -= low
    scaled *= 255.0 / (high - low)
    return np.rint(scaled, out=scaled).astype(np.uint8)


def equalize(image: np.ndarray) -> np.ndarray:
    """[P] Histogram equalisation of a single-knee uint8 image; [X] the global one, not CLAHE."""
    return np.asarray(cv2.equalizeHist(image))


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
        The film with its polarity corrected.
    columns : (start, stop), optional
        The single knee's columns; the whole film when absent.

    Returns
    -------
    uint8 ndarray of shape (h, stop − start)

    Raises
    ------
    NotARadiograph
        The shorter side has fewer than 64 pixels, or there is no contrast.
    """
    knee = pixels if columns is None else pixels[:, slice(*columns)]
    if min(knee.shape) < MIN_SIDE:
        raise NotARadiograph(f"A single-knee image needs at least {MIN_SIDE} pixels each way.")
    return equalize(to_8bit(knee))


def half_sides(radiograph: Radiograph) -> tuple[tuple[Laterality, str], tuple[Laterality, str]]:
    """[X] Side and its source for the image-left and image-right half of a bilateral film.

    In the usual display the patient's right knee lies at the image's left; PatientOrientation can say otherwise.
    """
    if radiograph.rows_run_to_right:
        return (Laterality.LEFT, "position_swapped"), (Laterality.RIGHT, "position_swapped")
    return (Laterality.RIGHT, "position"), (Laterality.LEFT, "position")


def single_side(radiograph: Radiograph, requested: Laterality | None = None) -> tuple[Laterality, str]:
    """[X] Side and its source for a film of one knee: the header, then the request, else unknown. Never a guess."""
    if radiograph.laterality is not Laterality.UNKNOWN:
        return radiograph.laterality, "dicom_tag"
    if requested in (Laterality.RIGHT, Laterality.LEFT):
        return requested, "request"
    return Laterality.UNKNOWN, "unknown"
