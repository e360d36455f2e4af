"""Compressed frames: how large they say they are, whether they are whole, and RLE, whose library decoder has no bound."""

import re
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image

from kneeoa.errors import CorruptImage

# SOF0 … SOF15 less DHT, JPG and DAC; JPEG-LS's SOF55; DHP, which precedes the frames of a hierarchical file
_FRAME_HEADERS = {*range(0xFFC0, 0xFFD0), 0xFFF7, 0xFFDE} - {0xFFC4, 0xFFC8, 0xFFCC}
_FILL = 0xFFFF  # 0xFF may be repeated before a marker
_START_OF_SCAN = 0xFFDA
_PROGRESSIVE = {0xFFC2, 0xFFC6, 0xFFCA, 0xFFCE}
_AFTER_SCAN = re.compile(rb"\xff+([\x80-\xcf\xd8-\xfe])")  # any marker but those of restarts, which lie within a scan
_DATA = bytes(range(65, 129))
_MORE = _DATA + b"".join(bytes((0xFF, marker)) + _DATA for marker in range(0xD0, 0xD8))  # at any restart, too


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


def scans_end(stream: bytes) -> int:
    """Where the data of the last scan of a JPEG or JPEG-LS stream end and its end marker begins.

    Raises
    ------
    CorruptImage, struct.error
        If it has none, or it is progressive and not every bit of every coefficient was sent before.
    """
    at, unsent = 2, dict[int, list[int]]()  # by component of a progressive stream: lowest bit sent of 64 coefficients
    while True:
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker < 0xFF00:
            raise CorruptImage
        if marker in _PROGRESSIVE:
            unsent = {stream[at + 10 + 3 * i]: [_FILL] * 64 for i in range(stream[at + 9])}
        if marker == _START_OF_SCAN and unsent:
            after = at + 5 + 2 * stream[at + 4]
            first, last, bits = stream[after : after + 3]
            for component in stream[at + 5 : after : 2]:
                unsent[component][first : last + 1] = [bits & 15] * (last + 1 - first)
        at += 1 if marker == _FILL else 2 + length
        if marker == _START_OF_SCAN:
            found = _AFTER_SCAN.search(stream, at)
            if found is None:
                raise CorruptImage
            if found[1] == b"\xd9":
                if any(map(any, unsent.values())):
                    raise CorruptImage
                return found.start()
            at = found.end() - 2


def check_whole(stream: bytes, decode: Callable[[bytes], np.ndarray], pixels: np.ndarray) -> None:
    """Refuse a JPEG that was cut, even if an end marker closes it: its decoders make up what is missing, and do not tell.

    None reads on after the last pixel of a whole one. So the stream is decoded again with more data before its end, and what
    was cut takes them for its own.

    Raises
    ------
    CorruptImage
        If its pixels change, or it has no end.
    """
    end = scans_end(stream)
    if not np.array_equal(pixels, decode(stream[:end] + _MORE + stream[end:])):
        raise CorruptImage


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
