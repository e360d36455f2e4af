"""The night shift: many clients send good and bad films through the gateway while workers and the server are killed.

Every film must be answered, the good ones exactly as on a quiet server. The server and the gateway are started for this
run alone. Prints a report; the exit code says whether anything was lost, silent or different.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import requests

from deploy import server as launcher
from deploy.gateway import launcher as gateway
from deploy.processes import process_of
from kneeoa_client.client import Client, ServerError
from kneeoa_client.management import Management
from tests.corpus import REFUSED
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film

FILMS = 12
LONGEST = 30.0  # s; no single request may take more
REST = 60.0  # s that the server rests before it is weighed
FAULTS = {0.2: "detector", 0.4: "grader", 0.6: "server"}  # share of the films answered → what is killed


@dataclass
class Recording(Client):
    """A client that keeps what each single request took and got."""

    sent: list[tuple[float, int]] = field(default_factory=list)

    def _send(self, body: bytes, endpoint: str, side: str | None) -> requests.Response:
        began = time.monotonic()
        status = 0
        try:
            answer = super()._send(body, endpoint, side)
            status = answer.status_code
            return answer
        finally:
            self.sent.append((time.monotonic() - began, status))


def good_films(number: int, seed: int) -> list[bytes]:
    """Phantom films, stored in every way."""
    rng = np.random.default_rng(seed)
    stored = [
        {"monochrome1": i % 2 == 1, "bits": (8, 10, 12, 16)[i % 4], "compress": i % 3 == 0} for i in range(number)
    ]
    return [to_dicom(draw_film(rng), **how) for how in stored]


def processes(run: Path, node: str = "knee_oa__{}") -> dict[str, psutil.Process]:
    """The JVM and a worker of each of the workflow's two nodes (``node="{}"``: of the plain models), by name."""
    children = process_of(run).children(recursive=True)
    found = {"jvm": next(p for p in children if p.name() == "java")}
    for name in ("detector", "grader"):
        workers = management(run).describe(node.format(name))["workers"]
        found[name] = psutil.Process(int(workers[0]["pid"]))
    return found


def management(run: Path) -> Management:
    return Management(json.loads((run / "server.json").read_text())["management"], run / "key_file.json")


def weigh(run: Path) -> dict[str, dict[str, float]]:
    """Threads and resident MB of each process."""
    return {
        name: {"threads": process.num_threads(), "MB": process.memory_info().rss / 2**20}
        for name, process in processes(run).items()
    }


def difference(a: dict[str, Any], b: dict[str, Any]) -> str | None:
    """How two replies to one film differ, None where they say the same, probabilities within 0.001."""
    if a["status"] != b["status"]:
        return f"{b['status']} became {a['error']['code'] if a['error'] else a['status']}"
    for x, y in zip(a["knees"], b["knees"], strict=True):
        if (x["knee"], x["status"], x["box"]) != (y["knee"], y["status"], y["box"]):
            return "knees differ"
        for task, grade in (x["grades"] or {}).items():
            p, q = grade["probabilities"], y["grades"][task]["probabilities"]
            if grade["grade"] != y["grades"][task]["grade"] or not np.allclose(p or 0, q or 0, atol=1e-3):
                return "grades differ"
    return None


class Faults(threading.Thread):
    """Kills what `FAULTS` says once so many films are answered; a server that was killed is started anew."""

    def __init__(self, run: Path, port: int, folder: Path, total: int) -> None:
        super().__init__(daemon=True)
        self.run_folder, self.port, self.folder, self.total = run, port, folder, total
        self.answered, self.changed, self.recoveries = 0, threading.Condition(), {}
        self.weights: dict[str, dict[str, float]] = {}

    def one_more(self) -> None:
        with self.changed:
            self.answered += 1
            self.changed.notify()

    def run(self) -> None:
        for share, victim in FAULTS.items():
            with self.changed:
                self.changed.wait_for(lambda share=share: self.answered >= share * self.total)
            began = time.monotonic()
            if victim == "server":
                self.weights = weigh(self.run_folder)  # a restart would hide what the kills have left behind
                launcher.stop(self.run_folder)
                launcher.start(self.run_folder, port=self.port)
                gateway.refresh(self.folder, self.run_folder)
            else:
                process = processes(self.run_folder)[victim]
                process.send_signal(signal.SIGKILL)
                while True:  # until TorchServe has another worker that is ready
                    node = management(self.run_folder).describe(f"knee_oa__{victim}")
                    if any(w["status"] == "READY" and int(w["pid"]) != process.pid for w in node["workers"]):
                        break
                    time.sleep(0.2)
            self.recoveries[f"{victim} killed at {share:.0%}"] = time.monotonic() - began


def soak(number: int, clients: int, bad: float, seed: int, rest: float = REST) -> dict[str, Any]:
    """Run it; the report."""
    rng = random.Random(seed)
    good = good_films(FILMS, seed)
    refused = [(data, error.code) for build, error in REFUSED.values() if (data := build())]
    work = [rng.choice(refused) if rng.random() < bad else (rng.choice(good), None) for _ in range(number)]
    folder = Path(tempfile.mkdtemp(prefix="kneeoa-soak-"))
    run, door, port = folder / "run", folder / "gateway", launcher.free_port()
    try:
        launcher.start(run, port=port)
        bind = f"127.0.0.1:{launcher.free_port()}"
        gateway.start(door, run, bind)
        os.environ["REQUESTS_CA_BUNDLE"] = str(door / "tls.pem")
        client = Recording.find(f"https://{bind}", door / "key_file.json")
        quiet = {film: client.post(film) for film in good}
        if rest:  # it will be weighed: pools and heaps at the size that this load needs
            with ThreadPoolExecutor(clients) as pool:
                list(pool.map(client.post_patiently, good * 4))
        before = weigh(run)
        client.sent.clear()
        faults, told = Faults(run, port, door, number), Counter[str]()
        faults.start()

        def one(item: tuple[bytes, str | None]) -> None:
            film, code = item
            try:
                reply = client.post_patiently(film)
            except ServerError as error:
                told[f"lost ({error})"] += 1
            else:
                answer = reply["error"]["code"] if reply["error"] else "graded"
                differs = (answer != code and f"{answer} not {code}") if code else difference(reply, quiet[film])
                told[f"different: {differs}" if differs else answer] += 1
            faults.one_more()

        began = time.monotonic()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(one, work))
        seconds = time.monotonic() - began
        faults.join()
        time.sleep(rest)
        after = weigh(run)
    finally:
        gateway.stop(door)
        launcher.stop(run)
        os.environ.pop("REQUESTS_CA_BUNDLE", None)
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    took = np.array([t for t, _ in client.sent])
    quantiles = dict(zip(("p50", "p95", "p99", "max"), np.percentile(took, (50, 95, 99, 100)).tolist(), strict=True))
    return {
        "films": number,
        "clients": clients,
        "films_per_second": number / seconds,
        "answers": dict(told),
        "requests": dict(Counter(str(status or "broken") for _, status in client.sent)),
        "latency_s": quantiles,
        "recovery_s": faults.recoveries,
        "before": before,
        "before_the_restart": faults.weights,
        "after": after,
    }


def faults_of(report: dict[str, Any], longest: float = LONGEST) -> list[str]:
    """What must not be: films without an answer or with another one, requests that hang."""
    answers = report["answers"]
    wrong = [f"{n} {kind}" for kind, n in answers.items() if kind.startswith(("different", "lost"))]
    if sum(answers.values()) != report["films"]:
        wrong.append(f"{report['films'] - sum(answers.values())} silent")
    if report["latency_s"]["max"] > longest:
        wrong.append(f"a request took {report['latency_s']['max']:.0f} s")
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=5000, help="films")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--bad", type=float, default=0.3, help="share of malformed films")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    told = soak(arguments.n, arguments.clients, arguments.bad, arguments.seed)
    print(json.dumps(told, indent=2))
    problems = faults_of(told)
    raise SystemExit("; ".join(problems) if problems else 0)
