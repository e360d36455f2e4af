"""The only way in from outside: real HAProxy before the real server."""

import base64
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests

from deploy import server as launcher
from deploy.gateway import launcher as gateway
from kneeoa.messages import REPLY_SCHEMA
from kneeoa_cli.main import main as kneeoa
from kneeoa_client.client import WORKFLOW, Client
from tests.bench.soak import difference, faults_of, management, processes, soak
from tests.conftest import ROOT
from tests.corpus import SECRET
from tests.e2e.waiting import until
from tests.tools import needs

pytestmark = needs("haproxy", "openssl", "curl")
REFUSED = {
    "no credentials": (401, "POST", WORKFLOW, {"Authorization": ""}),
    "a wrong token": (401, "POST", WORKFLOW, {"Authorization": "Bearer wrong"}),
    "a wrong password": (401, "POST", WORKFLOW, {"Authorization": "Basic " + base64.b64encode(b"anna:no").decode()}),
    "GET": (405, "GET", WORKFLOW, {}),
    "management": (404, "GET", "models", {}),
    "registration": (404, "POST", "models?url=grader.mar", {}),
    "workflows": (404, "GET", "workflows", {}),
    "metrics": (404, "GET", "metrics", {}),
    "ping": (404, "GET", "ping", {}),
    "another model": (404, "POST", "predictions/knee_oa__grader", {}),
    "a path that climbs": (404, "POST", "predictions/../models", {}),
}


@pytest.fixture(scope="module")
def door(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "users").write_text("anna:secret\nanother-token\n")
    gateway.start(folder, run, f"127.0.0.1:{launcher.free_port()}", users=folder / "users")
    yield folder
    launcher.stop(folder)


@pytest.fixture
def outside(door, monkeypatch) -> Client:
    """A client that has the gateway's address, certificate and key, and nothing else."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(door / "tls.pem"))
    return Client.find("https://" + json.loads((door / "gateway.json").read_text())["bind"], door / "key_file.json")


def ask(client: Client, method: str, path: str, headers: dict[str, str], body: bytes = b"") -> requests.Response:
    headers = {"Authorization": f"Bearer {client.key}"} | headers
    return requests.request(method, f"{client.url}/{path}", headers=headers, data=body, timeout=60)


def test_films_pass_and_nothing_changes_on_the_way(outside, server, sample):
    for endpoint in (WORKFLOW, "predictions/detector"):
        assert outside.post(sample, endpoint=endpoint) == server.post(sample, endpoint=endpoint)


@pytest.mark.parametrize("credential", ["Bearer another-token", "Basic " + base64.b64encode(b"anna:secret").decode()])
def test_tokens_and_passwords_open_it(outside, sample, credential):
    assert ask(outside, "POST", WORKFLOW, {"Authorization": credential}, sample).json()["status"] == "ok"


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_has_the_shape_of_a_reply(outside, case):
    status, method, path, headers = REFUSED[case]

    answer = ask(outside, method, path, headers)

    assert answer.status_code == status
    assert answer.json()["schema"] == REPLY_SCHEMA
    assert answer.json()["error"]["http_status"] == status


@pytest.mark.parametrize(("headers", "status"), [({"Authorization": "Bearer wrong"}, 401), ({}, 413)])
def test_a_refusal_arrives_whole_while_megabytes_are_still_being_sent(outside, headers, status):
    answer = ask(outside, "POST", WORKFLOW, headers, bytes(65 << 20))

    assert answer.status_code == answer.json()["error"]["http_status"] == status


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_a_form_is_told_to_be_one(outside, sample, kind):
    answer = ask(outside, "POST", WORKFLOW, {"Content-Type": kind}, sample)

    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_a_chunked_body_is_refused(outside):
    answer = requests.post(f"{outside.url}/{WORKFLOW}", data=iter([b"film"]), auth=("anna", "secret"), timeout=60)

    assert answer.status_code == 400


def test_secrets_and_queries_stay_out_of_logs_and_process_lists(outside, door, run, sample):
    key = json.loads((run / "key_file.json").read_text())["inference"]["key"]

    ask(outside, "POST", f"{WORKFLOW}?patient={SECRET}", {"X-Patient": SECRET, "User-Agent": SECRET}, sample)

    logs = [path for folder in (run, door) for path in folder.rglob("*.log")]
    assert not any(word in path.read_text() for path in logs for word in (SECRET, key, outside.key, "secret"))
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not any(word in line for line in lines for word in (key, outside.key))
    assert all((door / name).stat().st_mode & 0o077 == 0 for name in ("settings.cfg", "key_file.json", "tls.pem"))


def test_a_full_house_is_told_at_once_and_the_rest_is_answered(outside, sample):
    """The measurement with 400 clients is in docs/operations.md."""
    began = time.monotonic()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: ask(outside, "POST", WORKFLOW, {}, sample), range(100)))

    full = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert all(
        answer.headers["Retry-After"] and answer.json()["error"]["code"] in ("busy", "unavailable") for answer in full
    )
    assert all(answer.json()["status"] == "ok" for answer in answers if answer.status_code == 200)
    assert time.monotonic() - began < 60
    assert outside.post(sample)["status"] == "ok"


def test_a_node_without_workers_closes_the_door_and_torchserves_own_errors_stay_inside(outside, door, run, sample):
    management(run).scale(0, ["knee_oa__grader"])
    try:
        answer = ask(outside, "POST", "predictions/detector", {}, b"no film")  # before it is noticed: that model works
        assert answer.status_code in (415, 503)
        until(lambda: not gateway.ready(door))
        refused = ask(outside, "POST", WORKFLOW, {}, sample)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
    finally:
        management(run).scale(1, ["knee_oa__grader"])
    until(lambda: gateway.ready(door))
    assert outside.post(sample)["status"] == "ok"


def test_a_film_whose_worker_dies_is_graded_in_the_end(outside, run, sample):
    quiet = outside.post(sample)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(outside.post_patiently, sample) for _ in range(8)]
        processes(run)["grader"].kill()

    assert not any(difference(each.result(), quiet) for each in asked)


def test_a_short_soak_with_kills_and_a_restart_loses_nothing():
    report = soak(number=60, clients=16, bad=0.3, seed=1, rest=0)

    assert not faults_of(report, longest=60), report  # this machine may have other work
    assert len(report["recovery_s"]) == 3


def test_curl_and_kneeoa_pass_with_what_operations_says(outside, door, tmp_path, monkeypatch):
    text = (ROOT / "docs/operations.md").read_text()
    line = next(x.strip() for x in text.splitlines() if x.strip().startswith("curl --cacert"))
    line = (
        line.replace("https://localhost:8443", outside.url).replace(".gateway", str(door)).replace("$KEY", outside.key)
    )

    reply = subprocess.run(line, shell=True, cwd=ROOT, capture_output=True, check=True).stdout
    code = kneeoa(["grade", str(ROOT / "samples/bilateral.dcm"), "--server", outside.url,
                   "--key-file", str(door / "key_file.json"), "--out", str(tmp_path / "r.csv")])  # fmt: skip

    assert json.loads(reply)["status"] == "ok"
    assert code == 0
