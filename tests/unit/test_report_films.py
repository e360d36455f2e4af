"""What a report knows of a film, and what it keeps to itself."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from pydicom import dcmread

from kneeoa_cli.files.inputs import Source, distinct_stems
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.html_pages import write_report
from kneeoa_cli.html_report import page_of
from tests.unit.dicom_factory import gradient, make_dicom


def test_pages_tell_nothing_of_the_patient_nor_where_films_lie(sample, service, tmp_path):
    film = dcmread(BytesIO(sample))
    film.PatientID, film.PatientName, film.StudyDate = "SECRETID", "SECRET^NAME", "20240229"
    film.save_as(file := BytesIO())
    name = str(tmp_path / "SECRETPLACE/films/a.dcm")
    reply = service.grade(file.getvalue(), explain="KL").message
    page = page_of(name, file.getvalue(), reply, tmp_path, 0.5)

    write_report(Outputs(frozenset()), tmp_path, {name: reply}, {name: page})

    assert page.date == "2024-02-29"
    assert {side: Image.open(path).width for side, path in page.joints.items()} == {
        knee["knee"]: pytest.approx((knee["box"][2] - knee["box"][0]) * 0.4 / 0.25, abs=2) for knee in reply["knees"]
    }
    for path in tmp_path.glob("*.html"):
        text = path.read_text()
        assert "SECRET" not in path.name + text
        assert str(film.StudyInstanceUID) not in text
        assert "a.dcm" in text


def test_films_of_one_study_or_patient_share_a_page(sample, service, tmp_path):
    reply = service.grade(sample).message
    made = [
        page_of("f", make_dicom(gradient(), **header), {**reply, "knees": []}, tmp_path, 0.0)
        for header in (
            {"StudyInstanceUID": "1.2.3", "PatientID": "1"},
            {"StudyInstanceUID": "1.2.4", "PatientID": "1"},
            {"StudyInstanceUID": "1.2.3", "PatientID": "1", "IssuerOfPatientID": "other"},
            {"StudyInstanceUID": "1.2.3", "PatientID": ""},
        )
    ]

    assert made[0].study == made[2].study == made[3].study != made[1].study
    assert made[0].patient == made[1].patient != made[2].patient
    assert made[3].patient == ""
    assert not any("1.2.3" in page.study for page in made)


def test_films_of_one_name_get_names_of_their_own():
    films = [
        Source(Path(name)) for name in ("a b/IM1", "a_b/IM1", "../x/IM1", "x/IM1", "x/IM2", "IM1\udcff", "y/IM1\udcff")
    ]
    names = distinct_stems(films)

    assert len(set(names.values())) == len(films)
    assert names[Source(Path("x/IM2"))] == "IM2"
