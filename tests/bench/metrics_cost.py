"""What the metrics cost a request: two servers, one told of no metrics at all, asked in turns; as a ratio of one run."""

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from deploy import server as launcher
from kneeoa_client.client import Client
from tests.conftest import ROOT

NOTHING = "dimensions: []\nts_metrics: {}\nmodel_metrics:\n  counter: []\n"


def seconds(number: int, film: bytes) -> np.ndarray:
    """Seconds of ``number`` requests, (number, 2): without metrics and with them."""
    with tempfile.TemporaryDirectory(prefix="kneeoa-bench-") as folder, ExitStack() as stack:
        silent = Path(folder, "nothing.yaml")
        silent.write_text(NOTHING)
        servers = []
        for name, metrics in (("without", silent), ("with", ROOT / "handlers/metrics.yaml")):
            run = Path(folder, name)
            stack.callback(launcher.stop, run)
            launcher.start(run, port=launcher.free_port(), metrics=metrics)
            address = json.loads((run / "server.json").read_text())
            servers.append(Client.find(address["url"], run / "key_file.json"))

        def once(client: Client) -> float:
            began = time.perf_counter()
            client.post(film)
            return time.perf_counter() - began

        taken = np.empty((number + 10, 2))
        for at, row in enumerate(taken):
            for which in (0, 1) if at % 2 else (1, 0):
                row[which] = once(servers[which])
        return taken[10:]  # the first ones warm up


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0, help="of the confidence interval's bootstrap")
    arguments = parser.parse_args()
    taken = seconds(arguments.number, (ROOT / "samples/bilateral.dcm").read_bytes())
    rng = np.random.default_rng(arguments.seed)
    drawn = rng.integers(len(taken), size=(2000, len(taken)))
    medians = np.median(taken[drawn], axis=1)
    low, high = np.quantile(medians[:, 1] / medians[:, 0], (0.025, 0.975))
    ratio = np.divide(*np.median(taken, axis=0)[::-1])
    print(
        f"median request with metrics against without: {ratio:.3f} ({low:.3f} … {high:.3f}), {arguments.number} each in turns"
    )
