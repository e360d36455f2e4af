"""The page of a film (`kneeoa.reporting.figure`) as a Secondary Capture."""

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from kneeoa.messages import Message
from kneeoa.reporting.carried import carried_over, header, made_as, reference
from kneeoa.reporting.figure import OPACITY
from kneeoa.tasks import Laterality


def secondary_capture(data: bytes, page: np.ndarray, reply: Message, opacity: float = OPACITY) -> Dataset:
    """A page, RGB uint8 (h, w, 3), in the study of its film; it names the film and the report that belong to it.

    Raises
    ------
    NoDicomStudy
        If there is no study to put it in.
    """
    with carried_over():
        source = header(data)
        capture = hd.sc.SCImage.from_ref_dataset(
            source, page, "RGB", 8, "PATIENT", patient_orientation=tuple(source.get("PatientOrientation") or ("L", "F")),
            transfer_syntax_uid=ExplicitVRLittleEndian, **made_as("sc", source, reply, opacity),
        )  # fmt: skip
        sides = {knee["knee"] for knee in reply["knees"]}
        if sides == {Laterality.UNKNOWN.value}:
            capture.Laterality = ""
        else:
            capture.ImageLaterality = sides.pop() if len(sides) == 1 else "B"
        if "PatientOrientation" not in source:
            capture["PatientOrientation"].value = ""
        capture.ImageComments = reply["disclaimer"]
        capture.SourceImageSequence = [_to(source, codes.DCM.SourceImageForImageProcessingOperation)]
        report = reference("sr", source, reply, opacity)
        capture.ReferencedInstanceSequence = [_to(report, codes.DCM.ImagingMeasurementReport)]
        if "BurnedInAnnotation" in source:  # what is burned into the film is in its picture too
            capture.BurnedInAnnotation = source.BurnedInAnnotation
        return capture


def _to(other: Dataset, purpose: Code) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = other.SOPClassUID, other.SOPInstanceUID
    item.PurposeOfReferenceCodeSequence = [hd.sr.CodedConcept.from_code(purpose)]
    return item
