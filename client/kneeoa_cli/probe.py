"""Watches a server from outside: are its workers there, and does a radiograph with known grades get them?"""

import json
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kneeoa.messages import Message
from kneeoa.torchserve.metrics import WITHIN
from kneeoa_client.client import Client, ServerError
from kneeoa_client.management import Management

NODES = ("detector", "grader")
MARGIN = 0.05  # grades that lead by less may differ from machine to machine
FRESH = 3  # periods after which the last synthetic radiograph says nothing of now


def sure_grades(reply: Message) -> dict[tuple[str, str], int]:
    """Grade by knee and task, where the most probable one leads by at least `MARGIN`."""
    found = {}
    for knee in reply["knees"]:
        for task, grade in (knee["grades"] or {}).items():
            second, first = sorted(grade["probabilities"] or [0, 0])[-2:]
            if first - second >= MARGIN:
                found[knee["knee"], task] = grade["grade"]
    return found


@dataclass(eq=False)  # a registry keeps it in a dictionary
class Probe(Collector):
    """One server under watch. Workers are looked at whenever somebody asks, the synthetic radiograph is graded by `run`.

    Parameters
    ----------
    client : Client
        Whose key is read anew for each radiograph: a restart changes it.
    management : Management
    film : bytes
        The synthetic radiograph.
    expected : dict
        The reply that it should get.
    every : float
        Seconds between two of them.
    """

    client: Client
    management: Management
    film: bytes = field(repr=False)
    expected: Message = field(repr=False)
    every: float = 30.0
    registry: CollectorRegistry = field(default_factory=CollectorRegistry, repr=False)

    def __post_init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        name, registry = "kneeoa_probe_synthetic", self.registry
        self.seconds = Histogram(f"{name}_seconds", "Synthetic radiographs.", registry=registry, buckets=WITHIN)
        self.outcomes = Counter(f"{name}s", "Synthetic radiographs by outcome.", ["outcome"], registry=registry)
        self.correct = Gauge(f"{name}_correct", "Whether the last one got the expected grades.", registry=registry)
        for outcome in ("right", "wrong", "error", "unreachable"):
            self.outcomes.labels(outcome)
        self._last: tuple[float, str] = (float("-inf"), "no synthetic radiograph was graded yet")
        self._pids: dict[tuple[str, str], int] = {}
        self._restarts: Tally[str] = Tally()
        self._lock = threading.Lock()
        registry.register(self)

    @classmethod
    def find(cls, url: str | None, management: str | None, key_file: Path | None, film: Path, every: float) -> "Probe":
        """The named server, or the one that ``make serve`` started here; the film's expected reply lies beside it.

        Raises
        ------
        ServerError
            If no server is found, or there is no film with its reply.
        """
        try:
            data, expected = film.read_bytes(), json.loads(film.with_suffix(".json").read_text())
        except (OSError, ValueError):
            raise ServerError(
                f"the probe needs a radiograph and its expected reply: {film.name} and {film.stem}.json"
            ) from None
        return cls(Client.find(url, key_file), Management.find(management, key_file), data, expected, every)

    def grade(self) -> str:
        """Have the synthetic radiograph graded: ``right``, ``wrong``, ``error`` or ``unreachable``."""
        began, outcome = time.monotonic(), "unreachable"
        try:
            client = Client.find(self.client.url, self.client.key_file)
            client.headers = {"X-Kneeoa-Probe": "1"}
            reply = client.post(self.film)
            self.seconds.observe(time.monotonic() - began)
            grades = {(k["knee"], task): g["grade"] for k in reply["knees"] for task, g in (k["grades"] or {}).items()}
            right = sure_grades(self.expected).items() <= grades.items()
            outcome = "error" if reply["status"] == "error" else "right" if right else "wrong"
        except ServerError:
            pass
        self.outcomes.labels(outcome).inc()
        self.correct.set(outcome == "right")
        self._last = time.monotonic(), "" if outcome == "right" else f"the synthetic radiograph: {outcome}"
        return outcome

    def run(self, closing: threading.Event) -> None:
        """Grade it again and again, until told to stop."""
        while not closing.is_set():
            self.grade()
            closing.wait(self.every)

    def trouble(self, nodes: dict[str, dict[str, Any]] | None = None) -> list[str]:
        """Why the server is not ready; empty where it is. ``nodes``: what is known of them already."""
        when, said = self._last
        stale = time.monotonic() - when > FRESH * self.every
        reasons = [said or "no synthetic radiograph was graded lately"] if said or stale else []
        nodes = self._nodes() if nodes is None else nodes
        if not nodes:
            return ["no answer from the management address", *reasons]
        return [f"no worker is ready for the {node}" for node in NODES if not _ready(nodes[node])] + reasons

    def collect(self) -> Iterator[Metric]:
        """For Prometheus, at each scrape. Workers' and JVM's numbers are missing where their processes cannot be seen."""
        ready = GaugeMetricFamily("kneeoa_probe_workers_ready", "Workers that are ready.", labels=["node"])
        restarts = CounterMetricFamily("kneeoa_probe_worker_restarts", "Workers that came anew.", labels=["node"])
        queued = GaugeMetricFamily("kneeoa_probe_queued", "Requests that wait for a worker.", labels=["node"])
        memory = GaugeMetricFamily("kneeoa_probe_resident_bytes", "Memory in use.", labels=["process"])
        threads = GaugeMetricFamily("kneeoa_probe_jvm_threads", "Threads of TorchServe's JVM.")
        expiry = GaugeMetricFamily("kneeoa_probe_key_expiry_timestamp_seconds", "When keys expire.", labels=["key"])
        for key, timestamp in self._expiries():
            expiry.add_metric([key], timestamp)
        nodes = self._nodes()
        for node, found in nodes.items():
            ready.add_metric([node], _ready(found))
            queued.add_metric([node], found.get("jobQueueStatus", {}).get("pendingRequests", 0))
            with suppress(psutil.Error):
                workers = [psutil.Process(worker["pid"]) for worker in found["workers"] if worker["pid"] > 0]
                memory.add_metric([node], sum(worker.memory_info().rss for worker in workers))
                jvm = workers and workers[0].parent()
                if jvm and not threads.samples:
                    threads.add_metric([], jvm.num_threads())
                    memory.add_metric(["jvm"], jvm.memory_info().rss)
        for node in NODES:
            restarts.add_metric([node], self._restarts[node])
        yield GaugeMetricFamily("kneeoa_probe_ready", "Whether films are graded rightly now.", not self.trouble(nodes))
        yield from (ready, restarts, queued, memory, threads, expiry)

    def _nodes(self) -> dict[str, dict[str, Any]]:
        """What the management API says of each node, nothing if it is silent; counts the workers that changed since."""
        try:
            nodes = {node: self.management.describe(f"knee_oa__{node}") for node in NODES}
        except ServerError:
            return {}
        with self._lock:
            for node, found in nodes.items():
                for worker in found["workers"]:
                    place, pid = (node, worker["id"]), worker["pid"]
                    if pid > 0:
                        self._restarts[node] += self._pids.get(place, pid) != pid
                        self._pids[place] = pid
        return nodes

    def _expiries(self) -> Iterator[tuple[str, float]]:
        with suppress(OSError, ValueError, KeyError):
            keys = json.loads(self.management.key_file.read_text())
            for name in ("inference", "management"):
                to_the_second = keys[name]["expiration time"][:19]  # of nine decimals, which Python 3.10 does not read
                yield name, datetime.fromisoformat(f"{to_the_second}+00:00").timestamp()


def _ready(found: dict[str, Any]) -> int:
    return sum(worker["status"] == "READY" for worker in found["workers"])


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nobody wants a line a scrape."""


def serve(probe: Probe, address: str, port: int) -> WSGIServer:
    """An HTTP server for ``/metrics`` and ``/ready``, not yet running."""
    metrics = make_wsgi_app(probe.registry)

    def answer(environ: Any, start: Any) -> Any:
        if environ["PATH_INFO"] == "/metrics":
            return metrics(environ, start)
        if environ["PATH_INFO"] != "/ready":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"/metrics or /ready\n"]
        reasons = probe.trouble()
        start("503 Service Unavailable" if reasons else "200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"ready": not reasons, "reasons": reasons}).encode()]

    return make_server(address, port, answer, server_class=_Server, handler_class=_Silent)
