"""The compressed frame inside a DICOM file: how large it says it is, and RLE, whose library decoder has no bound."""

import struct

import numpy as np
from PIL import Image

from kneeoa.errors import CorruptImage

# SOF0 … SOF15 less DHT, JPG and DAC; JPEG-LS's SOF55; DHP, which precedes the frames of a hierarchical file
_FRAME_HEADERS = {*range(0xFFC0, 0xFFD0), 0xFFF7, 0xFFDE} - {0xFFC4, 0xFFC8, 0xFFCC}
_FILL = 0xFFFF  # 0xFF may be repeated before a marker


def jpeg_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and components of a JPEG or JPEG-LS stream; raises struct.error where there is no frame header."""
    at = 2
    while True:
        marker, length = struct.unpack_from(">HH", frame, at)
        if marker in _FRAME_HEADERS:
            rows, columns, components = struct.unpack_from(">HHB", frame, at + 5)
            return rows, columns, components
        if marker < 0xFF00:
            raise CorruptImage
        at += 1 if marker == _FILL else 2 + length


def jpeg_2000_size(frame: bytes) -> tuple[int, int, int]:
    """Rows, columns and components from the SIZ segment, with which a bare (HT)J2K codestream starts."""
    if not frame.startswith(b"\xff\x4f\xff\x51"):  # a JP2 wrapper is not allowed in DICOM and could hide another size
        raise CorruptImage
    x_stop, y_stop, x_start, y_start = struct.unpack_from(">4L", frame, 8)
    (components,) = struct.unpack_from(">H", frame, 40)
    return y_stop - y_start, x_stop - x_start, components


def ends(frame: bytes) -> bool:
    """Whether a JPEG or JPEG-LS stream has its end marker, before any padding. Sound JPEG 2000 files come without one."""
    return frame.rstrip(b"\0\xff").endswith(b"\xff\xd9")


def unpack_rle(frame: bytes, rows: int, columns: int, bytes_per_pixel: int) -> np.ndarray:
    """Decode DICOM RLE: PackBits per byte plane, the most significant first.

    Pillow's decoder stops at the claimed size, where pydicom's inflates a hostile frame 64-fold before it looks.

    Returns
    -------
    uint8 or uint16 ndarray of shape (rows, columns)
    """
    count, *offsets = struct.unpack("<16L", frame[:64])
    if count != bytes_per_pixel:
        raise CorruptImage
    pixels = np.zeros(rows * columns, np.dtype(f"u{bytes_per_pixel}"))
    for i in range(count):
        segment = frame[offsets[i] : offsets[i + 1] if i + 1 < count else None]
        plane = Image.frombytes("L", (pixels.size, 1), segment, "packbits", "L")  # one long row: runs may cross rows
        pixels |= np.asarray(plane).ravel().astype(pixels.dtype) << 8 * (count - 1 - i)
    return pixels.reshape(rows, columns)
