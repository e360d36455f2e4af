"""A rolling restart as Kubernetes does it: two pods of server and gateway, a service before them, films all the while.

The pods run what the image runs, as processes. The service is harsher than Kubernetes': pods get no pause to leave, only one
is there while the other restarts, and a connection to a pod that has just gone is refused, not sent elsewhere.
"""

import contextlib
import itertools
import json
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from deploy import archives
from deploy.gateway import launcher as gateway
from deploy.processes import process_of
from deploy.server import free_port
from tests.bench.soak import Recording, difference, good_films, weigh
from tests.conftest import ROOT
from tests.e2e.waiting import until
from tests.tools import needs

pytestmark = needs("haproxy", "openssl")
CLIENTS = 6
SERVICE = """
defaults
    mode tcp
    timeout connect 2s
    timeout client 120s
    timeout server 120s
    retries 0
listen service
    bind 127.0.0.1:{port}
    balance roundrobin
    option httpchk GET /ready
    default-server check check-ssl verify none inter 500ms fall 1 rise 1
"""


@dataclass
class Pod:
    """Server and gateway with a folder of their own, as the image starts them."""

    folder: Path
    port: int
    bind: str
    certificate: Path
    users: Path

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.server = self._run("server", "--port", str(self.port), "--no-plain-models")
        until(lambda: "ready: a radiograph" in self._log("server"), 300)
        files = ("--certificate", str(self.certificate), "--users", str(self.users))
        self.gateway = self._run("gateway", "--bind", self.bind, *files)
        until(lambda: (self.folder / ".gateway/gateway.json").exists() and gateway.ready(self.folder / ".gateway"), 60)

    def stop(self) -> list[int]:
        """Tell the gateway to end, and then the server; their exit codes."""
        codes = []
        for process in (self.gateway, self.server):
            process.send_signal(signal.SIGTERM)
            codes.append(process.wait(120))
        return codes

    def kill(self) -> None:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):  # one that has just ended
                if str(self.folder) in " ".join(process.cmdline()):
                    process.kill()

    def _run(self, part: str, *arguments: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "deploy.container.main", part, "--folder", str(self.folder), *arguments]
        with open(self.folder / f"{part}.log", "w") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)

    def _log(self, part: str) -> str:
        assert self.server.poll() is None, (self.folder / f"{part}.log").read_text()
        return (self.folder / f"{part}.log").read_text()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two ready pods, and the address and key of the service before them."""
    folder = tmp_path_factory.mktemp("cluster")
    archives.main([str(ROOT / "model_store")])
    token = secrets.token_urlsafe(32)
    (folder / "users").write_text(token + "\n")
    (folder / "key_file.json").write_text(json.dumps({"inference": {"key": token}}))
    certificate = folder / "tls.pem"
    gateway.self_signed(certificate)
    with contextlib.ExitStack() as claim:
        port, *ports = (free_port(claim) for _ in range(5))
        pods = [
            Pod(folder / name, ports.pop(), f"127.0.0.1:{ports.pop()}", certificate, folder / "users") for name in "ab"
        ]
    lines = [f"    server {pod.folder.name} {pod.bind}" for pod in pods]
    (folder / "service.cfg").write_text(SERVICE.format(port=port) + "\n".join(lines) + "\n")
    service = None
    try:
        for pod in pods:
            pod.start()
        service = subprocess.Popen([gateway.haproxy(), "-f", str(folder / "service.cfg")])
        yield pods, f"https://localhost:{port}", folder
    finally:
        if service:
            service.terminate()
        for pod in pods:
            pod.kill()


def test_a_rolling_restart_under_load_loses_no_film(cluster, monkeypatch):
    pods, url, folder = cluster
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(folder / "tls.pem"))
    client = Recording.find(url, folder / "key_file.json")
    films = good_films(4, seed=18)
    quiet = [client.post_patiently(film) for film in films]
    client.sent.clear()
    over, asked = threading.Event(), itertools.count()

    def send(_: int) -> list[str | None]:
        told = []
        while not over.is_set():
            which = next(asked) % len(films)
            told.append(difference(client.post_patiently(films[which]), quiet[which]))
        return told

    keys = [(pod.folder / ".run/key_file.json").read_text() for pod in pods]
    with ThreadPoolExecutor(CLIENTS) as pool:
        senders = [pool.submit(send, number) for number in range(CLIENTS)]
        try:
            seconds = []
            for pod in pods:
                _flow(client)
                began = time.monotonic()
                assert pod.stop() == [0, 0]
                pod.start()
                seconds.append(round(time.monotonic() - began))
            _flow(client)
        finally:
            over.set()
    answers = [answer for sender in senders for answer in sender.result()]

    statuses = Counter(status for _, status in client.sent)
    took = sorted(seconds for seconds, _ in client.sent)
    print({"films": len(answers), "statuses": dict(statuses), "restarts_s": seconds, "longest_s": round(took[-1], 1),
           "memory": [weigh(pod.folder / ".run") for pod in pods]})  # fmt: skip
    assert len(answers) == next(asked) == statuses[200]
    assert answers
    assert not any(answers)
    assert all(key != (pod.folder / ".run/key_file.json").read_text() for key, pod in zip(keys, pods, strict=True))
    assert set(statuses) <= {0, 200, 503}
    assert all(process_of(pod.folder / ".run") for pod in pods)


def _flow(client: Recording) -> None:
    """Until each sender has got about two more answers: work goes on."""
    before = len(client.sent)
    until(lambda: len(client.sent) >= before + 2 * CLIENTS, 120)
