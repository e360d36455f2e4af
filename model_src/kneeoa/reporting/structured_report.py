"""The grades of a film as a Comprehensive 3D SR (TID 1500; docs/dicom.md), made so that viewers show what the reply says.

OHIF 3.13 lists the first five numbers of a group, never a code, and prints a number of 0 as nothing but its unit: hence per cent,
no zeros, and the grade in the name of the first number. Cornerstone makes an editable line of each group that names its tool.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from highdicom import sr
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

import kneeoa
from kneeoa.geometry import Box, KeyPoints
from kneeoa.messages import Message
from kneeoa.remarks import WORDS
from kneeoa.reporting.carried import MODEL, carried_over, header, made_as, reference, uid
from kneeoa.reporting.coding import identification, ours
from kneeoa.reporting.figure import OPACITY
from kneeoa.tasks import KL, OA, TASKS, Laterality, Task

OSTEOARTHRITIS = Code("239873007", "SCT", "Osteoarthritis of knee")
SIDES = {Laterality.RIGHT.value: codes.SCT.Right, Laterality.LEFT.value: codes.SCT.Left}
_Group = sr.PlanarROIMeasurementsAndQualitativeEvaluations | sr.MeasurementsAndQualitativeEvaluations
LINE = "Cornerstone3DTools@^0.1.0:Length"  # the tracking identifier that Cornerstone's length tool writes and looks for


def structured_report(data: bytes, reply: Message, opacity: float = OPACITY) -> Dataset:
    """The grades of a film: complete, preliminary, unverified.

    Parameters
    ----------
    data : bytes
        The DICOM file that was graded.
    reply : dict
        Its reply.
    opacity : float
        Of the heat map in the Secondary Capture that the report names.

    Raises
    ------
    NoDicomStudy
        If there is no study to put it in.
    """
    with carried_over():
        source = header(data)
        capture = reference("sc", source, reply, opacity)
        device = sr.DeviceObserverIdentifyingAttributes(uid("device"), "kneeoa", "kneeoa", MODEL)
        content = sr.MeasurementReport(
            sr.ObservationContext(observer_device_context=sr.ObserverContext(codes.DCM.Device, device)),
            procedure_reported=codes.LN.XRUnspecifiedBodyRegion,
            imaging_measurements=[
                group for at, knee in enumerate(reply["knees"]) for group in _Knee(source, reply, knee, at).groups()
            ],
            title=codes.DCM.ImagingMeasurementReport,
        )[0]
        content.ContentSequence.append(
            sr.ImageContentItem(
                codes.DCM.IllustrationOfROI,
                capture.SOPClassUID,
                capture.SOPInstanceUID,
                relationship_type=sr.RelationshipTypeValues.CONTAINS,
            )
        )
        content.ContentSequence.extend(_remarks(reply))
        _separate(content)
        report = sr.Comprehensive3DSR(
            [source, capture], content, is_complete=True, **made_as("sr", source, reply, opacity)
        )
        report.CodingSchemeIdentificationSequence = [identification()]
        return report


def _separate(item: Dataset) -> None:
    """Each item of a container stands for itself; continuous, as is the default, renders values without their names."""
    if item.ValueType == "CONTAINER":
        item.ContinuityOfContent = "SEPARATE"
    for child in item.get("ContentSequence", ()):
        _separate(child)


@dataclass(frozen=True)
class _Knee:
    """A knee that was expected, as groups of the report."""

    source: Dataset
    reply: Message
    knee: Message
    at: int

    def groups(self) -> Iterator[_Group]:
        if not self.knee["grades"]:
            yield self._ungraded()
            return
        key_points = KeyPoints.from_array(list(self.knee["key_points"].values()))
        spaces = self._spaces()
        yield self._graded(key_points, spaces)
        for side, space in spaces.items():
            yield self._width_group(side, space)

    def _ungraded(self) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
        """Why it has no grades, and where it was sought: without a region, OHIF shows no film."""
        return sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            **self._who(),
            referenced_region=self._region(self.knee["box"] or (0, 0, *self._size)),
            qualitative_evaluations=[sr.QualitativeEvaluation(ours("NOT_GRADED"), ours(self.knee["reason"].upper()))],
        )

    def _graded(
        self, key_points: KeyPoints, spaces: dict[str, Message]
    ) -> sr.PlanarROIMeasurementsAndQualitativeEvaluations:
        """Where it is, its grades with their probabilities, and how wide its joint spaces are."""
        grades = {task: self.knee["grades"][task.name] for task in TASKS}
        grades = {task: found for task, found in grades.items() if not found["withheld"]}
        weights = [
            f"{name} weights {model['version']}, SHA-256 {model['sha256']}"
            for name, model in self.reply["model"].items()
            if model
        ]
        numbers = {task: list(_probabilities(task, found)) for task, found in grades.items()}
        first, *others = numbers.pop(KL)
        group = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            **self._who(),
            referenced_region=self._region(self.knee["box"]),
            algorithm_id=sr.AlgorithmIdentification("kneeoa", kneeoa.__version__, weights),
            measurements=[
                first,
                *(self._width(side, space) for side, space in spaces.items()),
                *others,
                *(number for task in numbers for number in numbers[task]),
            ],
            qualitative_evaluations=[_evaluation(task, found) for task, found in grades.items()],
        )
        place = sr.ScoordContentItem(
            ours("KEY_POINTS"),
            "MULTIPOINT",
            self._within(key_points.as_array()),
            relationship_type=sr.RelationshipTypeValues.CONTAINS,
        )
        place.ContentSequence = sr.ContentSequence([self._image()])
        group[0].ContentSequence.append(place)
        return group

    def _width_group(self, side: str, space: Message) -> sr.MeasurementsAndQualitativeEvaluations:
        """The width of one joint space again, with the line that it is the length of."""
        place = sr.CoordinatesForMeasurement("POLYLINE", self._within(np.array(space["ends"])), self._image())
        who = self._who() | {"tracking_identifier": sr.TrackingIdentifier(self._uid(f"JSW {side}"), LINE)}
        group = sr.MeasurementsAndQualitativeEvaluations(**who, measurements=[self._width(side, space, [place])])
        label = f"{'right' if self.knee['knee'] == 'R' else 'left'} knee, {side}"
        comment = sr.TextContentItem(codes.DCM.Comment, label, sr.RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(comment)
        return group

    def _width(
        self, side: str, space: Message, places: list[sr.CoordinatesForMeasurement] | None = None
    ) -> sr.Measurement:
        name, millimetres = ours(f"JSW_{side[0].upper()}"), space["mm"]
        meaning = f"JSW, {side}" if places else name.meaning  # short beside the line, where viewers have little room
        name = name._replace(meaning=meaning if millimetres else f"{meaning}: none, the bones touch")
        return sr.Measurement(name, millimetres, codes.UCUM.Millimeter, referenced_coordinates=places)

    def _spaces(self) -> dict[str, Message]:
        """The narrowest place by compartment, as the reply has it; none where the side, or the size of a pixel, is unknown."""
        found = {side: space["minimum"] for side, space in (self.knee["joint_space"] or {}).items()}
        return {side: space for side, space in found.items() if space["mm"] is not None}

    def _who(self) -> dict[str, Any]:
        return {
            "tracking_identifier": sr.TrackingIdentifier(self._uid(), f"knee {self._name}"),
            "finding_sites": [sr.FindingSite(codes.SCT.KneeJoint, SIDES.get(self.knee["knee"]))],
        }

    @property
    def _name(self) -> str:
        """Two of unknown side are two."""
        side = str(self.knee["knee"])
        return f"{side} 2" if self.at and side not in SIDES else side

    def _uid(self, *of: str) -> str:
        return uid(self.source.SOPInstanceUID, self._name, *of)

    def _region(self, box: tuple[float, ...]) -> sr.ImageRegion:
        b = Box(*box)
        corners = np.array([(b.x1, b.y1), (b.x2, b.y1), (b.x2, b.y2), (b.x1, b.y2), (b.x1, b.y1)])
        return sr.ImageRegion("POLYLINE", self._within(corners), self._image())

    @property
    def _size(self) -> tuple[int, int]:
        """Width and height of the film, px."""
        return self.reply["film"]["width"], self.reply["film"]["height"]

    def _within(self, points: np.ndarray) -> np.ndarray:
        """On the image, as SCOORD demands; its frame is ours: (0, 0) is the outer corner of the first pixel."""
        return np.clip(points, 0, self._size)

    def _image(self) -> sr.SourceImageForRegion:
        return sr.SourceImageForRegion(self.source.SOPClassUID, self.source.SOPInstanceUID)


def _evaluation(task: Task, found: Message) -> sr.QualitativeEvaluation:
    if task is OA:
        return sr.QualitativeEvaluation(OSTEOARTHRITIS, codes.SCT.Present if found["grade"] else codes.SCT.Absent)
    return sr.QualitativeEvaluation(ours(task.name), ours(f"GRADE_{found['grade']}"))


def _probabilities(task: Task, found: Message) -> Iterator[sr.Measurement]:
    """In per cent; the grade's own first, then the likeliest. None that is 0."""
    per_cent = {grade: round(100 * p, 2) for grade, p in enumerate(found["probabilities"])}
    for grade in sorted(per_cent, key=lambda grade: (grade != found["grade"], -per_cent[grade])):
        if per_cent[grade]:
            yield sr.Measurement(ours(f"P_{task.name}_{grade}"), per_cent[grade], codes.UCUM.Percent)


def _remarks(reply: Message) -> Iterator[sr.TextContentItem]:
    """The disclaimer, warnings, and what each head learned from."""
    said = [("DISCLAIMER", reply["disclaimer"])]
    for knee in reply["knees"]:
        said += [("WARNING", f"knee {knee['knee']}: {WORDS.get(warning, warning)}") for warning in knee["warnings"]]
    said += [("WARNING", f"film: {WORDS.get(warning, warning)}") for warning in reply["film"]["warnings"]]
    said += [("PROVENANCE", f"{task}: {learned}") for task, learned in reply["model"]["grader"]["provenance"].items()]
    for code, text in said:
        yield sr.TextContentItem(ours(code), text, sr.RelationshipTypeValues.CONTAINS)
