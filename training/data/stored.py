"""A release's films as they lie on disk: files, or archives of one film each; headers that are wanting are mended.

Serving refuses what is not DICOM to the letter, for it knows nothing of who sends it. A release's films are known, and
some lack what only a strict reader asks for: what can be read without a guess is read, and told.
"""

import tarfile
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np
import pydicom
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from tqdm import tqdm

from kneeoa.errors import CorruptImage, EmptyBody, KneeOaError, TooLarge, UnsupportedDicom, UnsupportedMedia
from kneeoa.imaging import Radiograph, decode
from kneeoa.imaging.quiet import quiet
from kneeoa.imaging.radiograph import MAX_BYTES

ARCHIVES = (".tar.gz", ".tgz")  # one series each, as NDA packs them
NEVER_FILMS = (".pts", ".txt", ".csv", ".json", ".xml", ".jpg")  # landmarks, notes and thumbnails beside the films
_HEAD = 1 << 18  # bytes that hold a film's header
_FIRST_GROUPS = (b"\x02\0", b"\x08\0")  # what DICOM without a preamble begins with
_TAGS = ("SeriesDescription", "AccessionNumber")
_RADIOGRAPHY = ("CR", "DX", "RG")


@dataclass(frozen=True)
class Header:
    """What a release's reader asks of a film: SeriesDescription and AccessionNumber, empty where absent."""

    view: str
    barcode: str


def may_be_film(path: str) -> bool:
    """Whether a file's name does not rule a film out."""
    name = PurePosixPath(path).name.lower()
    return not name.startswith(".") and not name.endswith(NEVER_FILMS)


def film_bytes(path: Path, size: int = -1) -> bytes:
    """A film's first bytes, all of them by default; of an archive, its first file's.

    Raises
    ------
    OSError
    CorruptImage
        The archive is damaged, or holds no film.
    TooLarge
        The archive's file is larger than any film.
    """
    if not path.name.lower().endswith(ARCHIVES):
        with path.open("rb") as file:
            return file.read(size)
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.isfile() and may_be_film(member.name):
                    if member.size > MAX_BYTES:
                        raise TooLarge
                    packed = archive.extractfile(member)
                    assert packed is not None
                    data = packed.read(size)
                    if size < 0 and len(data) < member.size:
                        raise CorruptImage
                    return data
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise CorruptImage from error
    raise CorruptImage


def read_header(path: Path) -> Header | None:
    """None where the file is no DICOM, or damaged."""
    try:
        data = film_bytes(path, _HEAD)
        if not _is_dicom(data):
            return None
        with quiet():
            ds = pydicom.dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
            return Header(*(str(ds.get(tag, "")).strip() for tag in _TAGS))
    except Exception:  # a damaged header may raise anything
        return None


def read_headers(root: Path, paths: Iterable[str]) -> dict[str, Header | None]:
    """By path, several files at a time: disks and networks answer better so."""
    paths = list(paths)
    with ThreadPoolExecutor(8) as pool:
        headers = pool.map(read_header, (root / path for path in paths))
        return dict(zip(paths, tqdm(headers, "headers", len(paths), unit="film", disable=None), strict=True))


def read_film(path: Path) -> tuple[Radiograph, str]:
    """A film, and what of its header had to be mended: empty as a rule.

    Raises
    ------
    KneeOaError
        It cannot be opened, or read without a guess.
    """
    try:
        data = film_bytes(path)
    except OSError:
        raise CorruptImage("The file cannot be opened.") from None
    if not data:
        raise EmptyBody("The file is empty.")
    try:
        return decode(data), ""
    except (CorruptImage, UnsupportedDicom, UnsupportedMedia):
        try:
            mended, repair = _mended(data)
        except Exception:  # nor may mending stop the run
            repair = ""
        if not repair:
            raise
        return decode(mended), repair


def why_unreadable(path: Path) -> tuple[str, str]:
    """The code of a film that cannot be read, or empty; and what was mended."""
    try:
        return "", read_film(path)[1]
    except KneeOaError as error:
        return error.code, ""


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM" or data[:2] in _FIRST_GROUPS


def _mended(data: bytes) -> tuple[bytes, str]:
    """The film as DICOM to the letter, and what was missing; nothing is mended that leaves a choice."""
    if not _is_dicom(data):
        return data, ""
    with quiet():
        ds = pydicom.dcmread(BytesIO(data), force=True)
        repairs = [] if data[128:132] == b"DICM" else ["no preamble"]
        syntax = ds.file_meta.get("TransferSyntaxUID") if "file_meta" in ds.__dict__ else None
        if syntax is None:
            repairs.append("no transfer syntax")
            syntax = {
                (True, True): uid.ImplicitVRLittleEndian,
                (False, True): uid.ExplicitVRLittleEndian,
                (False, False): uid.ExplicitVRBigEndian,
            }[ds.original_encoding]  # type: ignore[index]  # it was read, so it has one
        if "SOPClassUID" not in ds and ds.get("Modality") in _RADIOGRAPHY:
            repairs.append("no SOP class")
            ds.SOPClassUID = uid.ComputedRadiographyImageStorage
        if not syntax.is_encapsulated and _high_bit_mended(ds, ">" if syntax == uid.ExplicitVRBigEndian else "<"):
            repairs.append("high bit")
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = syntax
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID") or uid.generate_uid()
        file = BytesIO()
        ds.save_as(file, enforce_file_format=True)
    return file.getvalue(), ", ".join(repairs)


def _high_bit_mended(ds: Dataset, order: str) -> bool:
    """Whether HighBit was not BitsStored − 1, and the pixels themselves say where their bits are."""
    stored, high = ds.BitsStored, ds.get("HighBit", ds.BitsStored - 1)
    if high == stored - 1 or ds.BitsAllocated != 16 or ds.PixelRepresentation != 0:
        return False
    pixels = np.frombuffer(ds.PixelData, f"{order}u2")
    if pixels.max() >= 1 << stored:  # the upper bits are used: then the lower ones must be free
        if high != 15 or (pixels & ((1 << (16 - stored)) - 1)).any():
            return False
        ds.PixelData = (pixels >> (16 - stored)).astype(f"{order}u2").tobytes()
    ds.HighBit = stored - 1
    return True
