"""Nobody in, nothing out: what the server writes, and what it says, never holds a patient; what it reads, never code."""

import json
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
import requests

from deploy import server as launcher
from kneeoa_cli.main import main as kneeoa
from kneeoa_client.client import ServerError
from tests.bench.soak import management, processes
from tests.conftest import ROOT
from tests.corpus import ODD, SECRET, small_film
from tests.tools import needs
from tests.unit.dicom_factory import gradient, make_dicom

GOOD = {"PatientName": f"{SECRET}^A", "PatientID": SECRET, "StudyInstanceUID": f"1.2.{SECRET}", "StudyDate": SECRET}


def with_tags(film: bytes, elements: dict) -> bytes:
    """A film that is graded, with a patient in it."""
    dataset, file = pydicom.dcmread(BytesIO(film)), BytesIO()
    with pydicom.config.disable_value_validation():
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def films(tmp_path_factory, sample):
    """Graded, refused and broken films, all with the same patient."""
    folder = tmp_path_factory.mktemp("films")
    odd = {name.replace(" ", "-"): small_film(**elements) for name, elements in ODD.items()}
    good = with_tags(sample, GOOD)
    broken = make_dicom(gradient(), Rows=65535, **GOOD)
    for name, data in {"good": good, "cut": good[:-5000], "broken": broken, **odd}.items():
        (folder / f"{name}.dcm").write_bytes(data)
    assert SECRET.encode() in good
    return folder


def test_no_patient_in_logs_metrics_replies_and_results(server, run, films, tmp_path, tmp_path_factory, capfd):
    """Only what goes back into the patient's own study names the patient."""
    keys = ["--server", server.url, "--key-file", str(run / "key_file.json")]
    said = []
    for path in films.iterdir():
        for endpoint in ("wfpredict/knee_oa", "predictions/detector", "predictions/grader"):
            said.append(json.dumps(server.post(path.read_bytes(), endpoint=endpoint)))

    kneeoa(["grade", str(films), "--out", str(tmp_path / "grade.csv"), "--json", str(tmp_path / "json"), *keys])
    kneeoa(["grade", str(films), "--dicom", str(tmp_path_factory.mktemp("dicom")), *keys])
    kneeoa(["report", str(films), "--html", str(tmp_path / "html"), *keys])
    kneeoa(["batch", str(films), "--out", str(tmp_path / "batch.jsonl"), *keys])

    key = json.loads((run / "key_file.json").read_text())["management"]["key"]
    metrics = json.loads((run / "server.json").read_text())["management"].rsplit(":", 1)
    port = int(metrics[1]) + 1
    said.append(
        requests.get(f"{metrics[0]}:{port}/metrics", headers={"Authorization": f"Bearer {key}"}, timeout=10).text
    )
    said += capfd.readouterr()
    written = [path for folder in (run, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert any(path.name == "batch.jsonl.journal" for path in written)
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]
    assert not any(SECRET in text for text in said)


KINDS = (None, "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/mixed", "application/json",
         "text/plain", "application/octet-stream", "application/dicom", "image/png", "nonsense")  # fmt: skip


def test_no_patient_in_logs_whatever_a_film_is_said_to_be(run, films):
    """TorchServe took a film for a form (`curl --data-binary`), failed, and its log quoted the film."""
    form = f"{SECRET}=1&%{SECRET}=%zz&x=%{SECRET}".encode()
    part = (
        f'--x\r\nContent-Disposition: form-data; name="body"; filename="{SECRET}"\r\n\r\n{SECRET}\r\n--x--\r\n'.encode()
    )
    bodies = [(films / "good.dcm").read_bytes(), (films / "broken.dcm").read_bytes() + form, form, part, part[:-9]]
    addresses, keys = (json.loads((run / name).read_text()) for name in ("server.json", "key_file.json"))
    for port, address in addresses.items():
        key = keys["inference" if port == "url" else "management"]["key"]
        for path in ("wfpredict/knee_oa", "predictions/detector", "models"):
            for kind in KINDS:
                headers = {"Authorization": f"Bearer {key}"} | ({"Content-Type": kind} if kind else {})
                for body in bodies:
                    requests.post(f"{address}/{path}?patient={SECRET}", data=body, headers=headers, timeout=120)

    written = [path for path in run.rglob("*") if path.is_file()]
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_no_open_door_to_archives_from_elsewhere(run):
    for url in ("file:///etc/passwd", "https://example.org/grader.mar", "../grader.mar", "/tmp/x.mar"):
        with pytest.raises(ServerError, match="answered HTTP [45]"):
            management(run).ask("POST", "models", url=url)


def test_management_needs_its_own_token(run, server):
    address = json.loads((run / "server.json").read_text())["management"]
    for headers in ({}, {"Authorization": f"Bearer {server.key}"}):
        assert requests.get(f"{address}/models", headers=headers, timeout=10).status_code == 400


def test_everything_listens_on_loopback_only(run):
    connections = [c for process in processes(run).values() for c in process.net_connections("inet")]
    listening = [c for c in connections if c.status == "LISTEN"]

    # No TCP connection can be made to a multicast address: it is where gRPC, which takes no key, is out of reach.
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1", "224.0.0.1"}


def test_run_folder_and_keys_are_private(run):
    assert run.stat().st_mode & 0o077 == 0
    assert (run / "key_file.json").stat().st_mode & 0o077 == 0


@needs("bwrap")
@pytest.mark.skipif(not launcher.confined(ROOT), reason="this kernel does not let Bubblewrap confine anything")
def test_server_and_workers_can_write_nowhere_but_in_their_run_folder(run):
    for process in processes(run).values():
        seen = Path(f"/proc/{process.pid}/root")  # the file system as this process has it
        for folder in (ROOT / "model_store", ROOT / "handlers", Path("/tmp"), Path.home()):
            with pytest.raises(OSError, match="Read-only"):
                (seen / folder.relative_to("/") / "written").touch()
        (seen / run.relative_to("/") / "tmp/written").touch()


def test_a_pickle_in_the_place_of_weights_is_refused(tmp_path):
    """Only safetensors are read: a pickle would run what it holds."""
    (tmp_path / "grader.safetensors").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    script = "from pathlib import Path; from kneeoa.grading.grader import Grader; Grader.from_file(Path('grader.safetensors'))"

    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)

    assert "WeightsError" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["grader.safetensors"]
