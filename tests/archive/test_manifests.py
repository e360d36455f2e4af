"""What orchestrators read: each file as its schema wants it, and as our own rules want it."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from deploy.container.licences import listed
from deploy.container.main import parser as container_parser
from deploy.kubernetes import rules
from kneeoa import __version__
from kneeoa_cli import main as kneeoa
from tests.conftest import ROOT
from tests.tools import needs

KUBERNETES, CONTAINER, MONITORING = (ROOT / "deploy" / name for name in ("kubernetes", "container", "monitoring"))
RESOURCES = [
    (file.relative_to(KUBERNETES).as_posix(), resource)
    for file in sorted(KUBERNETES.rglob("*.yaml"))
    for resource in yaml.safe_load_all(file.read_text())
    if resource and "kind" in resource and resource["kind"] != "Kustomization" and "overlays" not in file.parts
]
OURS = {"ServiceMonitor", "PrometheusRule", "InferenceService"}  # kinds of others, whose schemas are not carried
OLDEST, NEWEST = "1.29", "1.37"  # from the first that knows sidecars


def pods() -> dict[str, dict]:
    """The specification of each pod that a manifest describes."""
    specs = {name: r["spec"]["template"]["spec"] for name, r in RESOURCES if r["kind"] in ("Deployment", "StatefulSet")}
    return specs | {name: r["spec"]["predictor"] for name, r in RESOURCES if r["kind"] == "InferenceService"}


def containers(spec: dict) -> list[dict]:
    return [*spec.get("initContainers", ()), *spec["containers"]]


@pytest.mark.parametrize("resource", [r for _, r in RESOURCES if r["kind"] not in OURS], ids=lambda r: r["kind"])
def test_manifests_are_what_kubernetes_takes(resource):
    kubernetes_validate.validate(resource, NEWEST, strict=True)


def test_a_word_that_kubernetes_does_not_know_would_be_seen():
    deployment = next(json.loads(json.dumps(r)) for _, r in RESOURCES if r["kind"] == "Deployment")
    deployment["spec"]["template"]["spec"]["initContainers"][0]["readynessProbe"] = {}

    with pytest.raises(kubernetes_validate.ValidationError, match="readynessProbe"):
        kubernetes_validate.validate(deployment, OLDEST, strict=True)


def test_kinds_of_others_have_the_pod_and_the_ports_they_need():
    kinds = {r["kind"]: r for _, r in RESOURCES if r["kind"] in OURS}
    assert kinds.keys() == OURS
    predictor = kinds["InferenceService"]["spec"]["predictor"]
    pod = {key: value for key, value in predictor.items() if key not in ("minReplicas", "maxReplicas")}
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", "spec": pod}, OLDEST, strict=True)
    assert "kserve-container" in {each["name"] for each in predictor["containers"]}
    monitor = kinds["ServiceMonitor"]["spec"]
    (service,) = (r for _, r in RESOURCES if r["kind"] == "Service"
                  and monitor["selector"]["matchLabels"].items() <= r["metadata"]["labels"].items())  # fmt: skip
    assert {each["port"] for each in monitor["endpoints"]} == {port["name"] for port in service["spec"]["ports"]}
    jobs = {each["relabelings"][0]["replacement"] for each in monitor["endpoints"]}
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    assert jobs == {each["job_name"] for each in scraped}


def test_the_same_rules_and_jobs_everywhere():
    made = yaml.safe_load(rules.TARGET.read_text())
    ours, compose = (yaml.safe_load((p / "prometheus.yml").read_text()) for p in (MONITORING, CONTAINER))

    assert rules.TARGET.read_text() == rules.resource(), "run: python -m deploy.kubernetes.rules"
    assert made["spec"] == yaml.safe_load((MONITORING / "rules.yml").read_text())
    assert {key: value for key, value in compose.items() if key != "alerting"} == ours


@pytest.mark.parametrize("spec", pods().values(), ids=pods())
def test_no_container_can_write_to_its_image_or_become_root(spec):
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in containers(spec):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"]
        assert not context["allowPrivilegeEscalation"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]
        assert {mount["name"] for mount in container["volumeMounts"]} <= {
            *(volume["name"] for volume in spec["volumes"]), "spool"}  # fmt: skip


@pytest.mark.parametrize("spec", pods().values(), ids=pods())
def test_commands_take_the_arguments_that_manifests_give_them(spec, monkeypatch):
    monkeypatch.setattr(kneeoa, "_run", lambda *_: 0)  # arguments only

    for container in containers(spec):
        program, *arguments = container["args"]
        if program == "python":
            assert arguments[:2] == ["-m", "deploy.container.main"]
            container_parser().parse_args(arguments[2:])
        else:
            assert program == "kneeoa"
            assert kneeoa.main(arguments) == 0


def test_nobody_reaches_inference_and_management_from_outside():
    policy = next(r for _, r in RESOURCES if r["kind"] == "NetworkPolicy" and r["metadata"]["name"] == "kneeoa")["spec"]
    config = (ROOT / "config.properties").read_text()

    opened = {port["port"] for rule in policy["ingress"] for port in rule["ports"]}
    assert opened == {8443, 8082, 8444, 9089}
    assert all(rule["from"] for rule in policy["ingress"])
    assert {*policy["policyTypes"]} == {"Ingress", "Egress"}
    assert not policy["egress"]
    assert "inference_address=http://127.0.0.1:8080" in config
    assert "management_address=http://127.0.0.1:8081" in config


def test_a_pod_is_given_the_time_that_its_films_need():
    config = (ROOT / "deploy/gateway/haproxy.cfg").read_text()
    drain = int(re.search(r"hard-stop-after (\d+)s", config)[1])

    for name, spec in pods().items():
        for container in containers(spec):
            if (pause := container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [""]))[
                0
            ] == "sleep":
                assert int(pause[1]) + drain < spec["terminationGracePeriodSeconds"], name


def kustomize() -> bool:
    """Whether kubectl tells the version of its own, which it has since 1.24; Debian 12's is older."""
    asked = ["kubectl", "version", "--client", "--output=json"]
    return "kustomizeVersion" in subprocess.run(asked, capture_output=True, text=True).stdout


@needs("kubectl")
@pytest.mark.parametrize("name", ["overlays/cpu", "overlays/gpu", "pacs", "kserve"])
def test_kustomize_renders_what_kubernetes_takes(name):
    if not kustomize():
        pytest.skip("this kubectl is older than 1.24, and so is its kustomize")
    done = subprocess.run(["kubectl", "kustomize", str(KUBERNETES / name)], capture_output=True, text=True, check=True)

    rendered = [*yaml.safe_load_all(done.stdout)]
    for resource in rendered:
        assert resource["metadata"]["namespace"] == "kneeoa"
        if resource["kind"] not in OURS:
            kubernetes_validate.validate(resource, OLDEST, strict=True)
    images = {*re.findall(r"image: (\S+)", done.stdout)}
    assert all(re.fullmatch(r"kneeoa:[\d.]+-[cg]pu", image) for image in images)
    if name.startswith("overlays"):
        (deployment,) = (r for r in rendered if r["kind"] == "Deployment")
        (server,) = deployment["spec"]["template"]["spec"]["initContainers"]
        assert ("nvidia.com/gpu" in server["resources"]["limits"]) == (name == "overlays/gpu")
        assert images == {f"kneeoa:{__version__}-{name[-3:]}"}


def test_compose_gives_each_service_what_it_names():
    compose = yaml.safe_load((CONTAINER / "compose.yaml").read_text())

    assert set(compose["services"]) == {"server", "gateway", "probe", "prometheus", "alertmanager"}
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert (service.get("network_mode") == "service:server") == (name != "server"), name
        assert set(service.get("secrets", ())) <= set(compose["secrets"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (CONTAINER / source).is_file() if source.startswith(".") else source in compose["volumes"]


@needs("promtool", "amtool")
def test_prometheus_and_alertmanager_take_their_files(tmp_path):
    for file in (CONTAINER / "prometheus.yml", MONITORING / "rules.yml"):
        shutil.copy(file, tmp_path)

    subprocess.run(["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, check=True)
    subprocess.run(["amtool", "check-config", CONTAINER / "alertmanager.yml"], check=True)


def test_every_file_that_the_image_copies_is_there_and_let_in():
    text = (CONTAINER / "Containerfile").read_text()
    sources = [word for line in re.findall(r"^COPY (?!--)(.+)$", text, re.M) for word in line.split()[:-1]]
    allowed = {line[1:] for line in (ROOT / ".containerignore").read_text().splitlines() if line.startswith("!")}

    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert Path(source).parts[0] in allowed, source


def test_licences_are_told_however_they_are_written():
    kinds = [
        [{"license": {"id": "MIT"}}],
        [{"expression": "MIT OR Apache-2.0"}],
        [{"license": {"name": "BSD"}}] * 2,
        [],
    ]
    bill = {"components": [{"name": "a", "version": "1", "licenses": kind} for kind in kinds]}

    assert listed(bill) == ["a 1: MIT", "a 1: MIT OR Apache-2.0", "a 1: BSD", "a 1: not said"]
