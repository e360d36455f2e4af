"""A server made of a few lines, and the client's address of it; its patience is a second."""

import json
from pathlib import Path

import pytest

from kneeoa_client import client
from kneeoa_client.client import Client
from tests.conftest import ROOT
from tests.unit.fake_server import Fake


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(client, "AWAY", 1.5)
    monkeypatch.setattr(client, "FAILING", 0.5)
    made = Fake()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def server(fake, tmp_path):
    keys = tmp_path / "key_file.json"
    keys.write_text(json.dumps({"inference": {"key": "key"}}))
    return Client(f"http://127.0.0.1:{fake.http.server_port}", "key", keys)


@pytest.fixture(scope="session")
def graded(service):
    """A film, as displayed, and its reply."""
    from kneeoa.reporting.figure import displayed

    data = (ROOT / "samples/moderate_oa.dcm").read_bytes()
    reply = service.grade(data, explain="KL").message
    return data, displayed(data, reply), reply


@pytest.fixture(scope="session")
def files(graded, tmp_path_factory) -> dict[str, Path]:
    """Its Structured Report and Secondary Capture, as `sr` and `sc`."""
    from kneeoa.reporting.dicom import deliverables

    folder = tmp_path_factory.mktemp("dicom")
    data, _, reply = graded
    for ending, file in deliverables(data, reply).items():
        (folder / ending).write_bytes(file)
    return {path.name.split(".")[0]: path for path in folder.iterdir()}
