import logging
import struct
import traceback
import tracemalloc
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from pydicom import uid

from kneeoa.errors import CorruptImage, EmptyBody, KneeOaError, TooLarge, UnsupportedDicom, UnsupportedMedia
from kneeoa.imaging import decode, dicom
from tests.unit.dicom_factory import dataset_start, gradient, jpeg_lossless, make_dicom, refused

MEBI = 2**20


# --- what must be read ---------------------------------------------------------------------------------------------


# --- what must be refused ------------------------------------------------------------------------------------------


def _film(**changes):
    return make_dicom(gradient(bits=12), bits=12, **changes)


def _with_bytes_before_the_dataset(extra):
    data = _film()
    at = dataset_start(data)
    return data[:at] + extra + data[at:]


def _rle_bomb():
    """A frame of 80 × 96 bytes claimed, 32 MiB when inflated the naive way."""
    runs = b"\x81\x00" * (MEBI // 4)
    return make_dicom(gradient(bits=8), syntax=uid.RLELossless, frame=struct.pack("<16L", 1, 64, *[0] * 14) + runs)


def _jpeg_2000_claiming(rows, columns):
    frame = bytearray(pydicom.encaps.get_frame(_pixel_data(_film(syntax=uid.JPEG2000Lossless)), 0, number_of_frames=1))
    struct.pack_into(">LL", frame, 8, columns, rows)
    return _film(syntax=uid.JPEG2000Lossless, frame=bytes(frame))


def _pixel_data(data):
    return pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).PixelData


def _deflate_bomb():
    data = _film(syntax=uid.DeflatedExplicitVRLittleEndian)
    return data[: dataset_start(data)] + zlib.compress(bytes(64 * MEBI), wbits=-15)


RANDOM = np.random.default_rng(0).bytes(4096)
SEQUENCE = b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff"  # undefined length
ITEM = b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
HOSTILE = {
    "empty": (lambda: b"", EmptyBody),
    "random": (lambda: RANDOM, UnsupportedMedia),
    "preamble only": (lambda: bytes(128) + b"DICM", CorruptImage),
    "random after the prefix": (lambda: bytes(128) + b"DICM" + RANDOM, CorruptImage),
    "no preamble": (lambda: _film()[132:], UnsupportedMedia),
    "cut in the meta header": (lambda: _film()[:160], CorruptImage),
    "cut in the dataset": (lambda: _film()[: dataset_start(_film()) + 90], CorruptImage),
    "cut in native pixels": (lambda: _film()[:-100], CorruptImage),
    "cut in RLE": (lambda: _film(syntax=uid.RLELossless)[:-100], CorruptImage),
    "cut in JPEG 2000": (lambda: _film(syntax=uid.JPEG2000Lossless)[:-100], CorruptImage),
    "65535 squared": (lambda: _film(Rows=65535, Columns=65535), TooLarge),
    "above 64 megapixels": (lambda: _film(Rows=8001, Columns=8001), TooLarge),
    "side above 16384": (lambda: _film(Rows=16385, Columns=1), TooLarge),
    "larger than its pixels": (lambda: _film(Rows=8000, Columns=8000), CorruptImage),
    "no rows": (lambda: _film(Rows=0), CorruptImage),
    "Rows missing": (lambda: _film(Rows=None), CorruptImage),
    "two Rows": (lambda: _film(Rows=[80, 80]), CorruptImage),
    "PixelData missing": (lambda: _film(PixelData=None), CorruptImage),
    "SOP class missing": (lambda: _film(SOPClassUID=None), CorruptImage),
    "CT": (lambda: _film(SOPClassUID=uid.CTImageStorage), UnsupportedDicom),
    "RGB": (lambda: _film(PhotometricInterpretation="RGB"), UnsupportedDicom),
    "three samples": (lambda: _film(SamplesPerPixel=3), UnsupportedDicom),
    "two frames": (lambda: _film(NumberOfFrames=2), UnsupportedDicom),
    "7 bits allocated": (lambda: _film(BitsAllocated=7), UnsupportedDicom),
    "32 bits allocated": (lambda: _film(BitsAllocated=32), UnsupportedDicom),
    "1 bit stored": (lambda: _film(BitsStored=1, HighBit=0), UnsupportedDicom),
    "stored in the high bits": (lambda: _film(HighBit=15), UnsupportedDicom),
    "signed neither way": (lambda: _film(PixelRepresentation=2), CorruptImage),
    "slope 0": (lambda: _film(RescaleSlope=0), CorruptImage),
    "slope infinite": (lambda: _film(RescaleSlope="1e999"), CorruptImage),
    "intercept not a number": (lambda: _film(RescaleIntercept="nan"), CorruptImage),
    "slope in words": (lambda: _film(RescaleSlope=b"steep"), CorruptImage),
    "unknown transfer syntax": (
        lambda: _film().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"),
        UnsupportedDicom,
    ),
    "MPEG": (lambda: _film(syntax=uid.MPEG2MPML, frame=b"\0" * 64), UnsupportedDicom),
    "deflated": (_deflate_bomb, UnsupportedDicom),
    "broken JPEG 2000": (lambda: _film(syntax=uid.JPEG2000, frame=RANDOM), CorruptImage),
    "JPEG 2000 cut short": (lambda: _film(syntax=uid.JPEG2000, frame=b"\xff\x4f\xff\x51\0"), CorruptImage),
    "JPEG 2000 of another size": (lambda: _jpeg_2000_claiming(80, 97), CorruptImage),
    "JPEG 2000 bomb": (lambda: _jpeg_2000_claiming(2**31, 2**31), CorruptImage),
    "broken JPEG": (lambda: _film(syntax=uid.JPEGLosslessSV1, frame=RANDOM), CorruptImage),
    "JPEG without an end": (lambda: _film(syntax=uid.JPEGLosslessSV1, frame=b"\xff" * 99), CorruptImage),
    "JPEG of another size": (
        lambda: _film(syntax=uid.JPEGLosslessSV1, frame=jpeg_lossless(gradient(81, 96), 12)),
        CorruptImage,
    ),
    "broken RLE": (lambda: _film(syntax=uid.RLELossless, frame=RANDOM), CorruptImage),
    "RLE too short": (
        lambda: _film(syntax=uid.RLELossless, frame=struct.pack("<16L", 2, 64, 66, *[0] * 13) + b"\x81\0\x81\0"),
        CorruptImage,
    ),
    "nested sequences": (lambda: _with_bytes_before_the_dataset((SEQUENCE + ITEM) * 3000), CorruptImage),
    "sequence header at the end": (lambda: _film(PixelData=None) + SEQUENCE, CorruptImage),
    "endless element": (lambda: _with_bytes_before_the_dataset(b"\x08\0\x05\0UT\0\0\xfe\xff\xff\xff"), CorruptImage),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_input_is_a_coded_error(case):
    refused(*HOSTILE[case])


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (_deflate_bomb, UnsupportedDicom),
        (lambda: _film(Rows=65535, Columns=65535), TooLarge),
        (lambda: _jpeg_2000_claiming(2**31, 2**31), CorruptImage),
    ],
)
def test_refusals_cost_no_memory(build, expected):
    data = build()
    tracemalloc.start()

    with pytest.raises(expected):
        decode(data)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * MEBI


def test_rle_inflates_no_further_than_the_claimed_size():
    data = _rle_bomb()
    tracemalloc.start()

    decode(data)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * MEBI


def test_every_listed_transfer_syntax_has_its_decoder_here():
    missing = [s.name for s in dicom.TRANSFER_SYNTAXES if not pydicom.pixels.get_decoder(s).is_available]

    assert not missing
    assert uid.DeflatedExplicitVRLittleEndian not in dicom.TRANSFER_SYNTAXES


def test_a_missing_plugin_is_unsupported_not_corrupt(monkeypatch):
    data = _film(syntax=uid.JPEG2000Lossless)
    monkeypatch.setattr(dicom, "get_decoder", lambda _: type("Decoder", (), {"is_available": False}))

    with pytest.raises(UnsupportedDicom, match="no decoder"):
        decode(data)


def test_flipped_bytes_never_escape_as_anything_but_a_coded_error():
    rng = np.random.default_rng(1)
    whole = make_dicom(gradient(16, 16, bits=8), syntax=uid.RLELossless)
    for _ in range(400):
        data = bytearray(whole)
        for at in rng.integers(132, len(data), size=3):
            data[at] = rng.integers(256)
        try:
            film = decode(bytes(data))
        except KneeOaError:
            continue
        assert film.pixels.ndim == 2


# --- what must never be said ---------------------------------------------------------------------------------------

SECRET = "SENTINEL"


@pytest.mark.parametrize(
    "elements",
    [
        {},
        {"PixelSpacing": SECRET.encode(), "ImageLaterality": SECRET, "PatientOrientation": [SECRET] * 3},
        {"RescaleSlope": SECRET.encode()},
        {"NumberOfFrames": SECRET.encode()},
        {"PhotometricInterpretation": SECRET},
        {"SpecificCharacterSet": SECRET.encode()},
        {"SOPClassUID": SECRET.encode()},
        {"Rows": 65535, "Columns": 65535},
        {"Rows": 81},
    ],
)
@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless], ids=["native", "JPEG 2000"])
def test_no_element_value_reaches_an_error_a_log_a_warning_or_the_terminal(elements, syntax, caplog, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = _film(
            syntax=syntax,
            PatientName=f"{SECRET}^A",
            PatientID=SECRET,
            PatientBirthDate=SECRET,
            StudyDate=SECRET,
            **elements,
        )
    assert SECRET.encode() in data
    caplog.clear()  # writing such a file makes pydicom talk, too
    said = ""

    with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            said += repr(decode(data))
        except KneeOaError as error:
            said += "".join(traceback.format_exception(error))

    said += caplog.text + "".join(str(w.message) for w in warned) + "".join(capfd.readouterr())
    assert SECRET not in said
    assert not warned
    assert not caplog.records


def test_loggers_are_left_as_they_were():
    logger = logging.getLogger("pydicom")
    before = logger.level, list(warnings.filters)

    with pytest.raises(CorruptImage):
        decode(_film(Rows=0))

    assert (logger.level, list(warnings.filters)) == before
