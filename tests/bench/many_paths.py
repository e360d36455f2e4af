"""Memory and pace of `kneeoa batch` over very many paths, asked of a server that answers at once: its own cost, no networks'."""

import argparse
import json
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import psutil

from tests.unit.fake_server import Fake

STEPS = 10


def measure(number: int, in_flight: int) -> list[tuple[int, float, float]]:
    """Films answered, films a second since the step before, and MB of the client, at each tenth of ``number`` films."""
    fake, told = Fake(), []
    fake.headers = deque(maxlen=1)  # it would keep those of every request
    with tempfile.TemporaryDirectory(prefix="kneeoa-bench-") as name:
        folder = Path(name)
        for i in range(number):
            film = folder / f"films/{i // 1000:03d}/{i:06d}.dcm"
            film.parent.mkdir(parents=True, exist_ok=True)
            film.write_bytes(b"film %d" % i)
        (folder / "key.json").write_text(json.dumps({"inference": {"key": fake.key}}))
        address = ("--server", f"http://127.0.0.1:{fake.http.server_port}", "--key-file", str(folder / "key.json"))
        command = [str(Path(sys.executable).parent / "kneeoa"), "batch", str(folder / "films"), *address]
        client = psutil.Popen([*command, "--out", str(folder / "table.csv"), "--in-flight", str(in_flight)])
        before, since = 0, time.monotonic()
        while client.poll() is None:
            time.sleep(0.1)  # how often it is looked at
            answered = len(fake.seen) // 2
            since = since if answered else time.monotonic()  # the paths are counted first
            if answered >= before + number / STEPS:
                now = time.monotonic()
                told.append((answered, (answered - before) / (now - since), client.memory_info().rss / 1e6))
                before, since = answered, now
        if client.returncode:
            raise SystemExit(f"kneeoa batch ended with {client.returncode}")
    fake.http.shutdown()
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=100_000, help="paths")
    parser.add_argument("--in-flight", type=int, default=8)
    arguments = parser.parse_args()
    steps = measure(arguments.n, arguments.in_flight)
    _, first_pace, first_memory = steps[0]
    print("| films | pace against the first tenth's | memory | against the first tenth's |\n|---|---|---|---|")
    for films, pace, memory in steps:
        print(f"| {films} | {pace / first_pace:.2f} | {memory:.0f} MB | {memory / first_memory:.2f} |")
