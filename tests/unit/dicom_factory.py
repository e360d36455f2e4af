"""Writes small DICOM files, honest and hostile ones, so that no patient's file is ever needed."""

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom import config, uid
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag

from kneeoa.errors import KneeOaError
from kneeoa.imaging import decode

META_END = 132 + 12  # preamble, "DICM" and the group length element; the rest of the meta header follows


def gradient(rows: int = 80, columns: int = 96, bits: int = 12, signed: bool = False) -> np.ndarray:
    """A ramp over the whole range of the stored bits, so that a lost bit or sign shows."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    ramp = np.linspace(low, high, rows * columns).round().reshape(rows, columns)
    return ramp.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")


def make_dicom(
    pixels: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    bits: int | None = None,
    syntax: str = uid.ExplicitVRLittleEndian,
    frame: bytes | None = None,
    **elements: Any,
) -> bytes:
    """A part 10 file around integer pixels.

    ``frame`` replaces the encoded frame. Elements are set last: None deletes one, bytes are written as they are.
    """
    allocated = 8 * pixels.itemsize
    stored = bits or allocated
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.Rows, ds.Columns = pixels.shape
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = allocated, stored, stored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    encoding = uid.UID(syntax)
    big = syntax == uid.ExplicitVRBigEndian
    if frame is None:
        frame = _encode(pixels, ds, syntax, big)
    ds.PixelData = encapsulate([frame]) if encoding.is_encapsulated else frame
    ds["PixelData"].VR = "OB" if encoding.is_encapsulated or allocated == 8 else "OW"
    with config.disable_value_validation():
        for keyword, value in elements.items():
            if value is None:
                delattr(ds, keyword)
            elif isinstance(value, bytes):
                tag, raw = Tag(keyword), value + b" " * (len(value) % 2)
                ds[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, encoding.is_implicit_VR, not big)
            else:
                setattr(ds, keyword, value)
        file = BytesIO()
        pydicom.dcmwrite(file, ds, implicit_vr=encoding.is_implicit_VR, little_endian=not big, enforce_file_format=True)
    return file.getvalue()


def dataset_start(data: bytes) -> int:
    """Where the meta header ends."""
    return META_END + struct.unpack_from("<L", data, META_END - 4)[0]


def _encode(pixels: np.ndarray, ds: Dataset, syntax: str, big: bool) -> bytes:
    if syntax in (uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEG2000):
        return pydicom.pixels.get_encoder(syntax).encode(pixels, **pydicom.pixels.utils.as_pixel_options(ds))
    if syntax == uid.JPEGBaseline8Bit:
        file = BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=100)
        return file.getvalue()
    if syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        return jpeg_lossless(pixels, ds.BitsStored)
    return pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()


def jpeg_lossless(pixels: np.ndarray, precision: int) -> bytes:
    """JPEG process 14, selection value 1, with seventeen 5-bit Huffman codes; no library here can write it."""
    values = pixels.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:], predicted[1:, 0], predicted[0, 0] = values[:, :-1], values[:-1, 0], 1 << (precision - 1)
    bits = []
    for difference in ((values - predicted + 32767) % 65536 - 32767).ravel().tolist():
        size = abs(difference).bit_length()
        extra = difference if difference > 0 else difference + (1 << size) - 1
        bits.append(f"{size:05b}" + (f"{extra:0{size}b}" if 0 < size < 16 else ""))
    stream = "".join(bits)
    stream += "1" * (-len(stream) % 8)
    scan = int(stream, 2).to_bytes(len(stream) // 8, "big").replace(b"\xff", b"\xff\0")
    sof = struct.pack(">BHHBBBB", precision, *pixels.shape, 1, 1, 0x11, 0)
    dht = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    sos = bytes([1, 1, 0, 1, 0, 0])
    parts = [struct.pack(">HH", m, len(b) + 2) + b for m, b in ((0xFFC3, sof), (0xFFC4, dht), (0xFFDA, sos))]
    return b"\xff\xd8" + b"".join(parts) + scan + b"\xff\xd9"


def refused(build: Callable[[], bytes], expected: type[KneeOaError]) -> None:
    """Assert that a file is refused with exactly this error, and that no parser's text hangs on to it."""
    data = build()

    with pytest.raises(KneeOaError) as caught:
        decode(data)

    assert type(caught.value) is expected
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
