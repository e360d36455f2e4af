"""Real Prometheus beside the real server: what is counted, what it says of time, and what it cries out about."""

import json
import re
import subprocess
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from random import Random

import numpy as np
import pytest
import requests
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy import server as launcher
from deploy.gateway import launcher as gateway
from deploy.monitoring import draw
from deploy.monitoring import launcher as monitoring
from deploy.monitoring.launcher import query
from kneeoa import SAMPLE
from kneeoa_cli.main import main as kneeoa
from kneeoa_cli.probe import Probe
from kneeoa_client.client import WORKFLOW, Client
from kneeoa_client.management import Management
from tests.bench.soak import management, processes
from tests.conftest import ROOT
from tests.corpus import REFUSED
from tests.e2e.waiting import until
from tests.tools import needs

pytestmark = needs("prometheus", "promtool", "haproxy", "openssl")
SOURCES = ROOT / "deploy/monitoring"
DASHBOARD = json.loads((SOURCES / "grafana/kneeoa.json").read_text())
INTERVAL = 2.0  # s, of scrapes and of evaluations
REQUESTS = 500


@pytest.fixture(scope="module")
def door(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gateway")
    gateway.start(folder, run, f"127.0.0.1:{launcher.free_port()}")
    yield folder
    launcher.stop(folder)


@pytest.fixture(scope="module")
def prometheus(run, door, tmp_path_factory) -> str:
    """Its address."""
    folder, port = tmp_path_factory.mktemp("monitoring"), launcher.free_port() + 1
    monitoring.start(folder, run, door, port, f"{INTERVAL:.0f}s", every=1.0)
    yield f"http://127.0.0.1:{port}"
    monitoring.end(folder)
    assert not any(launcher.running(folder / name) for name in ("probe", "prometheus"))


def exposed(run) -> str:
    """What the server tells Prometheus; it asks for no token."""
    address = json.loads((run / "server.json").read_text())["metrics"]
    return requests.get(f"{address}/metrics", timeout=10).text


def samples(run, name: str) -> list:
    (family,) = (found for found in text_string_to_metric_families(exposed(run)) if found.name == name)
    return family.samples


def requests_counted(run) -> Counter:
    """Requests by service, node, outcome and code; checks left out."""
    counted = Counter()
    for sample in samples(run, "kneeoa_requests"):
        key = tuple(sample.labels[name] for name in ("service", "node", "outcome", "code"))
        counted[key] += 0 if key[0] == "probe" else int(sample.value)
    return counted


def firing(prometheus: str) -> set[str]:
    alerts = requests.get(f"{prometheus}/api/v1/alerts", timeout=5).json()["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@pytest.fixture(scope="module")
def traffic(run, door, server, prometheus):
    """500 mixed requests from 8 clients; what these saw: answers by service, node, outcome and code, seconds by service."""
    rng, sample = Random(0), SAMPLE.read_bytes()
    bad = cycle(data for build, _ in REFUSED.values() if (data := build()) and len(data) < 2**20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(door / "tls.pem"))
        address = "https://" + json.loads((door / "gateway.json").read_text())["bind"]
        outside = Client.find(address, door / "key_file.json")
        detection = json.dumps(server.post(sample, endpoint="predictions/detector")).encode()
        ways = {
            ("workflow", "grader"): (outside, WORKFLOW, sample, 6),
            ("plain", "detector"): (server, "predictions/detector", sample, 2),
            ("plain", "grader"): (server, "predictions/grader", detection, 2),
        }
        until(lambda: requests_counted(run)["plain", "detector", "ok", "none"] > 0, 10)
        before, began = requests_counted(run), time.time()
        seen, seconds = Counter(), {way: [] for way in ways}

        def ask(way: tuple[str, str], good: bool, refused: bytes) -> None:
            client, endpoint, film, _ = ways[way]
            started = time.monotonic()
            reply = client.post(film if good else refused, endpoint=endpoint)
            seconds[way].append(time.monotonic() - started)
            code = reply["error"]["code"] if reply["error"] else "none"
            seen[(*way, reply["status"], code)] += 1
            if way == ("workflow", "grader"):
                seen["workflow", "detector", reply["status"], code] += 1

        chosen = rng.choices(list(ways), [way[-1] for way in ways.values()], k=REQUESTS)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, chosen, [rng.random() < 0.5 for _ in chosen], [next(bad) for _ in chosen]))
    return before, seen, seconds, time.time() - began


def test_counts_agree_exactly_with_what_the_clients_saw(run, traffic):
    before, seen, _, _ = traffic

    assert sum(n for (service, node, *_), n in seen.items() if (service, node) != ("workflow", "detector")) == REQUESTS
    assert len({code for *_, code in seen}) > 5
    until(lambda: +(requests_counted(run) - before) == seen, 10)


@pytest.mark.parametrize("quantile", [0.5, 0.9, 0.99])
def test_quantiles_are_those_of_the_clients(run, prometheus, traffic, quantile):
    *_, seconds, took = traffic
    answered = {"service": "workflow", "node": "grader", "seconds": "+Inf"}
    total = sum(s.value for s in samples(run, "kneeoa_requests_within") if answered.items() <= s.labels.items())
    scraped = 'sum(kneeoa_requests_within_total{service="workflow", node="grader", seconds="+Inf"})'
    until(lambda: query(prometheus, scraped) == total, 3 * INTERVAL)
    window = int(took + 5 * INTERVAL)
    expression = (
        f"histogram_quantile({quantile}, sum by (le) (label_replace(increase("
        f'kneeoa_requests_within_total{{service="workflow"}}[{window}s]), "le", "$1", "seconds", "(.+)")))'
    )

    assert query(prometheus, expression) == pytest.approx(np.quantile(seconds["workflow", "grader"], quantile), rel=0.1)


def test_every_rule_is_healthy_and_every_panel_has_data(prometheus, traffic):
    def values(expression: str) -> list:
        answer = requests.get(f"{prometheus}/api/v1/query", {"query": expression}, timeout=10).json()
        assert answer["status"] == "success", expression
        return [sample for sample in answer["data"]["result"] if sample["value"][1] != "NaN"]

    groups = requests.get(f"{prometheus}/api/v1/rules", timeout=10).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    expected = [
        rule for group in yaml.safe_load((SOURCES / "rules.yml").read_text())["groups"] for rule in group["rules"]
    ]
    assert len(rules) == len(expected)
    assert {rule["health"] for rule in rules} == {"ok"}
    for rule in expected:
        assert "alert" in rule or values(rule["record"]), rule["record"]
    targets = [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel["targets"]]
    for title, expression in targets:
        assert values(expression), title
    names = set(re.findall(r"kneeoa_\w+", exposed_names(prometheus)))
    told = {name for _, expression in targets for name in re.findall(r"kneeoa_\w+", expression)}
    assert told <= names


def exposed_names(prometheus: str) -> str:
    return " ".join(requests.get(f"{prometheus}/api/v1/label/__name__/values", timeout=10).json()["data"])


def test_the_dashboard_can_be_drawn(prometheus, traffic, tmp_path):
    draw.dashboard(prometheus, tmp_path / "dashboard.png", minutes=1)

    assert (tmp_path / "dashboard.png").stat().st_size > 50_000


def test_a_scrape_is_quick_and_clean(run, prometheus, traffic):
    assert query(prometheus, "max(max_over_time(scrape_duration_seconds[5m]))") < 0.2
    assert query(prometheus, "min(min_over_time(up[1m]))") == 1
    for name in ("torchserve", "probe"):
        target = query_label(prometheus, f'up{{job="{name}"}}', "instance")
        text = requests.get(f"http://{target}/metrics", timeout=10).content
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True)
        assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def query_label(prometheus: str, expression: str, label: str) -> str:
    answer = requests.get(f"{prometheus}/api/v1/query", {"query": expression}, timeout=10).json()
    return answer["data"]["result"][0]["metric"][label]


@pytest.mark.parametrize(
    "command",
    [
        ["check", "config", "prometheus.yml"],
        ["check", "rules", "rules.yml"],
        ["test", "rules", "rules_minutes_test.yml"],
        ["test", "rules", "rules_days_test.yml"],
    ],
    ids=" ".join,
)
def test_promtool_finds_no_fault(command):
    checked = subprocess.run(["promtool", *command], cwd=SOURCES, capture_output=True, text=True)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_worker_that_dies_is_told_of_within_two_scrapes(run, prometheus):
    until(lambda: "KneeoaNotReady" not in firing(prometheus), 30)
    processes(run)["grader"].kill()

    assert until(lambda: "KneeoaNotReady" in firing(prometheus), 10) <= 2 * INTERVAL + 0.5
    until(lambda: "KneeoaWorkerDied" in firing(prometheus), 60)
    until(lambda: query(prometheus, "kneeoa_probe_ready") == 1, 60)


def test_a_node_scaled_to_nothing_is_told_of_within_two_scrapes(run, prometheus, capsys):
    watched = ["--server", *addresses(run)]
    until(lambda: not firing(prometheus) & {"KneeoaNotReady"}, 60)
    assert kneeoa(["probe", "--once", *watched]) == 0
    try:
        management(run).scale(0, ["knee_oa__grader"])
        assert until(lambda: "KneeoaNotReady" in firing(prometheus), 10) <= 2 * INTERVAL + 0.5
        target = query_label(prometheus, 'up{job="probe"}', "instance")
        answer = requests.get(f"http://{target}/ready", timeout=70)
        assert answer.status_code == 503
        assert "no worker is ready for the grader" in answer.json()["reasons"]
    finally:
        management(run).scale(1, ["knee_oa__grader"])
    until(lambda: query(prometheus, "kneeoa_probe_ready") == 1, 60)
    assert capsys.readouterr().out == "ready\n"


def addresses(run) -> tuple[str, ...]:
    server = json.loads((run / "server.json").read_text())
    return server["url"], "--management", server["management"], "--key-file", str(run / "key_file.json")


def test_the_probe_tells_right_from_wrong_from_broken(run):
    server = json.loads((run / "server.json").read_text())
    watch = Probe.find(server["url"], server["management"], run / "key_file.json", SAMPLE, 30.0)

    assert watch.trouble() == ["no synthetic radiograph was graded yet"]
    assert watch.grade() == "right"
    assert watch.trouble() == []
    watch.expected["knees"][0]["grades"]["KL"] = {"grade": 4, "probabilities": [0, 0, 0, 0, 1]}
    assert watch.grade() == "wrong"
    assert watch.trouble() == ["the synthetic radiograph: wrong"]
    watch.film = b"no film"
    assert watch.grade() == "error"
    watch.client.url = "http://127.0.0.1:9"
    assert watch.grade() == "unreachable"
    watch.management = Management("http://127.0.0.1:9", run / "key_file.json")
    assert watch.trouble()[0] == "no answer from the management address"
    for outcome in ("right", "wrong", "error", "unreachable"):
        assert watch.registry.get_sample_value("kneeoa_probe_synthetics_total", {"outcome": outcome}) == 1
