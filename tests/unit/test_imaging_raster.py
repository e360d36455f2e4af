from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEGExtended12Bit

from kneeoa.errors import CorruptImage, KneeOaError
from kneeoa.imaging import decode
from kneeoa.tasks import Laterality
from tests.corpus import DEEP, GREY, RASTER, file_of
from tests.unit.dicom_factory import gradient, make_dicom, refused


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("stored", "bits"), [(GREY, 8), (DEEP, 16)])
def test_grey_images_return_their_values(kind, stored, bits):
    film = decode(file_of(Image.fromarray(stored), kind))

    assert film.pixels.dtype == np.uint16
    assert np.array_equal(film.pixels, stored)
    assert (film.source, film.bits, film.transfer_syntax) == ("raster", bits, None)
    assert (film.polarity, film.spacing_mm, film.laterality) == (None, None, Laterality.UNKNOWN)
    assert not film.rows_run_to_right


@pytest.mark.parametrize("mode", ["LA", "P", "RGB", "RGBA"])
def test_other_modes_become_the_same_grey(mode):
    film = decode(file_of(Image.fromarray(GREY).convert(mode), "PNG"))

    assert np.array_equal(film.pixels, GREY)


def test_colour_becomes_luminance():
    film = decode(file_of(Image.new("RGB", (70, 70), (255, 0, 0)), "PNG"))

    assert np.unique(film.pixels) == [76]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressions_are_read(compression):
    film = decode(file_of(Image.fromarray(DEEP), "TIFF", compression=compression))

    assert np.array_equal(film.pixels, DEEP)


@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"restart_marker_blocks": 3}, {"optimize": True}])
@pytest.mark.parametrize("behind", [b"", b"\0\0", b"\xff\xd8 another picture \xff\xd9"])
def test_a_whole_jpeg_is_read(how, behind):
    film = decode(file_of(Image.fromarray(GREY), "JPEG", quality=100, **how) + behind)

    assert np.abs(film.pixels.astype(int) - GREY).max() <= 3


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_progressive_jpeg_that_ends_between_two_scans_is_corrupt(mode):
    whole = file_of(Image.fromarray(GREY).convert(mode), "JPEG", progressive=True)
    scans = [at for at in range(len(whole)) if whole.startswith(b"\xff\xda", at)]
    decode(whole)

    for scan in scans[1:]:
        cut = whole[: whole.rindex(b"\xff\xc4", 0, scan)] + b"\xff\xd9"  # its Huffman table stands before a scan
        refused(lambda cut=cut: cut, CorruptImage)
        if mode == "L":
            refused(lambda cut=cut: make_dicom(GREY, syntax=JPEGExtended12Bit, frame=cut), CorruptImage)


def test_a_deflated_tiff_that_is_damaged_within_is_corrupt():
    """libtiff takes that byte for a good one: thousands of pixels differ."""
    data = bytearray(file_of(Image.fromarray(gradient(400, 300, bits=16)), "TIFF", compression="tiff_adobe_deflate"))
    decode(bytes(data))

    data[Image.open(BytesIO(data)).tag_v2[273][1] + 12182] ^= 1

    refused(lambda: bytes(data), CorruptImage)


def test_exif_orientation_is_applied_since_a_mirror_swaps_the_sides():
    exif = Image.Exif()
    exif[0x0112] = 2  # mirrored

    film = decode(file_of(Image.fromarray(GREY), "PNG", exif=exif))

    assert np.array_equal(film.pixels, GREY[:, ::-1])


@pytest.mark.parametrize("case", RASTER)
def test_hostile_input_is_a_coded_error(case):
    refused(*RASTER[case])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_flipped_bytes_never_escape_as_anything_but_a_coded_error(kind):
    rng = np.random.default_rng(1)
    whole = file_of(Image.fromarray(GREY[:16, :16]), kind)
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(8, len(data), size=3):
            data[at] = rng.integers(256)
        try:
            film = decode(bytes(data))
        except KneeOaError:
            continue
        assert film.pixels.ndim == 2
