"""Starts and stops the monitoring of a running server: `kneeoa probe` and Debian's Prometheus, with the rules beside this."""

import argparse
import json
import re
import shutil
import sys
import time
from pathlib import Path

from deploy.gateway.launcher import FOLDER as GATEWAY
from deploy.processes import DeployError, launch, running, stop
from deploy.server import ROOT, RUN
from kneeoa_client.web import ask

FOLDER = ROOT / ".monitoring"
SOURCES = ROOT / "deploy/monitoring"
START_SECONDS = 30


def configure(folder: Path, targets: dict[str, str], interval: str) -> Path:
    """This run's copy of prometheus.yml: its targets by job, or none, and its scrape and evaluation interval."""
    text = (SOURCES / "prometheus.yml").read_text().replace("15s", interval)
    for job, address in targets.items():
        text = re.sub(rf'(job_name: {job}\b.*\n.*targets: \[)".*"', rf'\1"{address}"' if address else r"\1", text)
    (folder / "prometheus.yml").write_text(text)
    shutil.copy(SOURCES / "rules.yml", folder)
    return folder / "prometheus.yml"


def start(
    folder: Path = FOLDER,
    run: Path = RUN,
    gateway: Path = GATEWAY,
    port: int = 9090,
    interval: str = "15s",
    every: float = 30.0,
) -> None:
    """Start both; returns once Prometheus has scraped server and probe.

    Parameters
    ----------
    run, gateway : Path
        The folders of the server and, where one runs, of the gateway.
    port : int
        Of Prometheus; the probe takes the next one below.
    every : float
        Seconds between synthetic radiographs.

    Raises
    ------
    DeployError
        If Prometheus is not installed, the server does not run, or nothing is scraped.
    """
    if not (tool := shutil.which("prometheus")):
        raise DeployError("Prometheus is not installed; on Debian: apt-get install prometheus")
    if not running(run):
        raise DeployError("no server is running; start it first with: make serve")
    if any(running(folder / name) for name in ("probe", "prometheus")):
        raise DeployError("monitoring is already running here; stop it with: make monitoring-stop")
    server = json.loads((run / "server.json").read_text())
    probe, prometheus = f"127.0.0.1:{port - 1}", f"127.0.0.1:{port}"
    targets = {"torchserve": server["metrics"].removeprefix("http://"), "probe": probe}
    targets["gateway"] = json.loads((gateway / "gateway.json").read_text())["metrics"] if running(gateway) else ""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = configure(folder, targets, interval)
    kneeoa = [str(Path(sys.executable).parent / "kneeoa"), "probe", "--listen", probe, "--every", str(every)]
    kneeoa += [
        "--server",
        server["url"],
        "--management",
        server["management"],
        "--key-file",
        str(run / "key_file.json"),
    ]
    _launch(folder / "probe", kneeoa)
    data = [f"--storage.tsdb.path={folder / 'data'}", "--storage.tsdb.retention.time=30d", "--log.level=warn"]
    _launch(folder / "prometheus", [tool, f"--config.file={config}", *data, f"--web.listen-address={prometheus}"])
    deadline = time.monotonic() + START_SECONDS
    while query(f"http://{prometheus}", 'sum(up{job=~"torchserve|probe"})') != 2:
        if time.monotonic() > deadline:
            end(folder)
            raise DeployError(f"Prometheus scraped nothing; see {folder}/*/log")
        time.sleep(0.1)


def query(prometheus: str, expression: str) -> float | None:
    """The first value of an expression now; None where there is none, or no Prometheus."""
    try:
        answer = ask("GET", f"{prometheus}/api/v1/query", params={"query": expression}, timeout=5).json()
    except OSError:  # requests' exceptions are some
        return None
    found = answer["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def end(folder: Path = FOLDER) -> None:
    """Stop both; what was recorded is kept."""
    for name in ("prometheus", "probe"):
        stop(folder / name)


def _launch(folder: Path, command: list[str]) -> None:
    folder.mkdir(exist_ok=True)
    with open(folder / "log", "ab") as log:
        launch(folder, command, stdout=log, stderr=log)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--port", type=int, default=9090, help="of Prometheus; the probe takes the next one below")
    arguments = parser.parse_args()
    if arguments.action == "stop":
        end()
    else:
        try:
            start(port=arguments.port)
        except DeployError as error:
            sys.exit(str(error))
        print(f"ready: http://127.0.0.1:{arguments.port}; the probe's /metrics and /ready: port {arguments.port - 1}")
