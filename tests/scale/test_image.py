"""The image: built from nothing but packages, run without rights, graded through its gateway, killed and drained."""

import json
import os
import re
import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import requests
from packaging.utils import canonicalize_name

import kneeoa
from deploy.gateway import launcher as gateway
from deploy.server import free_port
from kneeoa_cli.probe import sure_grades
from kneeoa_client.client import Client
from tests.conftest import ROOT
from tests.e2e.waiting import until
from tests.scale.containers import EMPTY, IMAGE, Store, store
from tests.tools import needs

pytestmark = [
    needs("buildah", "podman", "runc", "mmdebstrap", "openssl"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can build a base with mmdebstrap and run it here"),
]
MAIN = ("python", "-m", "deploy.container.main")
FILMS = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    with store(tmp_path_factory.mktemp("containers")) as made:
        if made.podman("image", "exists", IMAGE, check=False).returncode:  # as in a store that was kept
            made.bases()
            done = made.ours("--build-arg", f"VERSION={kneeoa.__version__}")
            assert done.returncode == 0, done.stderr[-2000:]
        yield made


@pytest.fixture(scope="module")
def secret(tmp_path_factory):
    """A client's key file, the gateway's list with that key, and a certificate as Kubernetes has it, in two files."""
    folder, token = tmp_path_factory.mktemp("secret"), secrets.token_urlsafe(32)
    (folder / "clients").write_text(token + "\n")
    (folder / "key_file.json").write_text(json.dumps({"inference": {"key": token}}))
    gateway.self_signed(folder / "tls.pem")
    for kind, name in (("PRIVATE KEY", "tls.key"), ("CERTIFICATE", "tls.crt")):
        found = re.search(f"-----BEGIN {kind}-.*-END {kind}-----\n", (folder / "tls.pem").read_text(), re.S)
        (folder / name).write_text(found[0])
    for path in (folder, *folder.iterdir()):
        os.chown(path, 1000, 1000)
    return folder


class Service:
    """Server and gateway of the image on free ports, and a client."""

    def __init__(self, images: Store, run, secret, claim: ExitStack) -> None:
        self.images, self.run, self.secret = images, run, secret
        self.port, self.bind = free_port(claim), f"127.0.0.1:{free_port(claim)}"

    def start_server(self) -> None:
        self.images.start(
            "server", "--volume", f"{self.run}:/var/lib/kneeoa", IMAGE, *MAIN, "server", f"--port={self.port}"
        )
        until(lambda: "ready: a radiograph was graded" in self.images.said("server") or self.running("server"), 300)

    def start_gateway(self) -> None:
        volumes = ("--volume", f"{self.run}:/var/lib/kneeoa", "--volume", f"{self.secret}:/secrets:ro")
        files = ("--certificate=/secrets/tls.crt", "--users=/secrets/clients")
        self.images.start("gateway", *volumes, IMAGE, *MAIN, "gateway", f"--bind={self.bind}", *files)
        until(self.ready, 90)

    def ready(self) -> bool:
        """Whether the gateway calls the server ready; fails where the gateway is gone."""
        self.running("gateway")
        return (self.run / ".gateway/gateway.json").exists() and gateway.ready(self.run / ".gateway")

    def running(self, name: str) -> None:
        state = self.images.podman("inspect", "--format", "{{.State.Running}}", name).stdout.strip()
        assert state == "true", self.images.said(name)

    def end(self, name: str) -> int:
        """Ask it to end; its exit code."""
        self.images.podman("stop", "--time", "100", name)
        return int(self.images.podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout)


@pytest.fixture(scope="module")
def service(images, secret, tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    os.chown(run, 1000, 1000)
    with ExitStack() as claim:
        made = Service(images, run, secret, claim)
        made.start_server()
        made.start_gateway()
        yield made


@pytest.fixture
def client(service, monkeypatch) -> Client:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(service.secret / "tls.pem"))
    return Client.find(f"https://{service.bind}", service.secret / "key_file.json")


def test_it_holds_what_it_says_and_nothing_to_build_with(images):
    told = json.loads(images.podman("inspect", IMAGE).stdout)[0]
    print(f"{told['Size'] / 1e9:.2f} GB")
    settings = told["Config"]
    assert settings["User"] == "1000:1000"
    assert settings["Labels"]["org.opencontainers.image.version"] == kneeoa.__version__
    assert told["Healthcheck"]["Test"] == ["CMD", "kneeoa", "probe", "--once"]

    bill = json.loads(images.once("cat", "/srv/kneeoa/sbom.json").stdout)
    licences = images.once("cat", "/srv/kneeoa/licences.txt").stdout.splitlines()
    packages = {canonicalize_name(each["name"]): each.get("version") for each in bill["components"]}
    locked = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.M))
    assert bill["bomFormat"] == "CycloneDX"
    assert packages.pop("kneeoa") == kneeoa.__version__
    assert len(packages) > 50
    assert packages.items() <= locked.items()  # the lock's names are canonical
    assert not {"pytest", "lightning", "ruff", "pip"} & packages.keys()
    assert len(licences) == len(bill["components"])

    for tool in ("gcc", "cc", "g++", "make", "pip", "uv"):
        assert images.once("sh", "-c", f"command -v {tool}").returncode, tool
    script = (
        "ls -d /root/.cache /src; find /tmp/uv /var/lib/apt/lists -type f; touch /srv/kneeoa/x && echo wrote; id -u"
    )
    assert images.once("sh", "-c", script).stdout.split() == ["1000"]


@pytest.mark.parametrize(
    ("said", "arguments"),
    [
        ("cannot write to /var/lib/kneeoa: mount a volume", ("server",)),
        ("cannot write to /var/lib/kneeoa: mount a volume", ("gateway",)),
        ("/mnt/models has no detector.mar", ("server", "--folder=/tmp", "--store=/mnt/models")),
    ],
)
def test_what_it_cannot_do_without_is_one_sentence(images, said, arguments):
    done = images.once(*MAIN, *arguments)

    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_port_that_is_taken_is_one_sentence(images):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = images.once(*MAIN, "server", "--folder=/tmp", f"--port={port}")

    assert done.returncode == 1
    assert f"port {port} is in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "arguments", "base"),
    [
        ("BASE must be a Debian that has Python 3.10 or newer", (), EMPTY),
        ("VARIANT is cpu or gpu, not tpu.", ("--build-arg", "VARIANT=tpu"), None),
        ("VARIANT=cpu needs --build-context wheels=DIR", ("--build-arg", "VARIANT=cpu"), None),
    ],
)
def test_a_build_that_cannot_go_on_says_what_it_needs(images, said, arguments, base):
    if images.podman("image", "exists", EMPTY, check=False).returncode:
        images.bases()
    done = images.ours(*arguments, **({"base": base} if base else {}))

    assert done.returncode
    assert said in done.stdout + done.stderr


def test_it_grades_the_sample_as_it_should_and_is_healthy(service, client, sample):
    reply = client.post(sample)

    assert sure_grades(reply) == sure_grades(json.loads((ROOT / "samples/bilateral.json").read_text()))
    assert service.images.podman("healthcheck", "run", "server", check=False).returncode == 0
    probe = service.images.podman("exec", "gateway", "kneeoa", "probe", "--once")
    assert probe.stdout.strip() == "ready"


def test_a_server_that_is_killed_costs_no_film(service, client, sample):
    assert client.post(sample)["status"] == "ok"
    with ThreadPoolExecutor(FILMS) as pool:
        asked = [pool.submit(client.post_patiently, sample) for _ in range(FILMS)]
        service.images.podman("kill", "server")
        service.start_server()

        assert [each.result()["status"] for each in asked] == ["ok"] * FILMS
    until(service.ready)


def test_told_to_end_it_answers_the_films_it_has(service, client, sample):
    """The last one: gateway and server are gone afterwards."""
    with ThreadPoolExecutor(FILMS) as pool:
        asked = [pool.submit(client.post, sample) for _ in range(FILMS)]
        until(lambda: _in_flight(service) >= FILMS)
        code = service.end("gateway")

        assert [each.result()["status"] for each in asked] == ["ok"] * FILMS
    assert code == 0
    assert service.end("server") == 0


def _in_flight(service: Service) -> int:
    """Films in the server and in the gateway's queue, as Prometheus would read them."""
    metrics = json.loads((service.run / ".gateway/gateway.json").read_text())["metrics"]
    text = requests.get(f"http://{metrics}/metrics", timeout=10).text
    return int(re.search(r'haproxy_backend_current_sessions\{proxy="torchserve"\} (\d+)', text)[1])
