import logging
import traceback
import tracemalloc
import warnings

import numpy as np
import pydicom
import pytest
from pydicom import uid

from kneeoa.errors import CorruptImage, KneeOaError, TooLarge, UnsupportedDicom
from kneeoa.imaging import decode, dicom
from tests.corpus import DICOM, MEBI, SECRET, deflate_bomb, jpeg_2000_claiming, rle_bomb, small_film
from tests.unit.dicom_factory import gradient, make_dicom, refused


@pytest.mark.parametrize("case", DICOM)
def test_hostile_input_is_a_coded_error(case):
    refused(*DICOM[case])


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (deflate_bomb, UnsupportedDicom),
        (lambda: small_film(Rows=65535, Columns=65535), TooLarge),
        (lambda: jpeg_2000_claiming(2**31, 2**31), CorruptImage),
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
    data = rle_bomb()
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
    data = small_film(syntax=uid.JPEG2000Lossless)
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
        data = small_film(
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
        decode(small_film(Rows=0))

    assert (logger.level, list(warnings.filters)) == before
