"""One real TorchServe for all end-to-end tests, with the workflow and both archives as plain models."""

import json
import socket

import pytest

from deploy import server as launcher
from kneeoa_client.server import Server
from tests.conftest import ROOT


def five_free_ports() -> int:
    """The first of five neighbouring free ports."""
    for port in range(18080, 60000, 10):
        sockets = [socket.socket() for _ in range(5)]
        try:
            for i, s in enumerate(sockets):
                s.bind(("127.0.0.1", port + i))
            return port
        except OSError:
            continue
        finally:
            for s in sockets:
                s.close()
    raise RuntimeError("no five free ports")


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The run folder of a ready server."""
    folder = tmp_path_factory.mktemp("run")
    launcher.start(folder, ROOT / "model_store", five_free_ports(), plain_models=True)
    yield folder
    launcher.stop(folder)
    assert not launcher.running(folder)


@pytest.fixture(scope="session")
def server(run) -> Server:
    return Server.find(json.loads((run / "server.json").read_text())["url"], run / "key_file.json")
