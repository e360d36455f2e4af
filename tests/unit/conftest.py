"""A server made of a few lines, and the client's address of it; its patience is a second."""

import json

import pytest

from kneeoa_client import client
from kneeoa_client.client import Client
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
