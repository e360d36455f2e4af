"""What the image runs: the server, or the gateway beside it, in the foreground until SIGTERM.

Both write below one folder, which they share: the server leaves its keys there, in ``.run``, where also `kneeoa probe` and
`kneeoa pacs` find them. Whoever stops both stops the gateway first: it lets in nobody more and waits for the films that it has.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import psutil

from deploy import server as torchserve
from deploy.archives import ARCHIVES
from deploy.gateway import launcher
from deploy.processes import DeployError, launch, process_of, running, stop

LOGS = ("console", "ts_log", "model_log")
DRAIN_SECONDS = 75  # a film takes 60 s at most, after up to 25 s in the queue: few do, and clients ask again
WAIT_SECONDS = 180  # for the server's key


def _writable(folder: Path) -> None:
    """`DeployError` where nothing can be written: without a volume a read-only container has no such folder."""
    try:
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError:
        told = f"user {os.getuid()} cannot write to {folder}: mount a volume or a tmpfs there that it may write to"
        raise DeployError(told) from None


def serve(folder: Path, store: Path, port: int, metrics: str, plain_models: bool) -> None:
    """TorchServe with the workflow, and both archives as plain models, until told to stop: also while it starts."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, _leave)
    run = folder / ".run"
    if missing := [name for name in ARCHIVES if not (store / name).is_file()]:
        raise DeployError(
            f"{store} has no {missing[0]}: mount the archives there, or leave --store out for the image's own"
        )
    with _logs(run / "logs"):
        try:
            torchserve.start(run, store, port, plain_models, metrics_host=metrics)
            print("ready: a radiograph was graded", flush=True)
            if process := process_of(run):
                process.wait()
            raise DeployError("TorchServe ended by itself")
        finally:
            torchserve.end(run)


def _leave(*_: object) -> NoReturn:
    """Stop once; a second signal must not end what stops the server."""
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, signal.SIG_IGN)
    sys.exit()


def guard(folder: Path, bind: str, certificate: Path | None, users: Path | None, metrics: str) -> None:
    """HAProxy before the server of this folder, until told to stop; then until its films are answered.

    A server that was restarted has another key: HAProxy takes it without losing a connection.
    """
    stopping = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopping.set())
    run, own = folder / ".run", folder / ".gateway"
    key, deadline = run / "key_file.json", time.monotonic() + WAIT_SECONDS
    while not key.exists() and not stopping.wait(0.2):
        if time.monotonic() > deadline:
            raise DeployError(f"no server has left its key in {run}: both need the same volume")
    if stopping.is_set():
        return
    command = launcher.prepare(own, run, bind, certificate, users, metrics)
    read = key.read_bytes()
    master = launch(own, command)
    try:
        while not stopping.wait(1):
            if not running(own):
                raise DeployError(f"HAProxy ended: is {bind} in use, and the certificate one with its key?")
            with contextlib.suppress(OSError):  # between two servers there is none
                if (now := key.read_bytes()) != read:
                    launcher.reload(own, run, master.pid)
                    read = now
        deadline = time.monotonic() + DRAIN_SECONDS
        while running(own) and time.monotonic() < deadline:
            master.send_signal(signal.SIGUSR1)  # again and again: in the middle of a reload it would be lost
            with contextlib.suppress(psutil.TimeoutExpired):
                master.wait(1)
    finally:
        stop(own)


@contextlib.contextmanager
def _logs(folder: Path) -> Iterator[None]:
    """TorchServe's logs, as they grow, where a container's logs go."""
    tail = subprocess.Popen(["tail", "-q", "-n", "+1", "-F", *(folder / f"{name}.log" for name in LOGS)],
                            stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        yield
    finally:
        tail.terminate()
        tail.wait()


def parser() -> argparse.ArgumentParser:
    """What the command line takes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("server", "gateway"))
    parser.add_argument("--folder", type=Path, default=Path.cwd(), help="that both write to; default: the current one")
    parser.add_argument(
        "--metrics", default="127.0.0.1", metavar="HOST", help="where metrics listen, on their own port"
    )
    server = parser.add_argument_group("server")
    server.add_argument("--store", type=Path, default=torchserve.ROOT / "model_store", help="the archives' folder")
    server.add_argument("--port", type=int, default=8080, help="the first of five")
    told = "the workflow only: half of the memory, and nothing for `kneeoa batch`"
    server.add_argument("--no-plain-models", action="store_true", help=told)
    gateway = parser.add_argument_group("gateway")
    gateway.add_argument("--bind", default="*:8443", help="address and port")
    gateway.add_argument("--certificate", type=Path, help="PEM with key and chain; default: self-signed, for localhost")
    gateway.add_argument("--users", type=Path, help="a token or user:password a line")
    return parser


def main() -> int:
    """The exit code: 0 where it was told to stop, 1 with a sentence where it could not go on."""
    given = parser().parse_args()
    try:
        _writable(given.folder)
        if given.part == "server":
            serve(given.folder, given.store, given.port, given.metrics, not given.no_plain_models)
        else:
            guard(given.folder, given.bind, given.certificate, given.users, given.metrics)
    except DeployError as error:
        told = str(error).replace("make serve PORT=", "--port ")  # there is no make in the image
        print(f"{given.part}: {told}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
