"""Reads one projection radiograph out of a DICOM file that nobody vouches for.

Only the elements listed here are ever parsed, and errors carry our words alone.
"""

import re
from io import BytesIO

import numpy as np
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, get_frame
from pydicom.filereader import read_dataset
from pydicom.pixels import get_decoder  # type: ignore[attr-defined]  # documented, but not in its __all__
from pydicom.pixels.decoders.base import Decoder
from pydicom.tag import BaseTag, Tag

from kneeoa.errors import CorruptImage, KneeOaError, UnsupportedDicom
from kneeoa.imaging.codestream import check_whole, jpeg_2000_size, jpeg_size, unpack_rle
from kneeoa.imaging.quiet import quiet
from kneeoa.imaging.radiograph import Radiograph, check_size
from kneeoa.tasks import Laterality

# Deflated is absent on purpose: 512 KB of it can inflate to a gigabyte before anything can be checked.
_JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
_JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
_NATIVE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
TRANSFER_SYNTAXES = (*_NATIVE, uid.RLELossless, *_JPEG, *_JPEG_LS, *_JPEG_2000)
SOP_CLASSES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,  # research sets
)
SLOPE, INTERCEPT = (1e-4, 1e4), 1e7  # outside, a rescale is a mistake, and float32 does not hold its values apart
FRONTAL = {"AP", "PA", "FRONTAL"}  # words of a View Position; an absent one says nothing
# Of CID 4010, in SNOMED CT and in the older SNOMED RT: lateral, oblique, axial, tangential, sagittal. Others say nothing.
# fmt: off
NOT_FRONTAL = {
    "399067008", "R-102CD", "399173006", "R-10236", "399198007", "R-10232", "399352003", "R-10228", "399260004", "R-10224",
    "30730003", "G-A145", "399182000", "R-102C1", "399184004", "R-10238", "399236003", "R-10234", "260426006", "R-40782",
    "260427002", "R-40783", "399099002", "R-10230", "399368009", "R-10226", "399135007", "R-10220", "399356000", "R-40985",
    "399006002", "R-10212", "399038007", "R-10210", "399312000", "R-10208", "399059000", "R-10216", "399160007", "R-10204",
    "399061009", "R-10241", "399004004", "R-10246", "399110001", "R-102C2",
}
# fmt: on
VIEW = ("ViewPosition", "PatientOrientation", "ViewCodeSequence")
SPACING_MM = (0.01, 5.0)  # outside, a pixel spacing is a mistake and not a detector
# fmt: off
_ELEMENTS = (
    *VIEW, "SOPClassUID", "PixelSpacing", "ImagerPixelSpacing", "ImageLaterality", "Laterality", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation", "RescaleSlope", "RescaleIntercept", "PixelData",
)
# fmt: on


def read_dicom(data: bytes) -> Radiograph:
    """Read a DICOM part 10 file with one monochrome frame of 8 to 16 bits.

    Order: meta header, transfer syntax, the listed elements, limits, and only then pixels.

    Raises
    ------
    UnsupportedDicom
        Another kind of object, pixel format or transfer syntax, or its decoder is not installed.
    TooLarge
        Rows × Columns beyond the limits, before decoding.
    CorruptImage
        Whatever goes wrong inside the parser or a codec.
    """
    try:
        with quiet():
            return _read(BytesIO(data))
    except KneeOaError:
        raise
    # A hostile file makes pydicom raise nearly anything (AttributeError, ValueError, NotImplementedError, RuntimeError,
    # RecursionError, OSError, struct.error, MemoryError …), and the text quotes the file.
    except Exception:
        raise CorruptImage from None


def _read(file: BytesIO) -> Radiograph:
    file.seek(132)  # past the preamble and "DICM"
    meta = read_dataset(
        file, False, True, stop_when=lambda tag, *_: tag.group != 2, specific_tags=_tags("TransferSyntaxUID")
    )
    syntax = uid.UID(meta.TransferSyntaxUID)
    if syntax not in TRANSFER_SYNTAXES:
        raise UnsupportedDicom("This transfer syntax is not supported.")
    # Not dcmread: it inflates, and reads what we do not want. From here on the syntax is one of ours.
    ds = read_dataset(file, syntax.is_implicit_VR, syntax.is_little_endian, specific_tags=_tags(*_ELEMENTS))
    ds.set_original_encoding(syntax.is_implicit_VR, syntax.is_little_endian)
    _check(ds)
    slope, intercept = _number(ds, "RescaleSlope", 1.0), _number(ds, "RescaleIntercept", 0.0)
    if not (SLOPE[0] <= abs(slope) <= SLOPE[1] and abs(intercept) <= INTERCEPT):
        raise CorruptImage
    pixels = _stored_pixels(ds, syntax)
    if (slope, intercept, pixels.dtype.kind) == (1, 0, "u"):
        pixels = pixels.astype(np.uint16)
    else:
        pixels = pixels.astype(np.float32)
        pixels *= slope
        pixels += intercept
    if pixels.shape != (ds.Rows, ds.Columns):
        raise CorruptImage
    inverted = ds.PhotometricInterpretation == "MONOCHROME1"
    if inverted:
        np.subtract(pixels.max(), pixels, out=pixels)
    sides = _sides(ds)
    return Radiograph(
        pixels=pixels,
        spacing_mm=_spacing(ds),
        polarity="monochrome1" if inverted else "monochrome2",
        laterality={frozenset("R"): Laterality.RIGHT, frozenset("L"): Laterality.LEFT}.get(sides, Laterality.UNKNOWN),
        rows_run_to_right="".join(_strings(ds, "PatientOrientation")[:1]).startswith("R"),
        source="dicom",
        transfer_syntax=syntax.name,
        bits=int(ds.BitsStored),
        bilateral=sides == {"B"},
        contradictory=len(sides) > 1,
        frontal=is_frontal(ds),
    )


def _tags(*keywords: str) -> list[BaseTag | int]:
    return [Tag(keyword) for keyword in keywords]


def _check(ds: Dataset) -> None:
    """Everything that can be refused before a pixel is touched; a missing element is left to raise AttributeError."""
    if ds.SOPClassUID not in SOP_CLASSES:
        raise UnsupportedDicom("Only computed and digital radiography and secondary capture images are supported.")
    check_size(ds.Rows, ds.Columns)
    if ds.SamplesPerPixel != 1 or ds.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise UnsupportedDicom("Only MONOCHROME1 and MONOCHROME2 images are supported.")
    if _number(ds, "NumberOfFrames", 1) != 1:
        raise UnsupportedDicom("Only single-frame images are supported.")
    allocated, stored = ds.BitsAllocated, ds.BitsStored
    if allocated not in (8, 16) or not 8 <= stored <= allocated or ds.get("HighBit", stored - 1) != stored - 1:
        raise UnsupportedDicom("Only pixels of 8 to 16 bits, stored in the low bits, are supported.")


def _stored_pixels(ds: Dataset, syntax: uid.UID) -> np.ndarray:
    """The stored values, decoded only once the codestream's own size is known to be the header's."""
    decoder = get_decoder(syntax)
    if not decoder.is_available:
        raise UnsupportedDicom("This server has no decoder for this transfer syntax.")
    if syntax in _NATIVE:
        length = ds.Rows * ds.Columns * ds.BitsAllocated // 8
        if not length <= len(ds.PixelData) <= length + length % 2:
            raise CorruptImage  # too long is as bad as too short: nobody knows where the film begins
    else:
        frame = get_frame(ds.PixelData, 0, number_of_frames=1)
        if syntax == uid.RLELossless:
            return _used_bits(unpack_rle(frame, ds.Rows, ds.Columns, ds.BitsAllocated // 8), ds)
        size = jpeg_2000_size(frame) if syntax in _JPEG_2000 else jpeg_size(frame)
        if size != (ds.Rows, ds.Columns, 1):
            raise CorruptImage
        if syntax in _JPEG:
            return _whole_jpeg(ds, decoder, frame)
    # The other decoder of JPEG-LS would step in where this one finds damage, and make up what was cut off.
    return np.asarray(decoder.as_array(ds, index=0, decoding_plugin="pyjpegls" if syntax in _JPEG_LS else "")[0])


def _whole_jpeg(ds: Dataset, decoder: Decoder, frame: bytes) -> np.ndarray:
    def decoded(stream: bytes) -> np.ndarray:
        ds.PixelData = encapsulate([stream])
        return np.asarray(decoder.as_array(ds, index=0)[0])

    pixels = decoded(frame)
    check_whole(frame, decoded, pixels)
    return pixels


def _used_bits(pixels: np.ndarray, ds: Dataset) -> np.ndarray:
    """Clear what lies above Bits Stored, and extend the sign; pydicom does so for the other syntaxes."""
    unused = ds.BitsAllocated - ds.BitsStored
    signed = pixels.view(f"i{pixels.itemsize}") if ds.PixelRepresentation else pixels
    return (signed << unused) >> unused


def _number(ds: Dataset, keyword: str, default: float) -> float:
    value = ds.get(keyword)
    return default if value is None or value == "" else float(value)


def _strings(ds: Dataset, keyword: str) -> list[str]:
    """The values of an optional text element; damaged ones count as absent, since the film is still a film."""
    try:
        value = ds.get(keyword) or ()
        return [str(v).strip() for v in ([value] if isinstance(value, str) else value)]
    except Exception:
        return []


def _view_codes(ds: Dataset) -> set[str]:
    try:
        return {str(item.get("CodeValue", "")).strip() for item in ds.get("ViewCodeSequence") or ()}
    except Exception:  # optional, and as likely damaged as any element
        return set()


def _spacing(ds: Dataset) -> tuple[float, float] | None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            row, column = (float(v) for v in ds.get(keyword) or ())
        except Exception:  # optional: absent, damaged, or not two numbers
            continue
        if all(SPACING_MM[0] <= v <= SPACING_MM[1] for v in (row, column)):
            return row, column
    return None


def _sides(ds: Dataset) -> frozenset[str]:
    """What Image Laterality and Laterality say; two different answers are a contradiction."""
    return frozenset(v for keyword in ("ImageLaterality", "Laterality") for v in _strings(ds, keyword) if v)


def is_frontal(ds: Dataset) -> bool:
    """Whether nothing in the elements `VIEW` says that a film was taken from another direction.

    In a frontal view neither rows nor columns run to the patient's front or back.
    """
    words = set(re.findall("[A-Z]+", " ".join(_strings(ds, "ViewPosition")).upper()))
    sideways = {"A", "P"} & {axis[:1] for axis in _strings(ds, "PatientOrientation")}
    return (not words or bool(words & FRONTAL)) and not sideways and not NOT_FRONTAL & _view_codes(ds)
