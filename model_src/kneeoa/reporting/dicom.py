"""What a PACS takes: a Structured Report of the grades and a Secondary Capture of the page, in the study of the film.

A Comprehensive 3D SR (TID 1500, a TID 1410 group a knee; docs/dicom.md). A film graded twice alike gets the same instance UIDs.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import highdicom as hd
import numpy as np
from highdicom import sr
from matplotlib.figure import Figure
from pydicom import DataElement, Dataset, dcmread
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pydicom.valuerep import DA, TM

import kneeoa
from kneeoa.errors import KneeOaError
from kneeoa.geometry import Box, KeyPoints
from kneeoa.imaging.quiet import quiet
from kneeoa.measurement.joint_space import JointSpace, joint_spaces
from kneeoa.messages import Message, shown_as
from kneeoa.remarks import REASONS
from kneeoa.reporting.figure import OPACITY, as_image, displayed, draw_figure
from kneeoa.tasks import OA, TASKS, Laterality

SCHEME = "99KNEEOA"  # our own codes, where neither SNOMED CT nor DICOM has one that is known to us
MANUFACTURER = "kneeoa: research software, not a medical device"
SERIES = {"sr": 9901, "sc": 9902}
OSTEOARTHRITIS = Code("396275006", "SCT", "Osteoarthritis")
SIDES = {Laterality.RIGHT.value: codes.SCT.Right, Laterality.LEFT.value: codes.SCT.Left}
NO_UNITS = Code("1", "UCUM", "no units")
# fmt: off
_CARRIED = (  # patient and study of the film, and what the objects are made of; nothing else of it is read
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID",
    "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "SOPClassUID",
    "SOPInstanceUID", "SeriesInstanceUID", "Modality", "PatientOrientation", "BurnedInAnnotation", "TimezoneOffsetFromUTC",
)
_TYPE_2 = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber",
           "ReferringPhysicianName")
# fmt: on
_IDENTITY = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")


class NoDicomStudy(KneeOaError):
    """The film is no DICOM object that says which study it belongs to, or its header cannot be carried over."""

    code, http_status, stage = "no_dicom_study", 422, "report"


def deliverables(data: bytes, reply: Message, opacity: float = OPACITY) -> dict[str, bytes]:
    """Both objects as DICOM files, by the ending of their names; see `structured_report` and `secondary_capture`."""
    film = displayed(data, reply)
    return delivered_with(data, film, draw_figure(film, reply, opacity=opacity), reply, opacity)


def delivered_with(data: bytes, film: np.ndarray, figure: Figure, reply: Message, opacity: float) -> dict[str, bytes]:
    """The same, of a ``film`` as `displayed` and a ``figure`` that are there already."""
    page = as_image(figure)
    objects = {"sr": structured_report(data, film, reply), "sc": secondary_capture(data, page, reply, opacity)}
    return {f"{kind}.dcm": as_file(dataset) for kind, dataset in objects.items()}


def structured_report(data: bytes, film: np.ndarray, reply: Message) -> Dataset:
    """The grades of a film as a Comprehensive 3D SR: complete, preliminary, unverified.

    Parameters
    ----------
    data : bytes
        The DICOM file that was graded.
    film : uint8 ndarray (h, w)
        The same as `kneeoa.reporting.figure.displayed`, to measure joint spaces in.
    reply : dict
        Its reply.

    Raises
    ------
    NoDicomStudy
        If there is no study to put it in.
    """
    with _carried_over():
        source = _source(data)
        device = sr.DeviceObserverIdentifyingAttributes(_uid("device"), "kneeoa", "kneeoa", kneeoa.__version__)
        content = sr.MeasurementReport(
            sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
            procedure_reported=_ours("RADIOGRAPHY", "Radiography of the knee"),
            imaging_measurements=[
                _graded(source, film, reply, knee, at) if knee["grades"] else _ungraded(source, knee, at)
                for at, knee in enumerate(reply["knees"])
            ],
            title=codes.DCM.ImagingMeasurementReport,
        )[0]
        content.ContentSequence.extend(_remarks(reply))
        report = sr.Comprehensive3DSR(
            [source], content, is_complete=True, manufacturer=MANUFACTURER, **_place("sr", source, reply)
        )
        report.CodingSchemeIdentificationSequence = [_scheme()]
        report.SeriesDescription = "kneeoa: knee osteoarthritis grades (research)"
        return report


def secondary_capture(data: bytes, page: np.ndarray, reply: Message, opacity: float = OPACITY) -> Dataset:
    """A page (`kneeoa.reporting.figure`), RGB uint8 (h, w, 3), as a Secondary Capture; see `structured_report`."""
    with _carried_over():
        source = _source(data)
        explained = [task for knee in reply["knees"] for task in knee.get("explanations", {}).get("heat", {})]
        capture = hd.sc.SCImage.from_ref_dataset(
            source, page, "RGB", 8, "PATIENT", manufacturer=MANUFACTURER,
            patient_orientation=tuple(source.get("PatientOrientation") or ("L", "F")),
            transfer_syntax_uid=ExplicitVRLittleEndian, **_place("sc", source, reply, f"{opacity:g}", *explained),
        )  # fmt: skip
        sides = {knee["knee"] for knee in reply["knees"]}
        if sides == {Laterality.UNKNOWN.value}:
            capture.Laterality = ""
        else:
            capture.ImageLaterality = sides.pop() if len(sides) == 1 else "B"
        if "PatientOrientation" not in source:
            capture["PatientOrientation"].value = ""
        capture.SeriesDescription = "kneeoa: figure (research)"
        capture.ImageComments = reply["disclaimer"]
        if "BurnedInAnnotation" in source:  # what is burned into the film is in its picture too
            capture.BurnedInAnnotation = source.BurnedInAnnotation
        return capture


def as_file(dataset: Dataset) -> bytes:
    """A DICOM part 10 file."""
    file = BytesIO()
    with _carried_over():
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@contextmanager
def _carried_over() -> Iterator[None]:
    """A damaged header makes the parsers raise nearly anything, in words that quote it."""
    try:
        with quiet():
            yield
    except KneeOaError:
        raise
    except Exception:
        raise NoDicomStudy from None


def _source(data: bytes) -> Dataset:
    source = dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=list(_CARRIED))
    if not all(source.get(name) for name in _IDENTITY):
        raise NoDicomStudy
    source.decode()
    source.SpecificCharacterSet = "ISO_IR 192"  # UTF-8: whatever the film's was, and if it was none
    for element in list(source):
        if element.keyword not in _IDENTITY and not _valid(element):
            del source[element.tag]
    for name in _TYPE_2:
        if name not in source:
            setattr(source, name, "")
    return source


def _valid(element: DataElement) -> bool:
    """Whether a report can carry it; what is not is left empty, rather than the patient without a report."""
    if element.keyword == "PatientOrientation":
        return element.VM == 2 and all(re.fullmatch("[LRAPHF]{1,3}", direction) for direction in element.value)
    try:
        {"DA": DA, "TM": TM}.get(element.VR, str)(element.value)
    except ValueError:
        return False
    return element.VM <= 1 and (element.keyword != "PatientSex" or element.value in ("M", "F", "O"))


def _place(kind: str, source: Dataset, reply: Message, *how: str) -> dict[str, Any]:
    """Series and instance: others for other films, kinds, weights, versions and sides, and ways to draw the page."""
    sides = ",".join(knee["knee"] for knee in reply["knees"])
    weights = (model["sha256"] for model in reply["model"].values() if model)
    of = source.SOPInstanceUID, kind, kneeoa.__version__, *weights, sides, *how
    return {
        "series_instance_uid": _uid(*of, "series"),
        "series_number": SERIES[kind],
        "sop_instance_uid": _uid(*of, "instance"),
        "instance_number": 1,
    }


def _uid(*of: str) -> str:
    return generate_uid(entropy_srcs=["kneeoa", *of])


def _scheme() -> Dataset:
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, "kneeoa: knee osteoarthritis grades"
    scheme.CodingSchemeVersion, scheme.CodingSchemeResponsibleOrganization = kneeoa.__version__, "kneeoa"
    return scheme


def _ours(value: str, meaning: str) -> Code:
    return Code(value, SCHEME, meaning)


def _who(source: Dataset, knee: Message, at: int) -> dict[str, Any]:
    name = f"{knee['knee']} 2" if at and knee["knee"] not in SIDES else knee["knee"]  # two of unknown side are two
    return {
        "tracking_identifier": sr.TrackingIdentifier(_uid(source.SOPInstanceUID, name), f"knee {name}"),
        "finding_sites": [sr.FindingSite(codes.SCT.KneeJoint, SIDES.get(knee["knee"]))],
    }


def _ungraded(source: Dataset, knee: Message, at: int) -> sr.MeasurementsAndQualitativeEvaluations:
    """A knee that was expected, and why it has no grades."""
    reason = _ours(knee["reason"].upper(), REASONS[knee["reason"]])
    evaluations = [sr.QualitativeEvaluation(_ours("NOT_GRADED", "Not graded"), reason)]
    return sr.MeasurementsAndQualitativeEvaluations(**_who(source, knee, at), qualitative_evaluations=evaluations)


def _graded(
    source: Dataset, film: np.ndarray, reply: Message, knee: Message, at: int
) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
    """One knee: where it is, its grades with their probabilities, and how wide its joint spaces are."""
    box, key_points = Box(*knee["box"]), KeyPoints.from_array(list(knee["key_points"].values()))
    corners = np.array([(box.x1, box.y1), (box.x2, box.y1), (box.x2, box.y2), (box.x1, box.y2), (box.x1, box.y1)])
    grades = {task: knee["grades"][task.name] for task in TASKS if not knee["grades"][task.name]["withheld"]}
    weights = [
        f"{name} weights {model['version']}, SHA-256 {model['sha256']}"
        for name, model in reply["model"].items()
        if model
    ]
    spaces = _spaces(film, knee, key_points)
    group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
        **_who(source, knee, at),
        referenced_region=sr.ImageRegion("POLYLINE", _within(corners, film), _selected_from(source)),
        algorithm_id=sr.AlgorithmIdentification("kneeoa", kneeoa.__version__, weights),
        measurements=[
            *_widths(reply, spaces),
            *(p for task, grade in grades.items() for p in _probabilities(task, grade)),
        ],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                OSTEOARTHRITIS if task is OA else _ours(task.name, task.title[:1].upper() + task.title[1:]),
                (codes.SCT.Present if found["grade"] else codes.SCT.Absent)
                if task is OA
                else _ours(f"GRADE_{found['grade']}", f"Grade {found['grade']}"),
            )
            for task, found in grades.items()
        ],
    )
    places = {"KEY_POINTS": ("Key points", "MULTIPOINT", key_points.as_array())} | {
        f"JSW_{side[0].upper()}": (f"Narrowest {side} joint space", "POLYLINE", np.array([(s.x, s.y1), (s.x, s.y2)]))
        for side, s in spaces.items()
    }
    for code, (meaning, graphic, points) in places.items():
        place = sr.ScoordContentItem(
            _ours(code, meaning), graphic, _within(points, film), relationship_type=sr.RelationshipTypeValues.CONTAINS
        )
        place.ContentSequence = sr.ContentSequence([_selected_from(source)])
        group[0].ContentSequence.append(place)
    return group


def _within(points: np.ndarray, film: np.ndarray) -> np.ndarray:
    """On the image, as SCOORD demands; its frame is ours: (0, 0) is the outer corner of the first pixel."""
    return np.clip(points, 0, film.shape[::-1])


def _selected_from(source: Dataset) -> sr.SourceImageForRegion:
    return sr.SourceImageForRegion(source.SOPClassUID, source.SOPInstanceUID)


def _spaces(film: np.ndarray, knee: Message, key_points: KeyPoints) -> dict[str, JointSpace]:
    """By compartment; none where the side is unknown."""
    names = {Laterality.RIGHT: ("lateral", "medial"), Laterality.LEFT: ("medial", "lateral")}.get(shown_as(knee))
    return dict(zip(names, joint_spaces(film, key_points), strict=True)) if names else {}


def _widths(reply: Message, spaces: dict[str, JointSpace]) -> Iterator[sr.Measurement]:
    for side, space in spaces.items() if reply["film"]["spacing_mm"] else ():
        millimetres = round(space.width * reply["film"]["spacing_mm"][0], 2)
        name = _ours(f"JSW_{side[0].upper()}", f"Minimum joint-space width, {side}")
        yield sr.Measurement(name, millimetres, codes.UCUM.Millimeter)


def _probabilities(task: Any, found: Message) -> Iterator[sr.Measurement]:
    for grade, p in enumerate(found["probabilities"]):
        yield sr.Measurement(_ours(f"P_{task.name}_{grade}", f"Probability of {task.name} {grade}"), p, NO_UNITS)


def _remarks(reply: Message) -> Iterator[sr.TextContentItem]:
    """The disclaimer, warnings, and what each head learned from."""
    said = [("DISCLAIMER", "Disclaimer", reply["disclaimer"])]
    for knee in reply["knees"]:
        said += [("WARNING", "Warning", f"knee {knee['knee']}: {warning}") for warning in knee["warnings"]]
    said += [("WARNING", "Warning", f"film: {warning}") for warning in reply["film"]["warnings"]]
    for task, learned in reply["model"]["grader"]["provenance"].items():
        said.append(("PROVENANCE", "What a head learned from", f"{task}: {learned}"))
    for code, meaning, text in said:
        yield sr.TextContentItem(_ours(code, meaning), text, sr.RelationshipTypeValues.CONTAINS)
