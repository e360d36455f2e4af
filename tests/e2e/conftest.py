"""One real TorchServe for all end-to-end tests, with the workflow and both archives as plain models."""

import json

import pytest

from deploy import server as launcher
from kneeoa_client.client import Client
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The run folder of a ready server."""
    folder = tmp_path_factory.mktemp("run")
    launcher.start(folder, ROOT / "model_store", launcher.free_port(), plain_models=True)
    yield folder
    launcher.stop(folder)
    assert not launcher.running(folder)


@pytest.fixture(scope="session")
def server(run) -> Client:
    return Client.find(json.loads((run / "server.json").read_text())["url"], run / "key_file.json")
