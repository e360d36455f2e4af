"""Films that a hospital's night may bring: damaged, hostile, odd. Each is built when it is asked for.

`DICOM` and `RASTER` are refused by the reader, `UNUSABLE` later; `BOMBS` cost a reader without limits seconds or gigabytes;
`ODD` films are fine but for what their tags say.
"""

import gzip
import struct
import zipfile
import zlib
from io import BytesIO

import numpy as np
import pydicom
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom import uid

from kneeoa.errors import (
    CorruptImage,
    EmptyBody,
    NotARadiograph,
    TooExpensive,
    TooLarge,
    UnsupportedDicom,
    UnsupportedMedia,
)
from tests.unit.dicom_factory import dataset_start, gradient, jpeg_lossless, make_dicom

MEBI = 2**20


def small_film(**changes):
    return make_dicom(gradient(bits=12), bits=12, **changes)


def with_bytes_before_the_dataset(extra):
    data = small_film()
    at = dataset_start(data)
    return data[:at] + extra + data[at:]


def rle_bomb():
    """A frame of 80 × 96 bytes claimed, 32 MiB when inflated the naive way."""
    runs = b"\x81\x00" * (MEBI // 4)
    return make_dicom(gradient(bits=8), syntax=uid.RLELossless, frame=struct.pack("<16L", 1, 64, *[0] * 14) + runs)


def jpeg_2000_claiming(rows, columns):
    frame = bytearray(
        pydicom.encaps.get_frame(pixel_data(small_film(syntax=uid.JPEG2000Lossless)), 0, number_of_frames=1)
    )
    struct.pack_into(">LL", frame, 8, columns, rows)
    return small_film(syntax=uid.JPEG2000Lossless, frame=bytes(frame))


def pixel_data(data):
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).PixelData


def deflate_bomb():
    data = small_film(syntax=uid.DeflatedExplicitVRLittleEndian)
    return data[: dataset_start(data)] + zlib.compress(bytes(64 * MEBI), wbits=-15)


RANDOM = np.random.default_rng(0).bytes(4096)
SEQUENCE = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"  # undefined length
ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
DICOM = {
    "empty": (lambda: b"", EmptyBody),
    "random": (lambda: RANDOM, UnsupportedMedia),
    "preamble only": (lambda: bytes(128) + b"DICM", CorruptImage),
    "random after the prefix": (lambda: bytes(128) + b"DICM" + RANDOM, CorruptImage),
    "no preamble": (lambda: small_film()[132:], UnsupportedMedia),
    "cut in the meta header": (lambda: small_film()[:160], CorruptImage),
    "cut in the dataset": (lambda: small_film()[: dataset_start(small_film()) + 90], CorruptImage),
    "cut in native pixels": (lambda: small_film()[:-100], CorruptImage),
    "native pixels too long": (lambda: small_film(frame=b"\0\0" + pixel_data(small_film())), CorruptImage),
    "cut in JPEG": (lambda: jpeg_cut_short(), CorruptImage),
    "JPEG cut and closed": (lambda: cut_and_closed(uid.JPEGBaseline8Bit), CorruptImage),
    "JPEG cut and closed before a restart": (
        lambda: cut_and_closed(uid.JPEGBaseline8Bit, restart_marker_rows=1, before=b"\xff\xd5"),
        CorruptImage,
    ),
    "lossless JPEG cut and closed": (lambda: cut_and_closed(uid.JPEGLosslessSV1), CorruptImage),
    "JPEG-LS cut and closed": (lambda: cut_and_closed(uid.JPEGLSLossless), CorruptImage),
    "JPEG 2000 cut and closed": (lambda: cut_and_closed(uid.JPEG2000Lossless), CorruptImage),
    "cut in RLE": (lambda: small_film(syntax=uid.RLELossless)[:-100], CorruptImage),
    "cut in JPEG 2000": (lambda: small_film(syntax=uid.JPEG2000Lossless)[:-100], CorruptImage),
    "65535 squared": (lambda: small_film(Rows=65535, Columns=65535), TooLarge),
    "above 32 megapixels": (lambda: small_film(Rows=5700, Columns=5700), TooLarge),
    "side above 16384": (lambda: small_film(Rows=16385, Columns=1), TooLarge),
    "larger than its pixels": (lambda: small_film(Rows=5600, Columns=5600), CorruptImage),
    "no rows": (lambda: small_film(Rows=0), CorruptImage),
    "Rows missing": (lambda: small_film(Rows=None), CorruptImage),
    "two Rows": (lambda: small_film(Rows=[80, 80]), CorruptImage),
    "PixelData missing": (lambda: small_film(PixelData=None), CorruptImage),
    "SOP class missing": (lambda: small_film(SOPClassUID=None), CorruptImage),
    "CT": (lambda: small_film(SOPClassUID=uid.CTImageStorage), UnsupportedDicom),
    "RGB": (lambda: small_film(PhotometricInterpretation="RGB"), UnsupportedDicom),
    "three samples": (lambda: small_film(SamplesPerPixel=3), UnsupportedDicom),
    "two frames": (lambda: small_film(NumberOfFrames=2), UnsupportedDicom),
    "7 bits allocated": (lambda: small_film(BitsAllocated=7), UnsupportedDicom),
    "32 bits allocated": (lambda: small_film(BitsAllocated=32), UnsupportedDicom),
    "1 bit stored": (lambda: small_film(BitsStored=1, HighBit=0), UnsupportedDicom),
    "stored in the high bits": (lambda: small_film(HighBit=15), UnsupportedDicom),
    "signed neither way": (lambda: small_film(PixelRepresentation=2), CorruptImage),
    "slope 0": (lambda: small_film(RescaleSlope=0), CorruptImage),
    "slope infinite": (lambda: small_film(RescaleSlope="1e999"), CorruptImage),
    "intercept not a number": (lambda: small_film(RescaleIntercept="nan"), CorruptImage),
    "slope of nearly 0": (lambda: small_film(RescaleSlope="1e-40"), CorruptImage),
    "slope beyond float32": (lambda: small_film(RescaleSlope="1e36"), CorruptImage),
    "intercept that swallows the film": (lambda: small_film(RescaleIntercept="1e30"), CorruptImage),
    "slope in words": (lambda: small_film(RescaleSlope=b"steep"), CorruptImage),
    "unknown transfer syntax": (
        lambda: small_film().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"),
        UnsupportedDicom,
    ),
    "MPEG": (lambda: small_film(syntax=uid.MPEG2MPML, frame=b"\0" * 64), UnsupportedDicom),
    "deflated": (deflate_bomb, UnsupportedDicom),
    "broken JPEG 2000": (lambda: small_film(syntax=uid.JPEG2000, frame=RANDOM), CorruptImage),
    "JPEG 2000 cut short": (lambda: small_film(syntax=uid.JPEG2000, frame=b"\xff\x4f\xff\x51\0"), CorruptImage),
    "JPEG 2000 of another size": (lambda: jpeg_2000_claiming(80, 97), CorruptImage),
    "JPEG 2000 bomb": (lambda: jpeg_2000_claiming(2**31, 2**31), CorruptImage),
    "broken JPEG": (lambda: small_film(syntax=uid.JPEGLosslessSV1, frame=RANDOM), CorruptImage),
    "JPEG without an end": (lambda: small_film(syntax=uid.JPEGLosslessSV1, frame=b"\xff" * 99), CorruptImage),
    "JPEG of another size": (
        lambda: small_film(syntax=uid.JPEGLosslessSV1, frame=jpeg_lossless(gradient(81, 96), 12)),
        CorruptImage,
    ),
    "broken RLE": (lambda: small_film(syntax=uid.RLELossless, frame=RANDOM), CorruptImage),
    "RLE too short": (
        lambda: small_film(syntax=uid.RLELossless, frame=struct.pack("<16L", 2, 64, 66, *[0] * 13) + b"\x81\0\x81\0"),
        CorruptImage,
    ),
    "nested sequences": (lambda: with_bytes_before_the_dataset((SEQUENCE + ITEM) * 3000), CorruptImage),
    "sequence header at the end": (lambda: small_film(PixelData=None) + SEQUENCE, CorruptImage),
    "endless element": (lambda: with_bytes_before_the_dataset(b"\x08\0\x05\0UT\0\0\xfe\xff\xff\xff"), CorruptImage),
    "palette": (lambda: small_film(PhotometricInterpretation="PALETTE COLOR"), UnsupportedDicom),
    "1 bit allocated": (lambda: small_film(BitsAllocated=1), UnsupportedDicom),
    "float pixels": (lambda: small_film(PixelData=None, FloatPixelData=bytes(4 * 80 * 96)), CorruptImage),
}


def file_of(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


GREY = gradient(bits=8)
DEEP = gradient(bits=16)
FLOAT = Image.fromarray(GREY.astype(np.float32))


def png_claiming(width, height):
    data = file_of(Image.fromarray(GREY), "PNG")
    header = b"IHDR" + struct.pack(">LL", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">L", zlib.crc32(header)) + data[33:]


def _jpeg_bomb():
    data = bytearray(file_of(Image.fromarray(GREY), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, 65_500, 65_500)
    return bytes(data)


def _png_text_bomb():
    text = PngInfo()
    text.add_itxt("comment", "a" * 32 * MEBI, zip=True)
    return file_of(Image.fromarray(GREY), "PNG", pnginfo=text)


def _zip():
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("film.dcm", small_film())
    return file.getvalue()


def jpeg_cut_short():
    frame = file_of(Image.fromarray(GREY), "JPEG")
    return make_dicom(GREY, syntax=uid.JPEGBaseline8Bit, frame=frame[: len(frame) * 6 // 10 // 2 * 2])


def cut_and_closed(syntax, before=None, **how):
    """A film whose compressed frame ends at 60 %, or before some bytes, with a valid end marker."""
    if syntax == uid.JPEGBaseline8Bit:
        frame = file_of(Image.fromarray(GREY), "JPEG", **how)
    else:
        frame = pydicom.encaps.get_frame(pixel_data(make_dicom(GREY, syntax=syntax)), 0, number_of_frames=1)
    cut = frame.index(before) if before else len(frame) * 6 // 10
    return make_dicom(GREY, syntax=syntax, frame=frame[:cut] + b"\xff\xd9")


def _cut(kind, **options):
    data = file_of(Image.fromarray(GREY), kind, **options)
    return data[: len(data) // 2]


RASTER = {
    "PNG cut": (lambda: _cut("PNG"), CorruptImage),
    "JPEG cut": (lambda: _cut("JPEG"), CorruptImage),
    "JPEG cut and closed": (lambda: _cut("JPEG") + b"\xff\xd9", CorruptImage),
    "progressive JPEG cut and closed": (lambda: _cut("JPEG", progressive=True) + b"\xff\xd9", CorruptImage),
    "TIFF cut": (lambda: _cut("TIFF", compression="tiff_lzw"), CorruptImage),
    "PNG signature only": (lambda: b"\x89PNG\r\n\x1a\n", CorruptImage),
    "JPEG signature only": (lambda: b"\xff\xd8\xff", CorruptImage),
    "TIFF signature only": (lambda: b"II*\0" + bytes(range(200)), CorruptImage),
    "PNG larger than its data": (lambda: png_claiming(3000, 3000), CorruptImage),
    "PNG above 32 megapixels": (lambda: png_claiming(5700, 5700), TooLarge),
    "PNG that Pillow would warn about": (lambda: png_claiming(10_000, 10_000), TooLarge),
    "PNG bomb": (lambda: png_claiming(2**31 - 1, 2**31 - 1), TooLarge),
    "PNG too wide": (lambda: png_claiming(16_385, 64), TooLarge),
    "1 bit": (lambda: file_of(Image.fromarray(GREY).convert("1"), "PNG"), UnsupportedMedia),
    "float": (lambda: file_of(FLOAT, "TIFF"), UnsupportedMedia),
    "32 bit": (lambda: file_of(Image.fromarray(DEEP.astype(np.int32) * 2), "TIFF"), UnsupportedMedia),
    "GIF": (lambda: file_of(Image.fromarray(GREY), "GIF"), UnsupportedMedia),
    "text": (lambda: b"<html>" * 100, UnsupportedMedia),
    "JPEG bomb": (_jpeg_bomb, TooLarge),
    "TIFF bomb": (lambda: file_of(Image.new("L", (16_000, 2_100)), "TIFF", compression="tiff_adobe_deflate"), TooLarge),
    "PNG text bomb": (_png_text_bomb, CorruptImage),
    "ZIP": (_zip, UnsupportedMedia),
    "gzip": (lambda: gzip.compress(small_film()), UnsupportedMedia),
    "PNG in a DICOM preamble": (lambda: (png_claiming(96, 80) + bytes(99))[:128] + b"DICM" + RANDOM, CorruptImage),
    "DICOM in a ZIP's comment": (lambda: _zip()[:-2] + b"\xff\xff" + small_film(), UnsupportedMedia),
    "a detection message": (lambda: b'{"schema":"kneeoa.detection/1","knees":[]}', UnsupportedMedia),
}

UNUSABLE = {
    "flat film": (lambda: file_of(Image.new("L", (5600, 5600)), "PNG"), NotARadiograph),
    "too small": (lambda: file_of(Image.fromarray(GREY[:40, :40]), "PNG"), NotARadiograph),
}


def _progressive_jpeg(side, scans=1000):
    """Valid, a few kilobytes a scan, and each scan goes over the whole image again."""
    data = file_of(Image.new("L", (side, side), 99), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


def _jpeg_2000_precincts(side):
    """Precincts of 1 × 1 and not one packet: some 560 bytes of bookkeeping a pixel."""
    size = struct.pack(">HHHLLLLLLLLH3B", 0xFF51, 41, 0, side, side, 0, 0, side, side, 0, 0, 1, 7, 1, 1)
    coding = bytes.fromhex("ff52000d01000001000004040001 00".replace(" ", ""))
    rest = bytes.fromhex("ff5c00044040ff90000a0000000000000001ff93") + bytes(96)
    return b"\xff\x4f" + size + coding + rest + b"\xff\xd9"


def _large(side, syntax, frame):
    return make_dicom(np.zeros((side, side), np.uint8), syntax=syntax, frame=frame)


def _many_values(keyword, value, count):
    return small_film(syntax=uid.ImplicitVRLittleEndian, **{keyword: value * count})


def _tiff_tile(side):
    """256² pixels in one tile of ``side``²."""
    tags = {256: 256, 257: 256, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8 + 2 + 12 * 10 + 4, 325: 99}
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHLH", b"II", 42, 8, len(tags)) + entries + bytes(4) + zlib.compress(bytes(99_999)).ljust(99)


_EMPTY_ITEM = b"\xfe\xff\x00\xe0" + bytes(4)
BOMBS = {
    "JPEG of 1000 scans": lambda: _progressive_jpeg(5600),
    "JPEG of 1000 scans in DICOM": lambda: _large(2000, uid.JPEGBaseline8Bit, _progressive_jpeg(2000)),
    "JPEG 2000, precincts of 1 × 1": lambda: _large(2500, uid.JPEG2000, _jpeg_2000_precincts(2500)),
    "a sequence of empty items": lambda: with_bytes_before_the_dataset(SEQUENCE + _EMPTY_ITEM * (MEBI // 2)),
    "two million spacings": lambda: _many_values("PixelSpacing", b"1\\", 2 * MEBI),
    "a TIFF tile of 32768²": lambda: _tiff_tile(32768),
}
SECRET = "SENTINEL"  # what no log, metric, reply or result may ever show
_SCRIPT = f"<script>{SECRET}</script>$(touch /tmp/{SECRET})"
ODD = {
    "a patient": {"PatientName": f"{SECRET}^A", "PatientID": SECRET, "PatientBirthDate": SECRET, "StudyDate": SECRET},
    "identifiers": {"SOPInstanceUID": f"1.2.{SECRET}", "StudyInstanceUID": f"1.2.{SECRET}", "AccessionNumber": SECRET},
    "paths": {"PatientID": f"../../{SECRET}", "StudyDescription": f"/etc/passwd\0{SECRET}", "InstitutionName": SECRET},
    "scripts": {
        "PatientName": _SCRIPT,
        "StudyDescription": f"'; DROP TABLE {SECRET};--",
        "Manufacturer": "%s%n{0}" + SECRET,
    },
    "no spacing": {"PixelSpacing": [0, 0]},
    "absurd spacing": {"PixelSpacing": [1e9, 1e-9], "ImagerPixelSpacing": SECRET.encode()},
    "sides in words": {
        "ImageLaterality": SECRET,
        "PatientOrientation": [SECRET] * 3,
        "SpecificCharacterSet": SECRET.encode(),
    },
}
REFUSED = DICOM | RASTER | UNUSABLE | {name: (build, TooExpensive) for name, build in BOMBS.items()}
