"""What viewers make of a report: the annotations of Cornerstone's adapters, and the words and lines of OHIF."""

import json
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import srread
from pydicom.sr.codedict import codes

from kneeoa.reporting.dicom import deliverables
from tests.conftest import ROOT
from tests.e2e.ohif import viewing
from tests.e2e.orthanc import running
from tests.e2e.waiting import until
from tests.tools import DICOMWEB, needs

pytestmark = [needs("node", "npm"), pytest.mark.slow]
HERE = ROOT / "tests/e2e/viewers"
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")
FILM = ROOT / "samples/moderate_oa.dcm"


@pytest.fixture(scope="session")
def viewers() -> Path:
    """The folder with node_modules as the lock says, kept for the next run."""
    lock = (HERE / "package-lock.json").read_bytes()
    folder = ROOT / ".cache/viewers" / sha256(lock).hexdigest()[:16]
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(HERE, folder)
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if run.returncode and any(code in run.stderr for code in OFFLINE):
            pytest.skip("npm cannot reach its registry")
        assert run.returncode == 0, run.stderr[-2000:]
        (folder / "ready").touch()
    return folder


@pytest.fixture(scope="module")
def reply(service) -> dict:
    return service.grade(FILM.read_bytes(), explain="KL").message


@pytest.fixture(scope="module")
def report(reply, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "sr.dcm"
    path.write_bytes(deliverables(FILM.read_bytes(), reply)["sr.dcm"])
    return path


@pytest.fixture(scope="module")
def widths(report) -> dict[str, float]:
    """Joint-space widths in mm, by the label of their line: right knee, medial."""
    found = {}
    for group in srread(report).content.get_image_measurement_groups():
        (label,) = (item.TextValue for item in group[0].ContentSequence if item.name == codes.DCM.Comment)
        (width,) = group.get_measurements()
        found[label] = width.value
    return found


def test_cornerstone_makes_an_editable_length_of_each_joint_space(viewers, report, reply, widths):
    film = pydicom.dcmread(FILM, stop_before_pixels=True)
    known = {
        "uid": film.SOPInstanceUID,
        "rows": film.Rows,
        "columns": film.Columns,
        "spacing": reply["film"]["spacing_mm"],
    }
    command = ["node", viewers / "hydrate.mjs", report, json.dumps(known)]

    state = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert list(state) == ["Length"]
    made = {item["annotation"]["data"]["label"]: item for item in state["Length"]}
    assert len(state["Length"]) == len(made) == len(widths) == 4
    assert len({item["TrackingUniqueIdentifier"] for item in made.values()}) == 4
    for label, item in made.items():
        data = item["annotation"]["data"]
        (x, top, _), (across, bottom, _) = data["handles"]["points"]
        assert data["cachedStats"]["imageId:film"] == {"length": widths[label], "unit": "mm"}
        assert x == across
        assert bottom - top == pytest.approx(widths[label], abs=0.01)


@needs("Orthanc", DICOMWEB, "chromium", "chromedriver")
def test_ohif_shows_what_the_reply_says_and_offers_the_lines_for_editing(viewers, report, reply, widths, tmp_path):
    study, series = (pydicom.dcmread(report)[name].value for name in ("StudyInstanceUID", "SeriesInstanceUID"))
    with running(tmp_path) as pacs:
        for path in (FILM, report):
            pacs.upload(path.read_bytes())
        with viewing(viewers / "node_modules/@ohif/app/dist", pacs, tmp_path / "profile") as ohif:
            ohif.open(study, series)
            boxes = ohif.boxes()
            picture = ohif.picture()
            ohif.press("yes-hydrate-btn")
            ohif.press("trackedMeasurements-btn")
            until(lambda: all(label in ohif.words() for label in widths), 30)
            tracked = ohif.words()
            edited = ohif.picture()

    for name, shown in (("report", picture), ("tracked", edited)):
        shown.save(tmp_path / f"{name}.png")  # for people
    assert np.asarray(picture).std() > 20  # a film is there
    lines = [line for box in boxes for line in box]
    assert all(line.endswith((" %", " mm", ":")) for line in lines)
    for knee in reply["knees"]:
        kl, side = knee["grades"]["KL"], {"R": "right", "L": "left"}[knee["knee"]]
        first = f"Kellgren-Lawrence grade {kl['grade']}, probability: {100 * kl['probabilities'][kl['grade']]:.2f} %"
        (box,) = (box for box in boxes if box[0] == first)
        spaces = {c: widths[f"{side} knee, {c}"] for c in ("lateral", "medial")}
        words = {c: f"{mm:.2f} mm" if mm else "none, the bones touch:  mm" for c, mm in spaces.items()}
        assert set(box[1:3]) == {f"Minimum joint-space width, {c}: {told}" for c, told in words.items()}
    for label, millimetres in widths.items():
        (length,) = re.findall(rf"{label}\n([\d.]+) mm", tracked)  # of the line, as OHIF measures it
        assert float(length) == pytest.approx(millimetres, abs=0.01)
