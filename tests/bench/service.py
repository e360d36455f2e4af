"""The server against the same networks in one process: one film after the other, many in flight, batches; start and memory.

All ways take turns in each round, since machines are noisy.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import requests

from deploy import server as launcher
from kneeoa import KneeOA
from kneeoa_cli.batch import run as batch
from kneeoa_client.client import Client
from kneeoa_client.management import Management
from tests.bench.soak import processes
from tests.e2e.waiting import until

BARE = "bare networks, one process"
ALONE = "workflow, one film after the other"
OTHER = "LitServe, one film after the other"
BATCHES = (1, 4, 8)
DELAY_MS = 50


@contextmanager
def litserve(runtime: str) -> Iterator[Callable[[bytes], None]]:
    """Posts a film to a LitServe of its own."""
    port = launcher.free_port()
    command = [sys.executable, "-m", "tests.bench.litserve_films", str(port), runtime]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)

    def post(film: bytes) -> None:
        body = {"film": base64.b64encode(film).decode()}
        requests.post(f"http://127.0.0.1:{port}/predict", json=body, timeout=60).raise_for_status()

    try:
        until(lambda: _healthy(port), 120)
        yield post
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers outlive it otherwise
        process.wait()


def _healthy(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/health", timeout=1).ok
    except requests.RequestException:
        return False


def seconds_a_film(
    films: Sequence[bytes], rounds: int, in_flight: Sequence[int], runtime: str
) -> dict[str, list[float]]:
    """Seconds a film of each way, one value a round; of a film alone its whole wait. ``runtime`` is the archives'."""
    service = KneeOA(runtime=runtime)
    taken: dict[str, list[float]] = {}

    def measure(way: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        taken.setdefault(way, []).append((time.monotonic() - began) / len(films))

    with tempfile.TemporaryDirectory(prefix="kneeoa-bench-") as folder:
        source, run = Path(folder, "films"), Path(folder, "run")
        source.mkdir()
        for i, film in enumerate(films):
            (source / f"{i:03d}.dcm").write_bytes(film)
        try:
            launcher.start(run, port=launcher.free_port())
            address, keys = json.loads((run / "server.json").read_text()), run / "key_file.json"
            client, management = Client.find(address["url"], keys), Management.find(address["management"], keys)
            for at in range(rounds):
                measure(BARE, lambda: list(service.grade_many(films, batch=1)))
                with litserve(runtime) as post:
                    post(films[0])  # the first one is slower
                    measure(OTHER, lambda post=post: [post(film) for film in films])  # type: ignore[misc]
                measure(ALONE, lambda: [client.post(film) for film in films])
                for number in in_flight:
                    with ThreadPoolExecutor(number) as pool:
                        measure(f"workflow, {number} in flight", lambda pool=pool: list(pool.map(client.post, films)))  # type: ignore[misc]
                for size in BATCHES:
                    management.up(size, DELAY_MS, 1)
                    table = Path(folder, f"{at}-{size}.csv")
                    batch([str(source / "000.dcm")], table.with_suffix(".jsonl"), client, 1)  # as above
                    measure(
                        f"`kneeoa batch`, batches of {size}", partial(batch, [str(source)], table, client, 2 * size)
                    )
                management.down()
        finally:
            launcher.stop(run)
    return taken


def starts(rounds: int) -> dict[str, float]:
    """Seconds until a server has graded a film and until ``kneeoa --version`` has answered, least of the rounds; MB a worker."""
    told: dict[str, float] = {}

    def least(name: str, value: float) -> None:
        told[name] = min(value, told.get(name, value))

    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="kneeoa-bench-") as folder:
            run, began = Path(folder, "run"), time.monotonic()
            try:
                launcher.start(run, port=launcher.free_port())
                least("start of a server, s", time.monotonic() - began)
                for name, process in processes(run).items():
                    least(f"memory of the {name} after a film, MB", process.memory_info().rss / 1e6)
            finally:
                launcher.stop(run)
        began = time.monotonic()
        subprocess.run([Path(sys.executable).parent / "kneeoa", "--version"], check=True, stdout=subprocess.DEVNULL)
        least("`kneeoa --version`, s", time.monotonic() - began)
    return told
