"""The Structured Report and the Secondary Capture: read back, and read by others' tools."""

import hashlib
import re
import subprocess
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from kneeoa.reporting.dicom import (
    OSTEOARTHRITIS,
    SCHEME,
    NoDicomStudy,
    as_file,
    deliverables,
    secondary_capture,
    structured_report,
)
from kneeoa.reporting.figure import displayed
from kneeoa.tasks import TASKS
from tests.conftest import ROOT
from tests.tools import needs
from tests.unit.dicom_factory import gradient, make_dicom

FILM = ROOT / "samples/moderate_oa.dcm"
PAGE = np.zeros((90, 160, 3), np.uint8)


@pytest.fixture(scope="module")
def graded(service):
    """A film, as displayed, and its reply."""
    data = FILM.read_bytes()
    reply = service.grade(data, explain="KL").message
    return data, displayed(data, reply), reply


@pytest.fixture(scope="module")
def files(graded, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dicom")
    data, _, reply = graded
    for ending, file in deliverables(data, reply).items():
        (folder / ending).write_bytes(file)
    return {path.name.split(".")[0]: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def report(files):
    return hd.sr.srread(files["sr"])


def named(items, value: str):
    """The items of a content sequence whose name has that code."""
    return [item for item in items if item.ConceptNameCodeSequence[0].CodeValue == value]


def test_every_grade_and_probability_of_each_knee_is_in_the_report(report, graded):
    groups = report.content.get_planar_roi_measurement_groups()
    assert len(groups) == 2
    for group, knee in zip(groups, graded[2]["knees"], strict=True):
        site = group.finding_sites[0]
        assert site.topographical_modifier is None
        assert site.value == codes.SCT.KneeJoint
        assert site.laterality == {"R": codes.SCT.Right, "L": codes.SCT.Left}[knee["knee"]]
        found = {e.name.value: e.value for e in group.get_qualitative_evaluations()}
        numbers = {m.name.value: m for m in group.get_measurements()}
        present = codes.SCT.Present if knee["grades"]["OA"]["grade"] else codes.SCT.Absent
        assert found.pop(OSTEOARTHRITIS.value) == present
        assert {n: v.value for n, v in found.items()} == {
            task.name: f"GRADE_{knee['grades'][task.name]['grade']}" for task in TASKS if task.name != "OA"
        }
        for task in TASKS:
            told = [numbers[f"P_{task.name}_{grade}"].value for grade in range(task.grades)]
            assert told == pytest.approx(knee["grades"][task.name]["probabilities"])


def test_places_are_in_the_films_pixels(report, graded):
    _, film, reply = graded
    for group, knee in zip(report.content.get_planar_roi_measurement_groups(), reply["knees"], strict=True):
        corners = group.roi.value
        assert [*corners.min(axis=0), *corners.max(axis=0)] == pytest.approx(knee["box"])
        items = group[0].ContentSequence
        points = np.reshape(named(items, "KEY_POINTS")[0].GraphicData, (6, 2))
        assert points == pytest.approx(np.array(list(knee["key_points"].values())), abs=1e-3)
        for side in "LM":
            (x, top), (_, bottom) = np.reshape(named(items, f"JSW_{side}")[-1].GraphicData, (2, 2))
            (width,) = (m for m in group.get_measurements() if m.name.value == f"JSW_{side}")
            assert width.value == pytest.approx((bottom - top) * reply["film"]["spacing_mm"][0], abs=0.01)
            lateral_at_left = knee["knee"] == "R"
            assert (x < points[:, 0].mean()) == ((side == "L") == lateral_at_left)
        for item in items:
            if item.ValueType == "SCOORD":
                source = item.ContentSequence[0].ReferencedSOPSequence[0]
                assert source.ReferencedSOPInstanceUID == pydicom.dcmread(FILM).SOPInstanceUID
                assert min(item.GraphicData) >= 0
                assert max(item.GraphicData) <= max(film.shape)


def test_it_is_unverified_and_says_what_it_is(report, graded):
    _, _, reply = graded
    texts = [item.TextValue for item in report.ContentSequence if item.ValueType == "TEXT"]
    (group, _) = report.content.get_planar_roi_measurement_groups()
    parameters = [item.TextValue for item in group[0].ContentSequence if item.ValueType == "TEXT"]

    assert (report.VerificationFlag, report.CompletionFlag, report.PreliminaryFlag) == (
        "UNVERIFIED",
        "COMPLETE",
        "PRELIMINARY",
    )
    assert report.SOPClassUID == pydicom.uid.Comprehensive3DSRStorage
    assert reply["disclaimer"] in texts
    assert sum("synthetic labels" in text for text in texts) == 6
    assert any("KL 0–1" in text for text in texts)  # an en dash: in UTF-8
    for model in reply["model"].values():
        assert any(model["sha256"] in text for text in parameters)


def test_same_study_new_series_and_the_film_untouched(files):
    before = hashlib.sha256(FILM.read_bytes()).hexdigest()
    film, *made = (pydicom.dcmread(path) for path in (FILM, files["sr"], files["sc"]))

    for keyword in ("StudyInstanceUID", "PatientID", "PatientName"):
        assert {str(each.get(keyword)) for each in made} == {str(film.get(keyword))}
    for keyword in ("SeriesInstanceUID", "SOPInstanceUID"):
        assert len({str(each.get(keyword)) for each in (film, *made)}) == 3
    assert hashlib.sha256(FILM.read_bytes()).hexdigest() == before
    assert made[1].pixel_array.shape == (990, 1760, 3)


def test_the_same_film_and_software_give_the_same_instances(graded):
    data, film, reply = graded
    first, again = (structured_report(data, film, reply).SOPInstanceUID for _ in range(2))
    other = {**reply, "model": {**reply["model"], "grader": {**reply["model"]["grader"], "sha256": "0" * 64}}}

    assert first == again
    unknown = {**reply, "knees": [{**reply["knees"][0], "knee": "unknown"}]}
    assert structured_report(data, film, unknown).SOPInstanceUID != first
    pages = [secondary_capture(data, PAGE, reply, opacity).SOPInstanceUID for opacity in (0.5, 0.5, 0.6)]
    assert pages[0] == pages[1] != pages[2]
    assert structured_report(data, film, other).SOPInstanceUID != first


def test_every_code_of_ours_is_documented(report):
    page = (ROOT / "docs/dicom.md").read_text()
    ours = {e.CodeValue for e in codes_in(report) if e.CodingSchemeDesignator == SCHEME}

    assert len(ours) > 40
    for value in ours:
        named = re.sub(r"^P_.*_\d$", "P_KL_0", re.sub(r"^GRADE_\d$", "GRADE_0", value))
        assert f"`{named}`" in page, value


def codes_in(dataset):
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from [item] if "CodeValue" in item else codes_in(item)


def spoilt(kind: str, reply: dict) -> dict:
    first, second = reply["knees"]
    hidden = {"grade": None, "probabilities": None, "withheld": "unknown_side"}
    compartments = {task.name: hidden for task in TASKS if task.compartment}
    lost = {**second, "status": "not_found", "reason": "no_knee_like_region", "grades": None, "box": None}
    unknown = {**first, "knee": "unknown", "grades": {**first["grades"], **compartments}}
    knees = {
        "unknown side": [unknown],
        "one lost": [first, lost],
        "both lost": [lost, lost],
        "no spacing": [first, second],
    }
    return {**reply, "knees": knees[kind], "film": {**reply["film"], "spacing_mm": None}}


@pytest.mark.parametrize(
    ("kind", "groups"), [("unknown side", 1), ("one lost", 1), ("both lost", 0), ("no spacing", 2)]
)
def test_what_is_not_known_is_not_said(graded, kind, groups):
    data, film, reply = graded
    made = structured_report(data, film, spoilt(kind, reply))

    report = hd.sr.Comprehensive3DSR.from_dataset(made)
    found = report.content.get_planar_roi_measurement_groups()
    assert len(found) == groups
    assert not any(m.unit == codes.UCUM.Millimeter for group in found for m in group.get_measurements())
    others = report.content.get_image_measurement_groups()
    assert [e.value.value for group in others for e in group.get_qualitative_evaluations()] == (
        ["NO_KNEE_LIKE_REGION"] * {"one lost": 1, "both lost": 2}.get(kind, 0)
    )
    if kind == "unknown side":
        names = {e.name.value for e in found[0].get_qualitative_evaluations()}
        assert names == {"KL", OSTEOARTHRITIS.value}
        assert found[0].finding_sites[0].laterality is None


def test_two_knees_of_unknown_side_are_two_in_a_viewer_that_tracks_them(graded):
    data, film, reply = graded
    unknown = [{**knee, "knee": "unknown"} for knee in reply["knees"]]
    mixed = [unknown[0], {**unknown[1], "status": "rejected", "reason": "implant", "grades": None, "box": None}]
    for knees in (unknown, mixed):
        made = structured_report(data, film, {**reply, "knees": knees})

        content = hd.sr.Comprehensive3DSR.from_dataset(made).content
        groups = content.get_planar_roi_measurement_groups() + content.get_image_measurement_groups()
        assert len({group.tracking_uid for group in groups}) == len({g.tracking_identifier for g in groups}) == 2


def anonymous(**elements) -> bytes:
    return make_dicom(gradient(), StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", **elements)


def test_a_bare_header_is_enough_and_what_is_burned_in_is_told(graded):
    capture = secondary_capture(anonymous(BurnedInAnnotation="YES"), PAGE, graded[2])

    assert capture.BurnedInAnnotation == "YES"
    assert capture.PatientID == ""
    assert "BurnedInAnnotation" not in secondary_capture(anonymous(), PAGE, graded[2])
    assert pydicom.dcmread(BytesIO(as_file(capture))).StudyInstanceUID == "1.2.3"


@pytest.mark.parametrize("data", [b"no DICOM", make_dicom(gradient())], ids=["png", "no study"])
def test_a_film_without_a_study_is_one_coded_error(graded, data):
    _, film, reply = graded
    for make in (lambda: secondary_capture(data, PAGE, reply), lambda: structured_report(data, film, reply)):
        with pytest.raises(NoDicomStudy) as error:
            make()
        assert (error.value.code, error.value.stage) == ("no_dicom_study", "report")


def test_what_is_damaged_in_a_header_is_left_empty_and_never_repeated(graded, caplog, recwarn):
    _, film, reply = graded
    damaged = {"StudyDate": b"SECRET", "StudyTime": b"SECRET", "PatientBirthDate": b"SECRET", "PatientSex": b"SECRET",
               "SpecificCharacterSet": b"SECRET"}  # fmt: skip
    data = anonymous(PatientID="4711", **damaged)
    recwarn.clear()
    caplog.clear()

    for made in (secondary_capture(data, PAGE, reply), structured_report(data, film, reply)):
        read = pydicom.dcmread(BytesIO(as_file(made)))
        assert [str(read.get(name) or "") for name in damaged] == ["", "", "", "", "ISO_IR 192"]
        assert read.PatientID == "4711"
    assert "SECRET" not in caplog.text + "".join(str(warning.message) for warning in recwarn)


@pytest.mark.parametrize("orientation", [None, "L", "LEFT\\FOOT", "\\F", "L\\F\\X"])
def test_an_orientation_that_is_none_is_left_empty(graded, orientation):
    said = {} if orientation is None else {"PatientOrientation": orientation.encode()}
    data = anonymous(ReferringPhysicianName=b"One^A\\Two^B", **said)

    made = secondary_capture(data, PAGE, graded[2])

    assert not made.PatientOrientation
    assert not made.ReferringPhysicianName


@pytest.mark.parametrize(
    ("charset", "name"),
    [("ISO_IR 100", "Müller^Änne"), (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"), ("GB18030", "王^小东")],
)
def test_names_in_any_script_are_carried_over(graded, charset, name):
    data = anonymous(SpecificCharacterSet=charset, PatientName=name)

    assert pydicom.dcmread(BytesIO(as_file(secondary_capture(data, PAGE, graded[2])))).PatientName == name


@needs("dsrdump")
def test_dcmtk_reads_the_report(files):
    told = subprocess.run(["dsrdump", "-d", files["sr"]], capture_output=True, text=True, check=True)

    assert "Kellgren-Lawrence grade" in told.stdout
    faults = [line for line in told.stderr.splitlines() if line[:2] in ("W:", "E:")]
    assert faults == [
        "W: The VR checker does not support this Specific Character Set: ISO_IR 192"
    ]  # its checker, not its reader


@needs("dciodvfy")
@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_both_are_valid_dicom(files, kind):
    """It knows no private coding scheme, and wants what a DICOMDIR needs; the sample film has no study date."""
    told = subprocess.run(["dciodvfy", "-new", files[kind]], capture_output=True, text=True).stderr.splitlines()

    assert ["Comprehensive3DSR", "SCImage"][kind == "sc"] in told
    assert not [line for line in told if line.startswith("Error")]
    assert not [w for w in told if w.startswith("Warning") and SCHEME not in w and "DICOMDIR" not in w]
