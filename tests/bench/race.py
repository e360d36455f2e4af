"""How many replies TorchServe's workflow engine loses: requests whose answer takes no time at all, many at once.

An empty body is answered by both nodes within a millisecond. Without the floor under a reply's time (``least_seconds`` in
handlers/*.yaml) some replies come before the engine waits for them; those requests end at the engine's time-out.
"""

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from deploy import server as launcher
from deploy.archives import build
from kneeoa_client.client import WORKFLOW, Client
from tests.conftest import ROOT

TIMEOUT_MS = 2000  # of the engine, in place of a minute


def lost(least_seconds: float, delay_ms: int, in_flight: Sequence[int], number: int) -> list[int]:
    """Of ``number`` requests each, how many were not answered, for each number in flight; with a server of its own.

    ``delay_ms`` is what a node waits for a batch to fill.
    """
    with tempfile.TemporaryDirectory(prefix="kneeoa-race-") as folder:
        configs, run, store = Path(folder, "configs"), Path(folder, "run"), Path(folder, "store")
        shutil.copytree(ROOT / "handlers", configs)
        for path, key, value in (
            *((configs / f"{name}.yaml", "least_seconds", least_seconds) for name in ("detector", "grader")),
            *((configs / f"{name}.yaml", "maxBatchDelay", delay_ms) for name in ("detector", "grader")),
            (configs / "workflow.yaml", "max-batch-delay", delay_ms),
            (configs / "workflow.yaml", "timeout-ms", TIMEOUT_MS),
        ):
            path.write_text(re.sub(rf"(?<={key}: )\S+", str(value), path.read_text()))
        build(store, configs)
        try:
            launcher.start(run, store, launcher.free_port())
            url = json.loads((run / "server.json").read_text())["url"]
            client = Client.find(url, run / "key_file.json")

            def one(_: int) -> bool:
                headers = {"Authorization": f"Bearer {client.key}"}
                answer = requests.post(f"{url}/{WORKFLOW}", headers=headers, timeout=60)
                return "schema" not in answer.json()

            counts = []
            for clients in in_flight:
                with ThreadPoolExecutor(clients) as pool:
                    counts.append(sum(pool.map(one, range(number))))
            return counts
        finally:
            launcher.stop(run)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=2000, help="requests for each setting")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[4, 12, 64])
    parser.add_argument("--floors", type=float, nargs="+", default=[0.0, 0.02], help="seconds")
    parser.add_argument("--delay", type=int, default=5, help="milliseconds for a batch to fill")
    arguments = parser.parse_args()
    for floor in arguments.floors:
        counts = lost(floor, arguments.delay, arguments.in_flight, arguments.number)
        for clients, count in zip(arguments.in_flight, counts, strict=True):
            print(f"floor {floor * 1000:.0f} ms, {clients} in flight: {count} of {arguments.number} lost", flush=True)
