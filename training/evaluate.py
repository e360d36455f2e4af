"""Measures the shipped weights on crops of knee joints: metrics.json, predictions.csv, report.md with its figures.

A crop takes the serving code's path from the key points on: key points → main joint → patches → networks.
"""

import argparse
import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from kneeoa.detection.cascade import Found
from kneeoa.detection.detector import Detector
from kneeoa.geometry import KeyPoints, crop, main_joint
from kneeoa.grading.grader import GradedKnee, Grader
from kneeoa.imaging.prepare import prepare_single
from kneeoa.tasks import TASKS, Laterality, Task
from training.data.key_points import locate_in_crop
from training.data.knee_kl import DataError, Knee, read_knee_kl
from training.metrics import grade_metrics, intervals
from training.report import write_report

WEIGHTS = Path(__file__).resolve().parent.parent / "model_src/weights"
BATCH = 32


@dataclass(frozen=True)
class Result:
    """A knee, where its joint was found (crop pixels) and how it was graded."""

    knee: Knee
    found: Found
    graded: GradedKnee


def grade_crops(knees: Sequence[Knee], detector: Detector, grader: Grader) -> list[Result]:
    """Every knee's result, in order."""
    results = []
    for start in tqdm(range(0, len(knees), BATCH), unit_scale=BATCH, unit="knee", disable=None):
        batch = knees[start : start + BATCH]
        images = [knee.image() for knee in batch]
        found = [locate_in_crop(detector.cascade, image) for image in images]
        joints = [
            crop(prepare_single(image.astype(np.float32)), main_joint(f.box, f.key_points))
            for image, f in zip(images, found, strict=True)
        ]
        graded = grader.grade(joints, [knee.side for knee in batch])
        results += [Result(*each) for each in zip(batch, found, graded, strict=True)]
    return results


def labelled(results: Iterable[Result], task: Task) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels (n,), probabilities (n, grades) and subjects of the knees that carry the task's label and were graded for it."""
    used = [r for r in results if task.name in r.knee.grades]
    if task.compartment:  # serving withholds these where the side is unknown
        used = [r for r in used if r.knee.side is not Laterality.UNKNOWN]
    probabilities = [r.graded.probabilities[task.name] for r in used]
    labels = np.array([r.knee.grades[task.name] for r in used], int)
    return labels, np.array(probabilities).reshape(-1, task.grades), [r.knee.subject for r in used]


def detection_metrics(results: Iterable[Result]) -> dict[str, float] | None:
    """IoU and key-point error of knees with good landmarks; None if there are none."""
    marked = [(r, r.knee.key_points, r.knee.mm_per_px) for r in results if r.knee.well_marked]
    if not marked:
        return None
    errors = np.array([error_in_w(r.found.key_points, truth) for r, truth, _ in marked if truth])
    in_mm = [e * truth.width * mm for e, (_, truth, mm) in zip(errors, marked, strict=True) if truth and mm]
    return {
        "n": len(marked),
        "iou": round(float(np.mean([r.found.box.iou(truth.knee_box()) for r, truth, _ in marked if truth])), 4),
        "key_point_error_percent_of_w": round(100 * float(errors.mean()), 2),
        "key_point_error_mm": round(float(np.mean(in_mm)), 2),
    }


def error_in_w(found: KeyPoints, truth: KeyPoints) -> float:
    """Mean distance of the six points as a share of the true W."""
    return float(np.linalg.norm(found.as_array() - truth.as_array(), axis=1).mean() / truth.width)


def write_predictions(path: Path, results: Sequence[Result], tasks: Sequence[Task]) -> None:
    """One row a knee: label (empty where unknown), grade, expected grade and probabilities of each task."""
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        columns = [
            [f"{t.name}_label", t.name, f"{t.name}_expected", *(f"{t.name}_p{g}" for g in range(t.grades))]
            for t in tasks
        ]
        writer.writerow(["file", "subject", "side", "score", *(name for group in columns for name in group)])
        for r in results:
            row: list[Any] = [r.knee.name, r.knee.subject, r.knee.side.value, round(r.found.score, 4)]
            for task in tasks:
                p = r.graded.probabilities[task.name]
                expected = round(float(p @ np.arange(task.grades)), 4)
                row += [r.knee.grades.get(task.name, ""), int(p.argmax()), expected, *(round(float(v), 5) for v in p)]
            writer.writerow(row)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--split", default="val", help="of labels.csv; all rows where it has no such column")
    parser.add_argument("--tasks", default=",".join(t.name for t in TASKS), help="comma-separated")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    given = parser.parse_args(arguments)
    wanted = given.tasks.upper().replace("-", "_").split(",")
    if unknown := set(wanted) - {t.name for t in TASKS}:
        parser.error(f"unknown tasks {sorted(unknown)}; there are {[t.name for t in TASKS]}")
    try:
        knees = read_knee_kl(given.data, given.split)
    except DataError as error:
        parser.error(str(error))
    tasks = [t for t in TASKS if t.name in wanted]
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    grader = Grader.from_file(WEIGHTS / "grader.safetensors", "cuda" if torch.cuda.is_available() else "cpu")
    results = grade_crops(knees, detector, grader)
    metrics: dict[str, dict[str, Any]] = {}
    cases = {}
    for task in tasks:
        labels, probabilities, subjects = labelled(results, task)
        if len(labels):
            cases[task.name] = labels, probabilities
            metrics[task.name] = grade_metrics(labels, probabilities)
            metrics[task.name]["ci95"] = intervals(labels, probabilities, subjects, given.seed)
    detection = detection_metrics(results)
    given.out.mkdir(parents=True, exist_ok=True)
    whole = metrics | ({"detection": detection} if detection else {})
    (given.out / "metrics.json").write_text(json.dumps(whole, indent=2) + "\n")
    write_predictions(given.out / "predictions.csv", results, tasks)
    facts = {
        "data": f"{given.data.resolve().name}, split {given.split}, {len(knees)} knees, crops of one joint each",
        "detector": detector.identity["sha256"][:12],
        "grader": grader.identity["sha256"][:12],
        "learned from": "; ".join(f"{t.name}: {grader.provenance[t.name]}" for t in tasks if t.name in metrics),
    }
    write_report(given.out, metrics, cases, detection, facts)
    print((given.out / "report.md").read_text())


if __name__ == "__main__":
    main()
