"""Stores a film as a DICOM file, in either polarity."""

from io import BytesIO

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid

from training.synthesis.composed_films import Film


def to_dicom(
    film: Film, *, monochrome1: bool = False, bits: int = 12, compress: bool = False, seed: str = "kneeoa"
) -> bytes:
    """A DX object of the film; the same film and seed give the same bytes.

    Parameters
    ----------
    monochrome1 : bool
        Store it inverted and say so.
    bits : int
        Stored, 8 … 16.
    compress : bool
        JPEG 2000 lossless instead of explicit little endian.
    seed : str
        Of the object's UIDs.
    """
    pixels = np.rint(film.pixels * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)
    if monochrome1:
        pixels = 2**bits - 1 - pixels
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[seed, "instance"])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset(BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID = generate_uid(entropy_srcs=[seed, "study"])
    ds.SeriesInstanceUID = generate_uid(entropy_srcs=[seed, "series"])
    ds.Modality, ds.PatientName, ds.PatientID = "DX", "Phantom^Knee", "PHANTOM"
    ds.BodyPartExamined, ds.PatientOrientation = "KNEE", ["L", "F"]
    ds.Rows, ds.Columns = pixels.shape
    ds.PixelSpacing = [film.spacing_mm, film.spacing_mm]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = pixels.itemsize * 8, bits, bits - 1
    ds.PixelRepresentation = 0
    ds.PixelData = pixels.tobytes()
    if compress:
        ds.compress(JPEG2000Lossless, generate_instance_uid=False)
    buffer = BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
