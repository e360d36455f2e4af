"""The Structured Report and the Secondary Capture, read by others' tools."""

import html
import os
import re
import subprocess

import pydicom
import pytest

from kneeoa.reporting.coding import SCHEME
from kneeoa.reporting.dicom import as_file, structured_report
from tests.tools import needs
from tests.unit.report_tree import items_of, name_of, spoilt


@needs("dsrdump")
def test_dcmtk_reads_the_report(files):
    told = subprocess.run(["dsrdump", "-d", files["sr"]], capture_output=True, text=True, check=True)

    assert "Kellgren-Lawrence grade" in told.stdout
    faults = [line for line in told.stderr.splitlines() if line[:2] in ("W:", "E:")]
    assert faults == [
        "W: The VR checker does not support this Specific Character Set: ISO_IR 192"
    ]  # its checker, not its reader


@needs("dsr2html")
def test_on_paper_every_value_has_its_name(files, graded):
    """Continuous containers, the default, are rendered as values one after another: 2.4 mm 2.09 mm 30.36 % Grade 1."""
    told = subprocess.run(["dsr2html", files["sr"]], capture_output=True, text=True).stdout
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", told)))

    for item in items_of(pydicom.dcmread(files["sr"])):
        name = name_of(item).get("CodeMeaning")
        if item.ValueType == "NUM":
            value = item.MeasuredValueSequence[0]
            said = f"{value.NumericValue} {value.MeasurementUnitsCodeSequence[0].CodeValue}"
        elif item.ValueType == "CODE" and item.RelationshipType == "CONTAINS":
            said = item.ConceptCodeSequence[0].CodeMeaning
        else:
            continue
        assert re.search(f"{re.escape(name)}[:=]? {re.escape(said)}", text), name
    assert graded[2]["disclaimer"] in text


@needs("DicomSRValidator")
@pytest.mark.slow
def test_pixelmeds_validator_finds_no_error_in_a_report(graded, tmp_path):
    """It warns of what TID 1500 does not foresee but leaves room for: our codes, and the texts below the measurements.

    Debian's of 2022 knows context group 100 as of 2019, when it had no radiographs.
    """
    data, film, reply = graded
    lost = {**spoilt("one lost", reply), "film": reply["film"]}
    (file := tmp_path / "sr.dcm").write_bytes(as_file(structured_report(data, lost)))
    limits = [
        f"-Djdk.xml.xpath{of}Limit=0" for of in ("ExprOp", "ExprGrp", "TotalOp")
    ]  # its style sheet is beyond them
    environment = {**os.environ, "JAVA_TOOL_OPTIONS": " ".join(limits)}
    run = subprocess.run(["DicomSRValidator", file], capture_output=True, text=True, env=environment)
    told = (run.stdout + run.stderr).splitlines()

    assert "Found Root Template TID_1500 (MeasurementReport)" in told
    assert "IOD validation complete" in told
    errors = [line for line in told if line.startswith("Error")]
    assert all("(43468-8,LN" in error and "not found in context group 100" in error for error in errors)


@needs("dciodvfy")
@pytest.mark.parametrize("kind", ["sr", "sc"])
def test_both_are_valid_dicom(files, kind):
    """It knows no private coding scheme, and wants what a DICOMDIR needs; the sample film has no study date."""
    told = subprocess.run(["dciodvfy", "-new", files[kind]], capture_output=True, text=True).stderr.splitlines()

    assert ["Comprehensive3DSR", "SCImage"][kind == "sc"] in told
    assert not [line for line in told if line.startswith("Error")]
    assert not [w for w in told if w.startswith("Warning") and SCHEME not in w and "DICOMDIR" not in w]
