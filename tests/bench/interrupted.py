"""A batch that is cut off three times: Ctrl-C, kill −9 of the client, a restart of the server. Each film exactly once?"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from deploy import server as launcher
from kneeoa_client.management import Management
from tests.bench.soak import good_films
from tests.corpus import REFUSED


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def interrupted(number: int, bad: float, seed: int) -> dict[str, object]:
    """Grade ``number`` films, a share ``bad`` of them malformed, in a run that is cut off three times; the report."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="kneeoa-batch-") as name:
        folder, run, out = Path(name, "films"), Path(name, "run"), Path(name, "results.jsonl")
        journal = out.with_name(out.name + ".journal")
        folder.mkdir()
        good = good_films(12, seed)
        refused = [(data, error.code) for build, error in REFUSED.values() if (data := build())]
        wanted = {}
        for i in range(number):
            film, code = rng.choice(refused) if rng.random() < bad else (rng.choice(good), None)
            (folder / f"{i:05d}.dcm").write_bytes(film)
            wanted[str(folder / f"{i:05d}.dcm")] = code
        port = launcher.free_port()
        try:
            launcher.start(run, port=port)
            Management(f"http://127.0.0.1:{port + 1}", run / "key_file.json").up(8, 50, 1)
            keys = ["--server", f"http://127.0.0.1:{port}", "--key-file", str(run / "key_file.json")]
            command = [sys.executable, "-m", "kneeoa_cli.main", "batch", str(folder), "--out", str(out), *keys]
            codes, began = [], time.monotonic()
            for share, what in ((0.2, signal.SIGINT), (0.4, signal.SIGKILL), (0.6, None)):
                client = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                while lines(journal) < share * number:
                    time.sleep(0.05)
                if what is not None:
                    os.kill(client.pid, what)
                else:
                    launcher.stop(run)
                    launcher.start(run, port=port)
                    Management(f"http://127.0.0.1:{port + 1}", run / "key_file.json").up(8, 50, 1)
                codes.append(client.wait())
            seconds = time.monotonic() - began
            if codes[-1] == 2:  # it did not live through the restart
                codes.append(subprocess.run(command, stdout=subprocess.DEVNULL).returncode)
        finally:
            launcher.stop(run)
        entries = [json.loads(line) for line in journal.read_text().splitlines()]
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    times, told = Counter(entry["film"] for entry in entries), {row["file"]: row["error_code"] for row in rows}
    return {
        "films": number,
        "films_per_second_with_all_interruptions": number / seconds,
        "exit_codes": codes,
        "lost": len(wanted.keys() - times.keys()),
        "twice": sum(count > 1 for count in times.values()),
        "without_a_row": len(wanted.keys() - told.keys()),
        "wrong_code": Counter(
            f"{told.get(film)} not {code}" for film, code in wanted.items() if told.get(film) != code
        ),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=2000)
    parser.add_argument("--bad", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(json.dumps(interrupted(arguments.n, arguments.bad, arguments.seed), indent=2))
