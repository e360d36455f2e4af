"""What the DICOM objects of a film carry over from its header, and the identity that they get from it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from pydicom import DataElement, Dataset, dcmread
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage, generate_uid
from pydicom.valuerep import DA, TM

import kneeoa
from kneeoa.errors import KneeOaError
from kneeoa.imaging.quiet import quiet
from kneeoa.messages import Message

MANUFACTURER = "kneeoa: research software, not a medical device"
MODEL = "kneeoa"
KINDS = {  # number and description of the series, SOP class
    "sr": (9901, "kneeoa grades (research)", Comprehensive3DSRStorage),
    "sc": (9902, "kneeoa figure (research)", SecondaryCaptureImageStorage),
}
# fmt: off
_CARRIED = (  # patient and study of the film, and what the objects are made of; nothing else of it is read
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
    "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "SOPClassUID",
    "SOPInstanceUID", "SeriesInstanceUID", "Modality", "PatientOrientation", "BurnedInAnnotation", "TimezoneOffsetFromUTC",
)
_TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
           "ReferringPhysicianName")
# fmt: on
_NUMBERS = ("SeriesNumber", "InstanceNumber")  # to tell a study's films apart
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


class NoDicomStudy(KneeOaError):
    """The film is no DICOM object that says which study it belongs to, or its header cannot be carried over."""

    code, http_status, stage = "no_dicom_study", 422, "report"


@contextmanager
def carried_over() -> Iterator[None]:
    """A damaged header makes the parsers raise nearly anything, in words that quote it."""
    try:
        with quiet():
            yield
    except KneeOaError:
        raise
    except Exception:
        raise NoDicomStudy from None


def header(data: bytes) -> Dataset:
    """What is carried over of a film, a DICOM file; what is damaged is left out, or empty where it must be there.

    Raises
    ------
    NoDicomStudy
        Within `carried_over`, if there is no study.
    """
    source = dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=[*_CARRIED, *_NUMBERS])
    if not all(source.get(name) for name in _IDENTITY):
        raise NoDicomStudy
    for name in _NUMBERS:
        if _number(source, name) is None and name in source:
            del source[name]
    source.decode()
    source.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: whatever the film's was, and if it was none
    for element in list(source):
        if element.keyword not in (*_IDENTITY, *_NUMBERS) and not _valid(element):
            del source[element.tag]
    for name in _TYPE_2:
        if name not in source:
            setattr(source, name, "")
    return source


def _number(source: Dataset, name: str) -> int | None:
    try:
        return int(source[name].value)
    except (KeyError, ValueError, TypeError):  # absent, no number, several
        return None


def _valid(element: DataElement) -> bool:
    """Whether a report can carry it; what is not is left empty, rather than the patient without a report."""
    if element.keyword == "PatientOrientation":
        return element.VM == 2 and all(re.fullmatch("[LRAPHF]{1,3}", direction) for direction in element.value)
    try:
        {"DA": DA, "TM": TM}.get(element.VR, str)(element.value)
    except ValueError:
        return False
    return element.VM <= 1 and (element.keyword != "PatientSex" or element.value in ("M", "F", "O"))


def made_as(kind: str, source: Dataset, reply: Message, opacity: float) -> dict[str, Any]:
    """Series, instance and equipment of one of `KINDS`.

    The UIDs are others for other films, kinds, weights, versions and sides, and for other ways to draw the page.
    """
    sides = ",".join(knee["knee"] for knee in reply["knees"])
    weights = (model["sha256"] for model in reply["model"].values() if model)
    explained = [task for knee in reply["knees"] for task in knee.get("explanations", {}).get("heat", {})]
    of = source.SOPInstanceUID, kind, kneeoa.__version__, *weights, sides, f"{opacity:g}", *explained
    number, description, _ = KINDS[kind]
    places = [f"{noun} {source[name].value}" for noun, name in zip(("series", "image"), _NUMBERS, strict=True)
              if name in source]  # fmt: skip
    return {
        "series_instance_uid": uid(*of, "series"),
        "series_number": number,
        "series_description": ", ".join([description, " ".join(places)] if places else [description]),
        "sop_instance_uid": uid(*of, "instance"),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": MODEL,
        "software_versions": kneeoa.__version__,
    }


def reference(kind: str, source: Dataset, reply: Message, opacity: float) -> Dataset:
    """The same film's object of that kind, for the other one to refer to."""
    made, other = made_as(kind, source, reply, opacity), Dataset()
    other.StudyInstanceUID, other.SeriesInstanceUID = source.StudyInstanceUID, made["series_instance_uid"]
    other.SOPClassUID, other.SOPInstanceUID = KINDS[kind][2], made["sop_instance_uid"]
    return other


def uid(*of: str) -> str:
    """Always the same for the same words."""
    return generate_uid(entropy_srcs=["kneeoa", *of])
