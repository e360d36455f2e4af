import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from kneeoa.errors import CorruptImage, KneeOaError, TooLarge, UnsupportedMedia
from kneeoa.imaging import decode
from kneeoa.tasks import Laterality
from tests.unit.dicom_factory import gradient, refused


def _file(image, kind, **options):
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


GREY = gradient(bits=8)
DEEP = gradient(bits=16)
FLOAT = Image.fromarray(GREY.astype(np.float32))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("stored", "bits"), [(GREY, 8), (DEEP, 16)])
def test_grey_images_return_their_values(kind, stored, bits):
    film = decode(_file(Image.fromarray(stored), kind))

    assert film.pixels.dtype == np.float32
    assert np.array_equal(film.pixels, stored)
    assert (film.source, film.bits, film.transfer_syntax) == ("raster", bits, None)
    assert (film.polarity, film.spacing_mm, film.laterality) == (None, None, Laterality.UNKNOWN)
    assert not film.rows_run_to_right


@pytest.mark.parametrize("mode", ["LA", "P", "RGB", "RGBA"])
def test_other_modes_become_the_same_grey(mode):
    film = decode(_file(Image.fromarray(GREY).convert(mode), "PNG"))

    assert np.array_equal(film.pixels, GREY)


def test_colour_becomes_luminance():
    film = decode(_file(Image.new("RGB", (70, 70), (255, 0, 0)), "PNG"))

    assert np.unique(film.pixels) == [76]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_compressions_are_read(compression):
    film = decode(_file(Image.fromarray(DEEP), "TIFF", compression=compression))

    assert np.array_equal(film.pixels, DEEP)


def test_jpeg_is_read():
    film = decode(_file(Image.fromarray(GREY), "JPEG", quality=100))

    assert np.abs(film.pixels - GREY).max() <= 3


def test_exif_orientation_is_applied_since_a_mirror_swaps_the_sides():
    exif = Image.Exif()
    exif[0x0112] = 2  # mirrored

    film = decode(_file(Image.fromarray(GREY), "PNG", exif=exif))

    assert np.array_equal(film.pixels, GREY[:, ::-1])


def _png_claiming(width, height):
    data = _file(Image.fromarray(GREY), "PNG")
    header = b"IHDR" + struct.pack(">LL", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">L", zlib.crc32(header)) + data[33:]


def _cut(kind, **options):
    data = _file(Image.fromarray(GREY), kind, **options)
    return data[: len(data) // 2]


HOSTILE = {
    "PNG cut": (lambda: _cut("PNG"), CorruptImage),
    "JPEG cut": (lambda: _cut("JPEG"), CorruptImage),
    "TIFF cut": (lambda: _cut("TIFF", compression="tiff_lzw"), CorruptImage),
    "PNG signature only": (lambda: b"\x89PNG\r\n\x1a\n", CorruptImage),
    "JPEG signature only": (lambda: b"\xff\xd8\xff", CorruptImage),
    "TIFF signature only": (lambda: b"II*\0" + bytes(range(200)), CorruptImage),
    "PNG larger than its data": (lambda: _png_claiming(3000, 3000), CorruptImage),
    "PNG above 64 megapixels": (lambda: _png_claiming(8001, 8001), TooLarge),
    "PNG that Pillow would warn about": (lambda: _png_claiming(10_000, 10_000), TooLarge),
    "PNG bomb": (lambda: _png_claiming(2**31 - 1, 2**31 - 1), TooLarge),
    "PNG too wide": (lambda: _png_claiming(16_385, 64), TooLarge),
    "1 bit": (lambda: _file(Image.fromarray(GREY).convert("1"), "PNG"), UnsupportedMedia),
    "float": (lambda: _file(FLOAT, "TIFF"), UnsupportedMedia),
    "32 bit": (lambda: _file(Image.fromarray(DEEP.astype(np.int32) * 2), "TIFF"), UnsupportedMedia),
    "GIF": (lambda: _file(Image.fromarray(GREY), "GIF"), UnsupportedMedia),
    "text": (lambda: b"<html>" * 100, UnsupportedMedia),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_input_is_a_coded_error(case):
    refused(*HOSTILE[case])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_flipped_bytes_never_escape_as_anything_but_a_coded_error(kind):
    rng = np.random.default_rng(1)
    whole = _file(Image.fromarray(GREY[:16, :16]), kind)
    for _ in range(200):
        data = bytearray(whole)
        for at in rng.integers(8, len(data), size=3):
            data[at] = rng.integers(256)
        try:
            film = decode(bytes(data))
        except KneeOaError:
            continue
        assert film.pixels.ndim == 2
