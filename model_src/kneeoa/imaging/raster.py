"""PNG, JPEG and TIFF. Such a file declares neither polarity nor side, and its resolution tags are not believed."""

import zlib
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps

from kneeoa.errors import CorruptImage, KneeOaError, TooExpensive, TooLarge, UnsupportedMedia
from kneeoa.imaging.codestream import check_whole
from kneeoa.imaging.quiet import quiet
from kneeoa.imaging.radiograph import MAX_PIXELS, Radiograph, check_size

_GREY_16 = ("I;16", "I;16L", "I;16B", "I")  # Pillow opens some 16-bit files as "I", 32 bits wide
_COMPRESSION, _TILE_WIDTH, _TILE_LENGTH = 259, 322, 323  # TIFF tags
_PARTS = ((273, 279), (324, 325))  # where strips, or tiles, begin, and how long they are
_DEFLATE = (8, 32946)
_JPEG = b"\xff\xd8"
_TO_8_BIT = ("L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")


def read_raster(data: bytes) -> Radiograph:
    """Read 8- or 16-bit grey; colour becomes luminance, alpha is dropped, of several pages the first is read.

    EXIF orientation is applied, as every viewer does: a film seen mirrored has its sides swapped.

    Raises
    ------
    TooLarge
        Decided from the header, before decoding.
    UnsupportedMedia
        1-bit, float or more than 16-bit pixels.
    TooExpensive
        A TIFF tile larger than any film: each is decoded whole, however little of it the image needs.
    CorruptImage
        Anything Pillow cannot read; JPEG files that were cut, whether or not an end marker closes them; deflated TIFF
        strips and tiles that do not agree with their check sums.
    """
    try:
        with quiet(), Image.open(BytesIO(data), formats=("PNG", "JPEG", "TIFF")) as image:
            check_size(image.height, image.width)
            _check_tile(image)
            _check_sums(image, data)
            if image.mode not in _GREY_16 + _TO_8_BIT:
                raise UnsupportedMedia("Only 8- and 16-bit images are supported, not 1-bit or floating-point ones.")
            if data.startswith(_JPEG):
                check_whole(
                    data, lambda stream: np.asarray(Image.open(BytesIO(stream), formats=["JPEG"])), np.asarray(image)
                )
            deep = image.mode in _GREY_16
            upright = ImageOps.exif_transpose(image)
            pixels = np.array(upright if deep else upright.convert("L"))
    except KneeOaError:
        raise
    except Image.DecompressionBombError:
        raise TooLarge from None
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, zlib.error … on damaged files
        raise CorruptImage from None
    if deep and (pixels.min() < 0 or pixels.max() > np.iinfo(np.uint16).max):
        raise UnsupportedMedia("Only 8- and 16-bit images are supported, not deeper ones.")
    return Radiograph.without_header(pixels.astype(np.uint16), "raster", 16 if deep else 8)


def _check_tile(image: Image.Image) -> None:
    tags = getattr(image, "tag_v2", {})
    if int(tags.get(_TILE_WIDTH, 1)) * int(tags.get(_TILE_LENGTH, 1)) > MAX_PIXELS:
        raise TooExpensive


def _check_sums(image: Image.Image, data: bytes) -> None:
    """Refuse a deflated TIFF that is damaged within: libtiff stops at the last pixel, ahead of the check sum."""
    tags = getattr(image, "tag_v2", {})
    if tags.get(_COMPRESSION) in _DEFLATE:
        for starts, lengths in _PARTS:
            for start, length in zip(tags.get(starts, ()), tags.get(lengths, ()), strict=True):
                part = zlib.decompressobj()
                part.decompress(data[start : start + length], 8 * MAX_PIXELS)
                if not part.eof:
                    raise CorruptImage
