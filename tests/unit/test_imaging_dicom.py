from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset

from kneeoa.imaging import decode
from kneeoa.tasks import Laterality
from tests.unit.dicom_factory import gradient, make_dicom

SHARED = Path(__file__).parents[3] / "shared/data/dicom"
SHIPPED = Path(pydicom.__file__).parent / "data/test_files"
LOSSLESS = [
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.RLELossless,
    uid.JPEG2000Lossless,
]
MEBI = 2**20


def view(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


# --- what must be read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda s: uid.UID(s).keyword)
@pytest.mark.parametrize(
    ("bits", "signed"), [(8, False), (10, False), (12, False), (12, True), (16, False), (16, True)]
)
def test_lossless_syntaxes_return_the_stored_values(syntax, bits, signed):
    stored = gradient(bits=bits, signed=signed)

    film = decode(make_dicom(stored, bits=bits, syntax=syntax))

    assert film.pixels.dtype == (np.float32 if signed else np.uint16)
    assert np.array_equal(film.pixels, stored)
    assert (film.bits, film.source, film.polarity) == (bits, "dicom", "monochrome2")
    assert film.transfer_syntax == uid.UID(syntax).name


@pytest.mark.parametrize("syntax", [uid.JPEGLossless, uid.JPEGLosslessSV1], ids=lambda s: uid.UID(s).keyword)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_lossless_returns_the_stored_values(syntax, bits):
    stored = gradient(bits=bits)

    film = decode(make_dicom(stored, bits=bits, syntax=syntax))

    assert np.array_equal(film.pixels, stored)


def test_jpeg_baseline_comes_close_to_the_stored_values():
    stored = gradient(bits=8)

    film = decode(make_dicom(stored, syntax=uid.JPEGBaseline8Bit))

    assert np.abs(film.pixels.astype(int) - stored).max() <= 3


@pytest.mark.parametrize(
    ("name", "reference", "tolerance"),
    [
        ("JPGExtended.dcm", "JPEG2000.dcm", 400),  # one picture, two lossy codes
        ("JPEGLSNearLossless_08.dcm", None, 0),
        ("JPEGLSNearLossless_16.dcm", None, 0),
    ],
)
def test_files_that_pydicom_ships_are_read(name, reference, tolerance):
    if not (SHIPPED / name).exists():
        pytest.skip("this pydicom comes without its test files")

    film = decode((SHIPPED / name).read_bytes())

    if reference is None:
        assert np.array_equal(film.pixels, pydicom.dcmread(SHIPPED / name).pixel_array)
    else:
        other = decode((SHIPPED / reference).read_bytes())
        assert np.abs(film.pixels.astype(int) - other.pixels).max() <= tolerance


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda s: uid.UID(s).keyword)
def test_monochrome1_is_inverted(syntax):
    stored = gradient(bits=12)

    film = decode(make_dicom(stored, bits=12, syntax=syntax, photometric="MONOCHROME1"))

    assert film.polarity == "monochrome1"
    assert np.array_equal(film.pixels, stored.max() - stored.astype(np.float32))


@pytest.mark.parametrize(
    ("slope", "intercept", "a", "b"),
    [(2, -100, 2, -100), (0.5, None, 0.5, 0), (None, 7, 1, 7), (-1, 0, -1, 0), ("", "", 1, 0)],
)
def test_rescale_is_applied(slope, intercept, a, b):
    stored = gradient(bits=12)
    given = {k: v for k, v in (("RescaleSlope", slope), ("RescaleIntercept", intercept)) if v is not None}

    film = decode(make_dicom(stored, bits=12, **given))

    assert np.allclose(film.pixels, a * stored.astype(float) + b)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.RLELossless], ids=lambda s: uid.UID(s).keyword)
def test_bits_above_bits_stored_are_ignored(syntax):
    stored = gradient(bits=12)
    overlaid = stored | np.uint16(0x8000)  # retired practice: an overlay plane in a high bit

    film = decode(make_dicom(overlaid, syntax=syntax, BitsStored=12, HighBit=11))

    assert np.array_equal(film.pixels, stored)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, None),
        ({"PixelSpacing": [0.2, 0.3]}, (0.2, 0.3)),
        ({"ImagerPixelSpacing": [0.1, 0.1]}, (0.1, 0.1)),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.1, 0.1]}, (0.2, 0.2)),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.1, 0.1]}, (0.1, 0.1)),
        ({"PixelSpacing": [-0.2, 0.2]}, None),
        ({"PixelSpacing": ["nan", "0.2"]}, None),
        ({"PixelSpacing": ["inf", "inf"]}, None),
        ({"PixelSpacing": [200, 200]}, None),
        ({"PixelSpacing": "0.2"}, None),
        ({"PixelSpacing": b"a\\b"}, None),
    ],
)
def test_spacing_is_believed_only_when_plausible(elements, expected):
    assert decode(make_dicom(gradient(), **elements)).spacing_mm == expected


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, Laterality.UNKNOWN),
        ({"ImageLaterality": "R"}, Laterality.RIGHT),
        ({"ImageLaterality": "L"}, Laterality.LEFT),
        ({"Laterality": "R"}, Laterality.RIGHT),
        ({"ImageLaterality": "", "Laterality": "L"}, Laterality.LEFT),
        ({"ImageLaterality": "B"}, Laterality.UNKNOWN),
        ({"ImageLaterality": "B", "Laterality": "L"}, Laterality.UNKNOWN),
        ({"ImageLaterality": "U"}, Laterality.UNKNOWN),
        ({"ImageLaterality": "R", "Laterality": "R"}, Laterality.RIGHT),
        ({"ImageLaterality": "R", "Laterality": "L"}, Laterality.UNKNOWN),
        ({"Laterality": ["R", "L"]}, Laterality.UNKNOWN),
    ],
)
def test_laterality_is_read_and_never_guessed(elements, expected):
    assert decode(make_dicom(gradient(), **elements)).laterality is expected


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(None, False), (["L", "F"], False), (["R", "F"], True), (["RA", "F"], True), (["A", "R"], False), ("", False)],
)
def test_rows_run_to_right_reads_the_direction_of_the_rows(orientation, expected):
    elements = {} if orientation is None else {"PatientOrientation": orientation}

    assert decode(make_dicom(gradient(), **elements)).rows_run_to_right is expected


@pytest.mark.parametrize(
    ("elements", "bilateral", "contradictory"),
    [
        ({}, False, False),
        ({"ImageLaterality": "R"}, False, False),
        ({"ImageLaterality": "B"}, True, False),
        ({"ImageLaterality": "B", "Laterality": "B"}, True, False),
        ({"ImageLaterality": "B", "Laterality": "L"}, False, True),
        ({"ImageLaterality": "R", "Laterality": "L"}, False, True),
    ],
)
def test_both_knees_and_a_contradiction_are_two_things(elements, bilateral, contradictory):
    film = decode(make_dicom(gradient(), **elements))

    assert (film.bilateral, film.contradictory) == (bilateral, contradictory)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, True),
        ({"ViewPosition": ""}, True),
        ({"ViewPosition": "AP"}, True),
        ({"ViewPosition": "PA"}, True),
        ({"ViewPosition": "ap standing"}, True),
        ({"ViewPosition": "LL"}, False),
        ({"ViewPosition": "RL"}, False),
        ({"ViewPosition": "LATERAL"}, False),
        ({"ViewPosition": "PATELLA"}, False),
        ({"PatientOrientation": ["L", "F"]}, True),
        ({"PatientOrientation": ["R", "F"]}, True),
        ({"PatientOrientation": ["RA", "F"]}, True),
        ({"PatientOrientation": ["A", "F"]}, False),
        ({"PatientOrientation": ["P", "F"]}, False),
        ({"PatientOrientation": ["PL", "F"]}, False),
        ({"PatientOrientation": ["L", "P"]}, False),  # from above, as of a kneecap
        ({"ViewPosition": "AP", "PatientOrientation": ["A", "F"]}, False),
        ({"ViewCodeSequence": [view("399348003", "SCT", "antero-posterior")]}, True),
        ({"ViewCodeSequence": [view("R-10214", "SRT", "postero-anterior")]}, True),
        ({"ViewCodeSequence": [view("KNEE1", "99LOCAL", "lateral")]}, True),  # nobody else knows this code
        ({"ViewCodeSequence": [Dataset()]}, True),
        ({"ViewCodeSequence": []}, True),
        ({"ViewCodeSequence": [view("399067008", "SCT", "lateral")]}, False),
        ({"ViewCodeSequence": [view("R-10236", "SRT", "left lateral")]}, False),
        ({"ViewCodeSequence": [view("399110001", "SCT", "tangential")], "ViewPosition": "AP"}, False),
    ],
)
def test_views_that_are_not_frontal_are_known_by_their_header(elements, expected):
    assert decode(make_dicom(gradient(), **elements)).frontal is expected


@pytest.mark.parametrize(
    ("name", "side", "swapped"),
    [
        ("RG3_J2KR.dcm", Laterality.RIGHT, True),  # its burnt-in "R" is indeed mirrored
        ("RG3_J2KI.dcm", Laterality.RIGHT, True),
        ("RG1_J2KI.dcm", Laterality.UNKNOWN, False),  # PixelSpacing 0 \ 0
        ("dx_chest.dcm", Laterality.LEFT, False),
    ],
)
def test_real_radiographs_are_read(name, side, swapped):
    if not (SHARED / name).exists():
        pytest.skip("the real radiographs in ../shared/data/dicom are not on this machine")

    film = decode((SHARED / name).read_bytes())

    assert (film.polarity, film.laterality, film.rows_run_to_right) == ("monochrome1", side, swapped)
    assert film.pixels.min() == 0
    assert np.isfinite(film.pixels).all()
