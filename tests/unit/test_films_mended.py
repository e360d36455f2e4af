"""Films of a release whose headers are wanting: read where nothing is guessed, refused where it would be."""

import numpy as np
import pydicom
import pytest
from pydicom import uid

from kneeoa.errors import KneeOaError
from kneeoa.imaging import decode
from tests.unit.dicom_factory import dataset_start, gradient, make_dicom
from tests.unit.releases import write_archive
from training.data.stored import read_film, why_unreadable

RAMP = gradient(bits=12)


def without_syntax(syntax: str) -> bytes:
    """Part 10, with a meta header that lacks the transfer syntax."""
    data = make_dicom(RAMP, syntax=syntax)
    return b"\0" * 128 + b"DICM" + b"\2\0\x10\0UI\2\0\0\0"[:0] + data[dataset_start(data) :]


def high_bit(pixels: np.ndarray, stored: int = 12) -> bytes:
    return make_dicom(pixels, bits=stored, HighBit=15)


MENDED = {
    "no preamble": (lambda: make_dicom(RAMP, bits=12)[132:], RAMP),
    "no preamble, no transfer syntax": (
        lambda: make_dicom(RAMP, bits=12)[dataset_start(make_dicom(RAMP, bits=12)) :],
        RAMP,
    ),
    "no transfer syntax": (lambda: without_syntax(uid.ExplicitVRLittleEndian), RAMP),
    "no transfer syntax, implicit": (lambda: without_syntax(uid.ImplicitVRLittleEndian), RAMP),
    "no SOP class": (lambda: make_dicom(RAMP, bits=12, SOPClassUID=None, Modality="CR"), RAMP),
    "high bit": (lambda: high_bit(RAMP), RAMP),
    "high bit, bits above": (lambda: high_bit(RAMP << 4), RAMP),
}


@pytest.mark.parametrize("name", MENDED)
def test_what_can_be_read_without_a_guess_is_read_and_told(tmp_path, name):
    build, pixels = MENDED[name]
    (tmp_path / "film").write_bytes(build())
    with pytest.raises(KneeOaError):  # what serving says, which knows nothing of who sends it
        decode(build())

    radiograph, repair = read_film(tmp_path / "film")

    assert np.array_equal(radiograph.pixels, pixels)
    assert repair == name.partition(", implicit")[0].partition(", bits")[0]


@pytest.mark.parametrize(
    ("build", "code"),
    [
        (lambda: high_bit(gradient(bits=16)), "unsupported_dicom"),  # all sixteen bits are used: which twelve count?
        (lambda: make_dicom(RAMP, bits=12, SOPClassUID=None, Modality="CT"), "corrupt_image"),
        (lambda: make_dicom(RAMP, bits=12)[132:-600], "corrupt_image"),
        (lambda: make_dicom(RAMP, bits=12)[:-600], "corrupt_image"),
        (lambda: b"", "empty_body"),
        (lambda: b"\2\0 no DICOM", "unsupported_media_type"),
        (lambda: b"\0\0\0\1Bud1", "unsupported_media_type"),
    ],
)
def test_what_could_be_read_in_two_ways_or_not_at_all_has_a_code(tmp_path, build, code):
    (tmp_path / "film").write_bytes(build())

    assert why_unreadable(tmp_path / "film") == (code, "")


def test_a_whole_film_is_not_touched(tmp_path):
    (tmp_path / "film").write_bytes(make_dicom(RAMP, bits=12))

    assert why_unreadable(tmp_path / "film") == ("", "")
    assert why_unreadable(tmp_path / "nowhere") == ("corrupt_image", "")


def test_an_archive_that_was_cut_off_is_no_film_and_a_whole_one_is(tmp_path):
    data = make_dicom(np.random.default_rng(0).integers(0, 4096, (80, 96)).astype(np.uint16), bits=12)
    path = tmp_path / "00000100.tar.gz"
    write_archive(path, {"00000100/.DS_Store": b"x", "00000100/001": data})

    assert np.array_equal(read_film(path)[0].pixels, pydicom.dcmread(pydicom.filebase.DicomBytesIO(data)).pixel_array)
    path.write_bytes(path.read_bytes()[:-3000])
    assert why_unreadable(path) == ("corrupt_image", "")
