"""Writes the population that the weights are at home in, which drift is measured against: model_src/weights/reference.json.

The films are composed from val knees, as `training.evaluation.evaluate_films` composes them, but of knees drawn at random only.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kneeoa.detection.detector import Detector
from kneeoa.detection.message import detection_of
from kneeoa.grading.grader import Grader
from kneeoa.imaging import decode
from kneeoa.messages import Message
from kneeoa.pipeline import WEIGHTS
from kneeoa.reply import joints_of, replies_of
from kneeoa.tasks import TASKS
from kneeoa.torchserve.metrics import Reference
from training.evaluation.evaluate_films import composed_films
from training.synthesis.dicom_writer import to_dicom

INTENSITY_BINS = 10
SCORE_EDGES = [0.95, 0.99, 0.999, 1.0]  # most scores lie above the last but one
LEAST_SHARE = 0.001  # an empty bin would make the index infinite; deploy/monitoring/rules.yml says the same

GradedJoint = tuple[Message, np.ndarray]


def graded_joints(films: Iterable[bytes], detector: Detector, grader: Grader) -> list[GradedJoint]:
    """The graded knees of some files, as replies have them, each with its main joint."""
    knees: list[GradedJoint] = []
    for data in films:
        detection = detection_of(detector, decode(data))
        joints = joints_of(detection, frozenset())
        (reply,) = replies_of([(detection, joints)], grader)
        graded = [knee for knee in reply["knees"] if knee["status"] == "graded"]
        knees += zip(graded, [image for image, *_ in joints], strict=True)
    return knees


def counts(knees: Iterable[GradedJoint], reference: Reference) -> dict[str, list[int]]:
    """Knees by quantity and bin."""
    seen = Counter(pair for knee, joint in knees for pair in reference.bins(knee, joint))
    sizes = {task.name: task.grades for task in TASKS} | {
        name: len(edges) + 1 for name, edges in reference.edges.items()
    }
    return {name: [seen[name, step] for step in range(size)] for name, size in sizes.items()}


def reference_of(knees: list[GradedJoint]) -> Reference:
    """The shares of these knees, with bins of intensity that hold about equally many."""
    inner = np.arange(1, INTENSITY_BINS) / INTENSITY_BINS
    intensity = np.quantile([joint.mean() for _, joint in knees], inner).round(2).tolist()
    edges = {"score": SCORE_EDGES, "intensity": intensity}
    found = counts(knees, Reference(edges))
    return Reference(edges, {name: [round(n / sum(seen), 4) for n in seen] for name, seen in found.items()})


def population_stability_index(expected: Iterable[float], seen: Iterable[float]) -> float:
    """Of two lists of shares or counts by bin: the sum of (q − p) ln(q / p). Above 0.25 is commonly called a shift."""
    p, q = (np.maximum(np.array(list(x), float) / np.sum(list(x)), LEAST_SHARE) for x in (expected, seen))
    return float(((q - p) * np.log(q / p)).sum())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--films", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "reference.json")
    given = parser.parse_args(arguments)
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    grader = Grader.from_file(WEIGHTS / "grader.safetensors")
    number = given.films * 4 // 3  # a quarter have landmarks
    composed = [f for f in composed_films(given.data, number, given.seed, detector) if not f.landmarked]
    films = (to_dicom(film.film, **film.stored) for film in tqdm(composed, unit="film", disable=None))
    knees = graded_joints(films, detector, grader)
    reference = reference_of(knees)
    stored: dict[str, Any] = {
        "population": f"{len(knees)} knees of {len(composed)} films composed from val knees, seed {given.seed}",
        "detector": detector.identity["sha256"],
        "grader": grader.identity["sha256"],
        "edges": reference.edges,
        "shares": reference.shares,
    }
    given.out.write_text(json.dumps(stored, indent=1) + "\n")
    halves = (counts(part, reference) for part in (knees[::2], knees[1::2]))
    for (task, one), other in zip(next(halves).items(), next(halves).values(), strict=True):
        print(f"{task:<10} every other knee against the rest: {population_stability_index(one, other):.3f}")


if __name__ == "__main__":
    main()
