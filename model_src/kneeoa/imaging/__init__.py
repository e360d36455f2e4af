"""From the bytes of a request to equalised single-knee images."""

from kneeoa.errors import EmptyBody, UnsupportedMedia
from kneeoa.imaging.dicom import read_dicom
from kneeoa.imaging.radiograph import Radiograph
from kneeoa.imaging.raster import read_raster

__all__ = ["Radiograph", "decode"]

_PREFIX_AT = 128  # DICOM part 10: a free preamble, then "DICM"
_RASTER = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def decode(data: bytes) -> Radiograph:
    """Read a radiograph; the content decides, never a file name or a content type.

    DICOM goes first: its preamble may hold a TIFF header on purpose, and only the DICOM reading has side, polarity and
    spacing. DICOM without the part 10 preamble is refused.

    Raises
    ------
    EmptyBody, UnsupportedMedia, UnsupportedDicom, CorruptImage, TooLarge
    """
    if not data:
        raise EmptyBody
    if data[_PREFIX_AT : _PREFIX_AT + 4] == b"DICM":
        return read_dicom(data)
    if data.startswith(_RASTER):
        return read_raster(data)
    raise UnsupportedMedia
