"""What the image's two programs say where they cannot go on, and that they end when they are told to."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from deploy.container import main as container
from deploy.gateway import launcher as gateway
from deploy.server import free_port
from tests.conftest import ROOT
from tests.e2e.waiting import until
from tests.tools import needs


def said(capsys, monkeypatch, *arguments: object) -> str:
    """What is said by a program that does not start."""
    monkeypatch.setattr(sys, "argv", ["main", *map(str, arguments)])
    assert container.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def served(tmp_path) -> Path:
    """A folder as a server leaves it: a key, and an address that nobody listens at."""
    (tmp_path / ".run").mkdir()
    (tmp_path / ".run/key_file.json").write_text(json.dumps({"inference": {"key": "first"}}))
    (tmp_path / ".run/server.json").write_text(json.dumps({"url": "http://127.0.0.1:9"}))
    return tmp_path


@pytest.mark.parametrize("part", ["server", "gateway"])
def test_a_folder_that_cannot_be_written(capsys, monkeypatch, part):
    told = said(capsys, monkeypatch, part, "--folder", "/proc/nowhere")

    assert (
        told
        == f"{part}: user {os.getuid()} cannot write to /proc/nowhere: mount a volume or a tmpfs there that it may write to"
    )


def test_archives_that_are_not_there(capsys, monkeypatch, tmp_path):
    assert f"{tmp_path} has no detector.mar" in said(
        capsys, monkeypatch, "server", "--folder", tmp_path, "--store", tmp_path
    )


def test_a_port_that_is_taken(capsys, monkeypatch, tmp_path):
    for name in ("detector.mar", "grader.mar", "knee_oa.war"):
        (tmp_path / name).touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = said(capsys, monkeypatch, "server", "--folder", tmp_path, "--store", tmp_path, "--port", port)

    assert f"port {port} is in use; choose another: --port" in told


def test_a_server_that_never_comes(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(container, "WAIT_SECONDS", 0)

    assert "both need the same volume" in said(capsys, monkeypatch, "gateway", "--folder", tmp_path)


@needs("haproxy")
@pytest.mark.parametrize("option", ["--users", "--certificate"])
def test_a_secret_that_is_not_there(capsys, monkeypatch, served, option):
    told = said(capsys, monkeypatch, "gateway", "--folder", served, option, "/secrets/none")

    assert told.endswith("/secrets/none is missing or cannot be read")


@needs("haproxy", "openssl")
def test_the_gateway_takes_a_new_key_lives_without_a_server_and_ends_when_told(served):
    own = served / ".gateway"
    with ExitStack() as claim:
        bind = f"127.0.0.1:{free_port(claim)}"
        command = [sys.executable, "-m", "deploy.container.main", "gateway", "--folder", str(served), "--bind", bind]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "model_src", ROOT / "client")))}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            until(lambda: _listens(bind))
            assert not gateway.ready(own)
            (served / ".run/key_file.json").write_text(json.dumps({"inference": {"key": "second"}}))
            until(lambda: '"second"' in (own / "settings.cfg").read_text())
            until(lambda: _listens(bind))
            assert process.poll() is None
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()

    assert time.monotonic() - began < 20
    assert not _listens(bind)


def _listens(bind: str) -> bool:
    host, _, port = bind.rpartition(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) == 0
