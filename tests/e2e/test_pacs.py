"""The PACS loop against a real Orthanc and a real server: what is sent in comes back graded, once, whatever is killed."""

import datetime
import subprocess
import sys
import time
from contextlib import contextmanager
from io import BytesIO

import pydicom
import pytest
import requests
from highdicom.sr import srread

from kneeoa_cli.pacs.spool import Spool
from tests.conftest import ROOT
from tests.e2e.orthanc import running
from tests.e2e.waiting import until
from tests.tools import DICOMWEB, needs

pytestmark = needs("Orthanc")


@pytest.fixture
def orthanc(tmp_path):
    with running(tmp_path) as pacs:
        yield pacs


@pytest.fixture(scope="module")
def film() -> bytes:
    film = pydicom.dcmread(ROOT / "samples/moderate_oa.dcm")
    film.StudyDate, film.PatientName = f"{datetime.date.today():%Y%m%d}", "SECRET^NAME"
    file = BytesIO()
    film.save_as(file)
    return file.getvalue()


@contextmanager
def kneeoa(*options: str, log, until_ready: str | None = None):
    """`kneeoa pacs` in a process of its own; killed at the end, as a power cut would."""
    with open(log, "ab") as out:
        command = [sys.executable, "-m", "kneeoa_cli.main", "pacs", *options]
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)
    try:
        if until_ready:
            told = log.read_text().count(until_ready)
            until(lambda: log.read_text().count(until_ready) > told or process.poll() is not None, 30)
        yield process
    finally:
        process.kill()
        process.wait()


def states(spool) -> dict[str, int]:
    return {
        s: sum(p.suffix != ".part" for p in (spool / s).iterdir()) for s in ("incoming", "outgoing", "done", "failed")
    }


def check(orthanc, film: bytes) -> None:
    """The film with one report and one picture, in its own study."""
    held = orthanc.held()
    held["film"] = [instance for instance in held["film"] if instance["BodyPartExamined"] == "KNEE"]
    assert {kind: len(instances) for kind, instances in held.items()} == {"film": 1, "sr": 1, "sc": 1}
    (study,) = {instance["StudyInstanceUID"] for instances in held.values() for instance in instances}
    assert study == pydicom.dcmread(BytesIO(film)).StudyInstanceUID
    assert held["sr"][0]["VerificationFlag"] == "UNVERIFIED"
    assert held["sr"][0]["PatientName"] == "SECRET^NAME"
    report = srread(BytesIO(requests.get(f"{orthanc.url}/instances/{held['sr'][0]['ID']}/file").content))
    assert len(report.content.get_planar_roi_measurement_groups()) == 2
    assert len({instance["SeriesInstanceUID"] for instances in held.values() for instance in instances}) == 3


def test_a_film_comes_back_graded_once_whatever_is_killed(orthanc, server, film, tmp_path):
    """Killed with the film not graded, killed with the report not delivered, killed while it is delivered."""
    spool, log = tmp_path / "spool", tmp_path / "pacs.log"
    here = ["--listen", f"127.0.0.1:{orthanc.ours}", "--spool", str(spool), "--key-file", str(server.key_file)]
    nobody, peer = ["--peer", "ORTHANC@127.0.0.1:1"], ["--peer", f"ORTHANC@127.0.0.1:{orthanc.port}"]
    there = ["--server", server.url]
    identifier = orthanc.upload(film)
    started = time.monotonic()

    with kneeoa(*here, *peer, "--server", "http://127.0.0.1:9", log=log, until_ready="listens"):
        assert orthanc.send(identifier)["FailedInstancesCount"] == 0
        assert states(spool) == {"incoming": 1, "outgoing": 0, "done": 0, "failed": 0}
    with kneeoa(*here, *nobody, *there, log=log):
        until(lambda: states(spool)["outgoing"] == 1, 30)
    with kneeoa(*here, *peer, *there, log=log):
        until(lambda: orthanc.held()["sc"], 30)
    with kneeoa(*here, *peer, *there, log=log, until_ready="listens") as last:
        until(lambda: states(spool) == {"incoming": 0, "outgoing": 0, "done": 1, "failed": 0}, 30)
        assert time.monotonic() - started < 60
        check(orthanc, film)
        orthanc.send(identifier)
        assert "a film came again" in log.read_text()
        with kneeoa(*here, *peer, *there, log=tmp_path / "second.log") as second:
            assert second.wait(20) == 2
        assert "another process is using" in (tmp_path / "second.log").read_text()
        elsewhere = [*here[:2], "--spool", str(tmp_path / "other"), *here[4:]]
        with kneeoa(*elsewhere, *peer, *there, log=tmp_path / "third.log") as third:
            assert third.wait(20) == 2  # the port is taken

        last.terminate()
        assert last.wait(20) == 0

    check(orthanc, film)
    assert requests.get(f"{orthanc.url}/instances/{identifier}/file").content == film
    assert "SECRET" not in log.read_text()
    assert not [p for p in spool.rglob("*") if str(pydicom.dcmread(BytesIO(film)).SOPInstanceUID) in p.name]


@needs(DICOMWEB)
def test_the_same_over_dicomweb(orthanc, server, film, tmp_path):
    spool, log = tmp_path / "spool", tmp_path / "pacs.log"
    options = ["--dicomweb", f"{orthanc.url}/dicom-web", "--every", "0.2", "--spool", str(spool)]
    options += ["--server", server.url, "--key-file", str(server.key_file)]
    chest = pydicom.dcmread(BytesIO(film))
    chest.BodyPartExamined, chest.SOPInstanceUID, chest.StudyInstanceUID = "CHEST", "1.2.3.4", "1.2.3"
    chest.file_meta.MediaStorageSOPInstanceUID = chest.SOPInstanceUID
    other = BytesIO()
    chest.save_as(other)
    orthanc.upload(other.getvalue())
    orthanc.upload(film)

    with kneeoa(*options, log=log):
        until(lambda: states(spool)["incoming"] + states(spool)["outgoing"] if spool.exists() else 0, 30)
    with kneeoa(*options, log=log) as process:
        until(lambda: states(spool)["done"] == 1, 30)
        process.terminate()
        assert process.wait(20) == 0

    check(orthanc, film)
    assert [p.name for p in (spool / "done").iterdir()] == [Spool.name(pydicom.dcmread(BytesIO(film)).SOPInstanceUID)]
    assert "an object is passed over: body_part" in log.read_text()
    assert "SECRET" not in log.read_text()
