"""What is carried over from a film's header into the objects made of it, and how they name each other."""

from io import BytesIO

import numpy as np
import pydicom
import pytest

import kneeoa
from kneeoa.reporting.carried import NoDicomStudy
from kneeoa.reporting.dicom import as_file, secondary_capture, structured_report
from tests.unit.dicom_factory import gradient, make_dicom
from tests.unit.report_tree import items_of, name_of

PAGE = np.zeros((90, 160, 3), np.uint8)


def anonymous(**elements) -> bytes:
    return make_dicom(gradient(), StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", **elements)


def test_a_studys_films_and_their_objects_can_be_told_apart_and_name_each_other(graded):
    _, film, reply = graded
    data = anonymous(SeriesNumber=2, InstanceNumber=3)
    report, capture = structured_report(data, reply), secondary_capture(data, PAGE, reply)

    assert report.SeriesDescription == "kneeoa grades (research), series 2 image 3"
    assert capture.SeriesDescription == "kneeoa figure (research), series 2 image 3"
    assert secondary_capture(anonymous(InstanceNumber=3), PAGE, reply).SeriesDescription.endswith("(research), image 3")
    for made in (report, capture):
        assert (made.ManufacturerModelName, made.SoftwareVersions) == ("kneeoa", kneeoa.__version__)
    (model,) = (i.TextValue for i in items_of(report) if name_of(i).get("CodeMeaning") == "Device Observer Model Name")
    assert model == "kneeoa"
    (picture,) = (item for item in report.ContentSequence if item.ValueType == "IMAGE")
    assert picture.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == capture.SOPInstanceUID
    evidence = [
        (series.SeriesInstanceUID, sop.ReferencedSOPInstanceUID)
        for series in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for sop in series.ReferencedSOPSequence
    ]
    assert set(evidence) == {("1.2.3.4", "1.2.3.4"), (capture.SeriesInstanceUID, capture.SOPInstanceUID)}
    assert capture.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID == report.SOPInstanceUID
    assert capture.ReferencedInstanceSequence[0].ReferencedSOPClassUID == report.SOPClassUID
    assert capture.SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"


def test_a_bare_header_is_enough_and_what_is_burned_in_is_told(graded):
    capture = secondary_capture(anonymous(BurnedInAnnotation="YES"), PAGE, graded[2])

    assert capture.BurnedInAnnotation == "YES"
    assert capture.PatientID == ""
    assert "BurnedInAnnotation" not in secondary_capture(anonymous(), PAGE, graded[2])
    assert pydicom.dcmread(BytesIO(as_file(capture))).StudyInstanceUID == "1.2.3"


@pytest.mark.parametrize("data", [b"no DICOM", make_dicom(gradient())], ids=["png", "no study"])
def test_a_film_without_a_study_is_one_coded_error(graded, data):
    _, film, reply = graded
    for make in (lambda: secondary_capture(data, PAGE, reply), lambda: structured_report(data, reply)):
        with pytest.raises(NoDicomStudy) as error:
            make()
        assert (error.value.code, error.value.stage) == ("no_dicom_study", "report")


def test_what_is_damaged_in_a_header_is_left_empty_and_never_repeated(graded, caplog, recwarn):
    _, film, reply = graded
    damaged = {"StudyDate": b"SECRET", "StudyTime": b"SECRET", "PatientBirthDate": b"SECRET", "PatientSex": b"SECRET",
               "SpecificCharacterSet": b"SECRET"}  # fmt: skip
    unnumbered = {"SeriesNumber": b"SECRET", "InstanceNumber": b"1\\2"}
    data = anonymous(PatientID="4711", **damaged, **unnumbered)
    recwarn.clear()
    caplog.clear()

    for made in (secondary_capture(data, PAGE, reply), structured_report(data, reply)):
        read = pydicom.dcmread(BytesIO(as_file(made)))
        assert [str(read.get(name) or "") for name in damaged] == ["", "", "", "", "ISO_IR 192"]
        assert read.PatientID == "4711"
        assert read.SeriesDescription.endswith("(research)")
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
