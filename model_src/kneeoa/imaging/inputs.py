"""What a Python program has of a film: a path, its bytes, a pydicom dataset or an array."""

import os
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite

from kneeoa.errors import BadRequest, CorruptImage, TooLarge, UnreadableFile
from kneeoa.imaging import decode as decode_here
from kneeoa.imaging.dicom import SPACING_MM
from kneeoa.imaging.quiet import quiet
from kneeoa.imaging.radiograph import MAX_BYTES, Radiograph, check_size

Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Dataset | np.ndarray
Spacing = float | tuple[float, float]  # mm: of both, or row and column


def read(
    film: Source, spacing_mm: Spacing | None = None, decode: Callable[[bytes], Radiograph] = decode_here
) -> Radiograph:
    """A film of any of these kinds.

    Parameters
    ----------
    film
        An array is one grey image (h, w), integers or floats. Like a PNG it declares no polarity: where the background is
        brighter than the knee, it is inverted.
    spacing_mm
        Where the film itself does not say.
    decode
        For what comes as bytes.

    Raises
    ------
    BadRequest
        If it is none of these, or the spacing is none.
    UnreadableFile
        If there is no such file, or it cannot be read.
    EmptyBody, UnsupportedMedia, UnsupportedDicom, CorruptImage, TooLarge, TooExpensive
        As ``decode`` does.
    """
    spacing = as_spacing(spacing_mm)
    radiograph = _of_array(film) if isinstance(film, np.ndarray) else decode(_bytes_of(film))
    return replace(radiograph, spacing_mm=radiograph.spacing_mm or spacing)


def _bytes_of(film: Source) -> bytes:
    if isinstance(film, bytes | bytearray | memoryview):
        return bytes(film)
    if isinstance(film, Dataset):
        return _written(film)
    if not isinstance(film, str | os.PathLike):
        raise BadRequest("a film must be a path, bytes, a pydicom Dataset or a NumPy array")
    path = Path(film)
    try:
        if not path.is_file():  # a pipe would be waited for
            raise UnreadableFile
        if path.stat().st_size > MAX_BYTES:
            raise TooLarge("The file is larger than 64 MiB.")
        return path.read_bytes()
    except OSError:
        raise UnreadableFile from None


def _written(dataset: Dataset) -> bytes:
    file = BytesIO()
    try:
        with quiet():
            dcmwrite(file, dataset, enforce_file_format=True)
    except Exception:  # nearly anything, in words that quote the dataset
        raise CorruptImage("The dataset cannot be written as a DICOM file; it needs file_meta and pixels.") from None
    return file.getvalue()


def _of_array(pixels: np.ndarray) -> Radiograph:
    if pixels.ndim != 2 or pixels.dtype.kind not in "uif":
        raise BadRequest("an array must be one grey image (h, w) of integers or floats")
    check_size(*pixels.shape)
    values = np.ascontiguousarray(pixels, np.uint16 if pixels.dtype in (np.uint8, np.uint16) else np.float32)
    if not np.isfinite(values).all():
        raise BadRequest("an array must contain only finite numbers")
    own = values.copy() if values is pixels else values
    return Radiograph.without_header(own, "array", 8 * pixels.dtype.itemsize)


def as_spacing(millimetres: Spacing | None) -> tuple[float, float] | None:
    """Row and column.

    Raises
    ------
    BadRequest
        If it is no spacing of a radiograph.
    """
    if millimetres is None:
        return None
    try:
        row, column = map(float, (millimetres, millimetres) if np.isscalar(millimetres) else millimetres)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        row = column = np.nan
    if not all(SPACING_MM[0] <= value <= SPACING_MM[1] for value in (row, column)):
        raise BadRequest(
            "the spacing must be in millimetres between pixels, one number or (row, column), from 0.01 to 5"
        )
    return row, column
