"""The Structured Report and the Secondary Capture, read back; others' tools: test_dicom_readers.py."""

import csv
import hashlib
import re
from copy import deepcopy

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes

from kneeoa.reporting.coding import SCHEME, meanings
from kneeoa.reporting.dicom import secondary_capture, structured_report
from kneeoa.reporting.structured_report import LINE, OSTEOARTHRITIS
from kneeoa.tasks import TASKS
from tests.conftest import ROOT
from tests.unit.report_tree import items_of, name_of, spoilt

FILM = ROOT / "samples/moderate_oa.dcm"
PAGE = np.zeros((90, 160, 3), np.uint8)


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
            wanted = {
                f"P_{task.name}_{g}": 100 * p for g, p in enumerate(knee["grades"][task.name]["probabilities"]) if p
            }
            told = {name: m.value for name, m in numbers.items() if name.startswith(f"P_{task.name}_")}
            assert told == pytest.approx(wanted, abs=0.006)


def test_what_a_viewer_shows_of_a_knee_begins_with_its_grade_and_its_joint_spaces(report, graded):
    """OHIF's overlay has room for five numbers; where one is 0 it prints the unit alone, and ours would read as a value."""
    for group, knee in zip(report.content.get_planar_roi_measurement_groups(), graded[2]["knees"], strict=True):
        first, *others = group.get_measurements()
        assert first.name.meaning == f"Kellgren-Lawrence grade {knee['grades']['KL']['grade']}, probability"
        assert [m.name.value for m in others[:2]] in (["JSW_L", "JSW_M"], ["JSW_M", "JSW_L"])
    numbers = [item for item in items_of(report) if item.ValueType == "NUM"]
    assert {item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0].CodeValue for item in numbers} == {"%", "mm"}
    values = [item.MeasuredValueSequence[0] for item in numbers]
    assert all(v.NumericValue > 0 for v in values if v.MeasurementUnitsCodeSequence[0].CodeValue == "%")
    zeros = [
        p for knee in graded[2]["knees"] for grade in knee["grades"].values() for p in grade["probabilities"] if not p
    ]
    assert zeros  # or the line above would hold anyway


def test_a_closed_joint_says_so_in_the_name_since_its_number_may_not_be_shown(graded):
    data, reply = graded[0], deepcopy(graded[2])
    for knee in reply["knees"]:
        knee["joint_space"]["lateral"]["minimum"] |= {"mm": 1.2}
        knee["joint_space"]["medial"]["minimum"] |= {"mm": 0.0, "px": 0.0, "ends": [[9.0, 5.0], [9.0, 5.0]]}

    widths = [item for item in items_of(structured_report(data, reply)) if name_of(item).CodeValue.startswith("JSW_")]

    closed = [name_of(item).CodeMeaning for item in widths if not item.MeasuredValueSequence[0].NumericValue]
    assert len(closed) == 4
    assert all(meaning.endswith("none, the bones touch") for meaning in closed)
    assert sum("touch" in name_of(item).CodeMeaning for item in widths) == 4


def test_places_are_in_the_films_pixels(report, graded):
    _, film, reply = graded
    lines = iter(report.content.get_image_measurement_groups())
    for group, knee in zip(report.content.get_planar_roi_measurement_groups(), reply["knees"], strict=True):
        corners = group.roi.value
        assert [*corners.min(axis=0), *corners.max(axis=0)] == pytest.approx(knee["box"])
        items = group[0].ContentSequence
        points = np.reshape(named(items, "KEY_POINTS")[0].GraphicData, (6, 2))
        assert points == pytest.approx(np.array(list(knee["key_points"].values())), abs=1e-3)
        for side, space in knee["joint_space"].items():
            line, place = next(lines), space["minimum"]
            (width,) = line.get_measurements()
            (again,) = (m for m in group.get_measurements() if m.name.value == width.name.value)
            (drawn,) = width.referenced_coordinates
            assert np.reshape(drawn.GraphicData, (2, 2)) == pytest.approx(np.array(place["ends"]), abs=1e-3)
            assert again.value == width.value == place["mm"]  # as the figure and the tables have it
            assert width.name.value == {"lateral": "JSW_L", "medial": "JSW_M"}[side]
            lateral_at_left = knee["knee"] == "R"
            assert (place["ends"][0][0] < points[:, 0].mean()) == ((side == "lateral") == lateral_at_left)
            assert line.finding_sites[0].laterality == group.finding_sites[0].laterality
            assert line.tracking_identifier == LINE
    for item in items_of(report):
        if item.ValueType == "SCOORD":
            source = item.ContentSequence[0].ReferencedSOPSequence[0]
            assert source.ReferencedSOPInstanceUID == pydicom.dcmread(FILM).SOPInstanceUID
            assert min(item.GraphicData) >= 0
            assert max(item.GraphicData) <= max(film.shape)
    assert next(lines, None) is None
    groups = [*report.content.get_planar_roi_measurement_groups(), *report.content.get_image_measurement_groups()]
    assert len({group.tracking_uid for group in groups}) == len(groups) == 6


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
    first, again = (structured_report(data, reply).SOPInstanceUID for _ in range(2))
    other = {**reply, "model": {**reply["model"], "grader": {**reply["model"]["grader"], "sha256": "0" * 64}}}

    assert first == again
    assert structured_report(data, reply, 0.6).SOPInstanceUID != first  # it names another page
    unknown = {**reply, "knees": [{**reply["knees"][0], "knee": "unknown"}]}
    assert structured_report(data, unknown).SOPInstanceUID != first
    pages = [secondary_capture(data, PAGE, reply, opacity).SOPInstanceUID for opacity in (0.5, 0.5, 0.6)]
    assert pages[0] == pages[1] != pages[2]
    assert structured_report(data, other).SOPInstanceUID != first


def test_every_code_of_ours_is_documented(report):
    page = (ROOT / "docs/dicom.md").read_text()
    with open(ROOT / "docs/99KNEEOA.csv", newline="") as file:
        listed = list(csv.DictReader(file))

    assert {row["code"]: row["meaning"] for row in listed} == meanings()
    assert max(map(len, meanings().values())) <= 64  # a code meaning's length
    used = {e.CodeValue for e in codes_in(report) if e.CodingSchemeDesignator == SCHEME}
    assert len(used) > 40
    assert used <= set(meanings())
    for value in meanings():
        named = re.sub(r"^P_.*_\d$", "P_KL_0", re.sub(r"^GRADE_\d$", "GRADE_0", value))
        assert f"`{named}`" in page, value


def codes_in(dataset):
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from [item] if "CodeValue" in item else codes_in(item)


@pytest.mark.parametrize(
    ("kind", "groups"), [("unknown side", 1), ("one lost", 1), ("both lost", 0), ("no spacing", 2)]
)
def test_what_is_not_known_is_not_said(graded, kind, groups):
    data, film, reply = graded
    made = structured_report(data, spoilt(kind, reply))

    report = hd.sr.Comprehensive3DSR.from_dataset(made)
    found = report.content.get_planar_roi_measurement_groups()
    lost = [group for group in found if not group.get_measurements()]
    found = [group for group in found if group.get_measurements()]
    assert len(found) == groups
    assert not any(m.unit == codes.UCUM.Millimeter for group in found for m in group.get_measurements())
    assert not report.content.get_image_measurement_groups()
    assert [e.value.value for group in lost for e in group.get_qualitative_evaluations()] == (
        ["NO_KNEE_LIKE_REGION"] * {"one lost": 1, "both lost": 2}.get(kind, 0)
    )
    for group in lost:  # where it was sought: without a place on a film, a viewer shows none
        assert [*group.roi.value.min(axis=0), *group.roi.value.max(axis=0)] == [0, 0, *film.shape[::-1]]
    if kind == "unknown side":
        names = {e.name.value for e in found[0].get_qualitative_evaluations()}
        assert names == {"KL", OSTEOARTHRITIS.value}
        assert found[0].finding_sites[0].laterality is None


def test_two_knees_of_unknown_side_are_two_in_a_viewer_that_tracks_them(graded):
    data, film, reply = graded
    unknown = [{**knee, "knee": "unknown", "joint_space": None} for knee in reply["knees"]]
    mixed = [unknown[0], {**unknown[1], "status": "rejected", "reason": "implant", "grades": None, "box": None}]
    for knees in (unknown, mixed):
        made = structured_report(data, {**reply, "knees": knees})

        content = hd.sr.Comprehensive3DSR.from_dataset(made).content
        groups = content.get_planar_roi_measurement_groups() + content.get_image_measurement_groups()
        assert len({group.tracking_uid for group in groups}) == len({g.tracking_identifier for g in groups}) == 2
