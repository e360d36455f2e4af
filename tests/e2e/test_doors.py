"""The gateway's door, before a server of a few lines: who may stand in it, and what is told to whom asks too much."""

import json
import socket
import ssl
import sys
from contextlib import ExitStack

import pytest
import requests

from deploy.gateway import launcher as gateway
from deploy.processes import launch, stop
from deploy.server import free_port
from tests.e2e.waiting import until
from tests.tools import needs

pytestmark = needs("haproxy", "openssl")
SERVER = """
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"schema":"kneeoa.reply/1","error":{"code":"empty_body"}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """The gateway's folder."""
    run, folder = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("door")
    with ExitStack() as ports:
        port = free_port(ports)
        (run / "server.json").write_text(json.dumps({"url": f"http://127.0.0.1:{port}"}))
        (run / "key_file.json").write_text(json.dumps({"inference": {"key": "inner"}}))
        launch(run, [sys.executable, "-c", SERVER, str(port)])
        gateway.start(folder, run, f"127.0.0.1:{port + 2}")
        yield folder
        stop(folder)
        stop(run)


def ask(door, headers: dict[str, str]) -> requests.Response:
    key = json.loads((door / "key_file.json").read_text())["inference"]["key"]
    bind = json.loads((door / "gateway.json").read_text())["bind"]
    url = f"https://{bind}/wfpredict/knee_oa"
    headers = {"Authorization": f"Bearer {key}"} | headers
    return requests.post(url, data=b"film", headers=headers, verify=door / "tls.pem", timeout=20)


@pytest.mark.parametrize(("size", "status"), [(6000, 200), (8500, 431), (12000, 431)])
def test_large_headers_are_told_to_be_large(door, size, status):
    """From 8.5 to 12 KB it was "503, ask again"."""
    answer = ask(door, {"X-Large": "x" * size})

    assert answer.status_code == status
    if status == 431:
        assert answer.json()["error"]["code"] == "headers_too_large"


def closed(connection: socket.socket) -> bool:
    """Whether the gateway has, so far."""
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def test_one_address_cannot_fill_the_door(door):
    """2050 silent connections locked it for half a minute."""
    host, _, port = json.loads((door / "gateway.json").read_text())["bind"].rpartition(":")
    with ExitStack() as held:
        silent = [held.enter_context(socket.create_connection((host, int(port)))) for _ in range(560)]
        until(lambda: sum(map(closed, silent)) >= 50, 10)
        context = ssl.create_default_context(cafile=str(door / "tls.pem"))
        other = held.enter_context(socket.create_connection((host, int(port)), 5, ("127.0.0.2", 0)))
        with context.wrap_socket(other, server_hostname="localhost") as speaking:
            speaking.sendall(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in speaking.recv(100)
