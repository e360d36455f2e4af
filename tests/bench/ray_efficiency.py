"""What Ray costs: films a second of a bare loop, of one actor and of two, as ratios of one run; the start is not counted.

The ways take turns in each round, and the median over the rounds is told. Needs two cores that nobody else uses.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import ray

from kneeoa import KneeOA
from kneeoa_cli.engines.actors import LONGEST, Detect, one_thread
from kneeoa_cli.engines.ray import Pool, connect
from kneeoa_cli.files.inputs import walk
from kneeoa_cli.files.remote import Stores
from tests.bench.soak import good_films

BLOCK = 8  # films


def rate(answers: Iterable[object], at_once: int) -> float:
    """Films a second from the first ``at_once`` answers on: what they waited for is the start."""
    times = [time.monotonic() for _ in answers]
    return (len(times) - at_once) / (times[-1] - times[at_once - 1])


def rates(number: int, rounds: int, seed: int) -> dict[str, list[float]]:
    """Films a second of each way, one value a round."""
    measured: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="kneeoa-ray-") as folder:
        some = good_films(12, seed)
        for i in range(number):
            Path(folder, f"{i:05}.dcm").write_bytes(some[i % len(some)])
        films = list(walk([folder]))
        one_thread()
        service = KneeOA()
        connect(None, num_cpus=2)
        asked = {"stores": Stores(), "any_view": False, "identify": False, "longest": LONGEST}

        def actors(many: int) -> float:
            # each actor's first block comes after its start
            return rate(Pool(Detect, asked, many).answers(films, BLOCK), 2 * many * BLOCK)

        ways: dict[str, Callable[[], float]] = {
            "a bare loop": lambda: rate(service.grade_many([film.path for film in films], batch=BLOCK), BLOCK),
            "one actor": lambda: actors(1),
            "two actors": lambda: actors(2),
        }
        for _ in range(rounds):
            for way, measure in ways.items():
                measured.setdefault(way, []).append(measure())
        ray.shutdown()
    return measured


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = {way: median(values) for way, values in rates(given.films, given.rounds, given.seed).items()}
    told = {
        "one actor / a bare loop": found["one actor"] / found["a bare loop"],
        "two actors / twice one": found["two actors"] / (2 * found["one actor"]),
    }
    print(json.dumps({**found, **told}, indent=2))
