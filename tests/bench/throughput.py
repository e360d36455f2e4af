"""Films a second: the networks alone in one process, the workflow, and batches of plain models; as ratios of one run.

The machine is noisy, so all ways take turns in each round, and the median over the rounds is told.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from deploy import server as launcher
from kneeoa import KneeOA
from kneeoa_cli.batch import run as batch
from kneeoa_client.client import Client
from kneeoa_client.management import Management
from tests.bench.soak import good_films

BATCHES = (1, 4, 8)
DELAY_MS = 50


def rates(number: int, rounds: int, seed: int) -> dict[str, list[float]]:
    """Films a second of each way, one value a round."""
    films = good_films(number, seed)
    service = KneeOA()
    measured: dict[str, list[float]] = {}

    def measure(way: str, work: Callable[[], object]) -> None:
        began = time.monotonic()
        work()
        measured.setdefault(way, []).append(number / (time.monotonic() - began))

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
                measure("networks in one process", lambda: list(service.grade_many(films, batch=1)))
                measure("workflow, one by one", lambda: [client.post(film) for film in films])
                for size in BATCHES:
                    management.up(size, DELAY_MS, 1)
                    results = Path(folder, f"{at}-{size}.csv")
                    batch(
                        [str(source / "000.dcm")], results.with_suffix(".jsonl"), client, 1
                    )  # the first one is slower
                    measure(f"batch mode, {size}", lambda r=results, n=size: batch([str(source)], r, client, 2 * n))  # type: ignore[misc]
                management.down()
        finally:
            launcher.stop(run)
    return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    told = {way: median(values) for way, values in rates(arguments.films, arguments.rounds, arguments.seed).items()}
    bare, one_by_one = told["networks in one process"], told["workflow, one by one"]
    print(f"{'':26} {'against the networks':>22} {'against one by one':>20}")
    for way, rate in told.items():
        print(f"{way:26} {rate / bare:>22.2f} {rate / one_by_one:>20.2f}")
