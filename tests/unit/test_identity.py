"""Rows that say whose film it is, where that is asked for, and nowhere else."""

import csv
import json

import pyarrow.parquet
import pytest

from kneeoa.errors import CorruptImage
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa.reporting.tables import COLUMNS
from kneeoa_cli.batch import run
from kneeoa_cli.files.identity import IDENTITY, date_of, header_of, identity_of
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.files.tables import Results, rows_of
from kneeoa_cli.flow import Answer
from tests.unit.dicom_factory import gradient, make_dicom

KNOWN = {"PatientID": "=SECRET", "StudyInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.4", "StudyDate": "20240229"}
REPLY = envelope(REPLY_SCHEMA, CorruptImage(), film={"spacing_mm": [0.2, 0.3]})


@pytest.fixture
def film() -> bytes:
    return make_dicom(gradient(), **KNOWN)


def test_a_header_says_whose_film_it_is(film):
    assert identity_of(film, REPLY) == dict(
        zip(IDENTITY, ["=SECRET", "1.2.3", "1.2.3.4", "2024-02-29", 0.2, 0.3], strict=True)
    )
    for nothing in (b"", b"no film", film[:200]):
        assert set(list(identity_of(nothing, REPLY).values())[:4]) == {None}


@pytest.mark.parametrize(
    ("text", "date"), [("20240229", "2024-02-29"), ("2024.02.09", "2024-02-09"), ("20241301", ""), ("x", ""), ("", "")]
)
def test_dates(text, date):
    assert date_of(text) == date


def test_what_steers_a_terminal_is_escaped():
    assert header_of(make_dicom(gradient(), PatientID="a\x1bb"), "PatientID")["PatientID"] == "a\\x1bb"


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("identify", [True, False])
def test_tables_have_it_only_where_it_is_asked_for(ending, identify, film, tmp_path):
    path = tmp_path / f"r.{ending}"
    with Results(path, Outputs(frozenset()), identify) as written:
        written.add(rows_of("film", REPLY, film))

    if ending == "csv":
        with open(path, newline="") as file:
            (row,) = csv.DictReader(file)
    else:
        (row,) = [json.loads(path.read_text())] if ending == "jsonl" else pyarrow.parquet.read_table(path).to_pylist()
    assert list(row) == [*COLUMNS, *(IDENTITY if identify else [])]
    assert (b"SECRET" in path.read_bytes()) == identify
    if identify:
        assert row["patient_id"] == ("'=SECRET" if ending == "csv" else "=SECRET")
        assert float(row["spacing_row_mm"]) == 0.2


def test_a_batch_that_went_on_without_is_asked_again_with_it(film, server, tmp_path, monkeypatch):
    (tmp_path / "films").mkdir()
    (tmp_path / "films/a.dcm").write_bytes(film)
    refused = envelope(REPLY_SCHEMA, CorruptImage())
    asked, texts = [], []
    monkeypatch.setattr("kneeoa_cli.batch.one", lambda f, *_: asked.append(f) or Answer(refused, f.read()))

    for identify in (False, True, True, False):
        run([str(tmp_path / "films")], tmp_path / "r.jsonl", server, 1, identify)
        texts.append((len(asked), "SECRET" in (tmp_path / "r.jsonl").read_text()))

    assert texts == [(1, False), (2, True), (2, True), (2, False)]
