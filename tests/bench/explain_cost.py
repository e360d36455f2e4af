"""What heat maps cost: grading a film's two knees with them against grading alone, in turns, as ratios of one run."""

import argparse
import time
from collections.abc import Sequence
from statistics import median

from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader
from kneeoa.imaging import decode
from kneeoa.tasks import TASKS
from tests.conftest import ROOT, WEIGHTS

ASKED = {"grades only": (), "KL": ("KL",), "KL and FM": ("KL", "FM"), "all eight": tuple(task.name for task in TASKS)}


def seconds(rounds: int) -> dict[str, float]:
    """Median seconds of grading two knees, by what is explained."""
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    grader = Grader.from_file(WEIGHTS / "grader.safetensors")
    knees = detector.detect(decode((ROOT / "samples/moderate_oa.dcm").read_bytes()))[1]

    def once(tasks: Sequence[str]) -> float:
        began = time.perf_counter()
        grader.grade([knee.crop for knee in knees], [knee.side for knee in knees], [tasks] * len(knees))
        return time.perf_counter() - began

    once(ASKED["all eight"])  # the first one is slower
    taken = [{name: once(tasks) for name, tasks in ASKED.items()} for _ in range(rounds)]
    return {name: median(times[name] for times in taken) for name in ASKED}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    found = seconds(parser.parse_args().rounds)
    for name, value in found.items():
        print(f"{name:12} {value / found['grades only']:.2f}")
