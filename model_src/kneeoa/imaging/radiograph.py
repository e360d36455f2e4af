"""What every reader returns, and the size limits every reader keeps."""

from dataclasses import dataclass

import numpy as np

from kneeoa.errors import CorruptImage, TooLarge
from kneeoa.tasks import Laterality

MAX_PIXELS = 32_000_000  # a long-leg film at 0.14 mm has about 25 megapixels; a worker needs up to 16 bytes for each
MAX_SIDE = 16_384
LEVELS = 65_536  # of uint16
MAX_BYTES = 64 << 20  # of a file: what the server accepts


@dataclass(frozen=True)
class Radiograph:
    """A decoded film.

    Attributes
    ----------
    pixels : uint16 or float32 ndarray of shape (h, w)
        uint16 as stored, float32 where values are signed or were rescaled; arbitrary units, finite; bright = dense once the
        declared polarity is applied (a raster declares none).
    spacing_mm : (row, column) or None
        Millimetres between pixel centres, None where the file says nothing believable.
    polarity : ``monochrome1``, ``monochrome2`` or None
        The declaration that was applied; None for raster input.
    laterality : Laterality
        From the header; UNKNOWN when absent, contradictory or bilateral.
    bilateral, contradictory : bool
        Whether the header says that both knees are shown, and whether it gives two answers.
    frontal : bool
        False where the header says that the view is another, from the side for one.
    rows_run_to_right : bool
        True when image columns increase toward the patient's *right*, i.e. the display is swapped.
    source : ``dicom``, ``raster`` or ``array``
    transfer_syntax : str or None
        Registered name, None for raster input.
    bits : int
        Bits stored per pixel in the file.
    """

    pixels: np.ndarray
    spacing_mm: tuple[float, float] | None
    polarity: str | None
    laterality: Laterality
    rows_run_to_right: bool
    source: str
    transfer_syntax: str | None
    bits: int
    bilateral: bool = False
    contradictory: bool = False
    frontal: bool = True

    @classmethod
    def without_header(cls, pixels: np.ndarray, source: str, bits: int) -> "Radiograph":
        """Pixels of which nothing else is known: a raster file's, or an array's."""
        return cls(
            pixels=pixels,
            spacing_mm=None,
            polarity=None,
            laterality=Laterality.UNKNOWN,
            rows_run_to_right=False,
            source=source,
            transfer_syntax=None,
            bits=bits,
        )


def check_size(rows: int, columns: int) -> None:
    """Refuse a claimed image size *before* anything of that size is allocated.

    Raises
    ------
    CorruptImage
        A side is zero or negative.
    TooLarge
        A side above `MAX_SIDE` or more than `MAX_PIXELS` pixels.
    """
    if min(rows, columns) < 1:
        raise CorruptImage("The file describes an image without pixels.")
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise TooLarge(
            f"The image has more than {MAX_PIXELS // 10**6} megapixels, or a side longer than {MAX_SIDE} pixels."
        )


def as_levels(pixels: np.ndarray) -> np.ndarray:
    """Grey values as uint16: integers keep their steps, others get about 65,536. NaN becomes 0, as dark as the darkest."""
    if pixels.dtype == np.uint16:
        return pixels
    finite = np.isfinite(pixels)
    known = pixels if finite.all() else pixels[finite]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    step = (LEVELS - 1) / ((high - low) or 1.0)
    scaled = (pixels - low) * (np.floor(step) if step >= 1 else step)
    if known.size < pixels.size:
        scaled = np.nan_to_num(scaled, copy=False, nan=0.0).clip(0, LEVELS - 1)
    return np.rint(scaled, out=scaled).astype(np.uint16)
