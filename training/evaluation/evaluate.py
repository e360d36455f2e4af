"""Measures weights, the shipped ones by default, on crops of knee joints.

Writes metrics.json, predictions.csv, mistakes.png and report.md with figures.

A crop takes the serving code's path from the key points on: key points → main joint → patches → networks.
"""

import argparse
import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from tqdm import tqdm

from kneeoa.detection.cascade import Found
from kneeoa.detection.detector import Detector
from kneeoa.geometry import KeyPoints, crop, main_joint
from kneeoa.grading.grader import GradedKnee, Grader
from kneeoa.imaging.prepare import prepare_single
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import KL, NARROWINGS, OSTEOPHYTES, TASKS, Laterality, Task
from kneeoa.weights import WeightsError
from training.data.key_points import locate_in_crop
from training.data.knee_kl import DataError, Knee, read_knee_kl
from training.data.landmarks import joint_space_mm
from training.evaluation.metrics import grade_metrics, intervals
from training.evaluation.report import draw_mistakes, write_report
from training.synthesis.corruptions import CORRUPTIONS, MIDDLE, corrupted

BATCH = 32


@dataclass(frozen=True)
class Result:
    """A knee, where its joint was found (crop pixels) and how it was graded."""

    knee: Knee
    found: Found
    graded: GradedKnee


def grade_crops(
    knees: Sequence[Knee], detector: Detector, grader: Grader, corrupt: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> list[Result]:
    """Every knee's result, in order; ``corrupt`` is done to each crop, uint8 (h, w), first."""
    results = []
    for start in tqdm(range(0, len(knees), BATCH), unit_scale=BATCH, unit="knee", disable=None):
        batch = knees[start : start + BATCH]
        images = [corrupt(knee.image()) for knee in batch]
        found = [locate_in_crop(detector.cascade, image) for image in images]
        joints = [joint_of(image, f) for image, f in zip(images, found, strict=True)]
        graded = grader.grade(joints, [knee.side for knee in batch])
        results += [Result(*each) for each in zip(batch, found, graded, strict=True)]
    return results


def joint_of(image: np.ndarray, found: Found) -> np.ndarray:
    """The main joint of a crop, prepared and cut as serving does, uint8 (h, w)."""
    return crop(prepare_single(image.astype(np.float32)), main_joint(found.box, found.key_points))


def labelled(results: Iterable[Result], task: Task) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Labels (n,), probabilities (n, grades) and subjects of the knees that carry the task's label and were graded for it."""
    used = [r for r in results if task.name in r.knee.grades and task.name in r.graded.probabilities]
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


def agreement(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Spearman's ρ of expected grades with what ought to go with them, where knees carry it; for lack of readings.

    Narrowing against the joint-space width measured between landmarks (negative is right), the sum of the four osteophyte
    grades against KL (positive is right).
    """

    def expected(result: Result, *names: str) -> float:
        return sum(float(p @ np.arange(len(p))) for p in map(result.graded.probabilities.get, names) if p is not None)

    spaces = [(r, joint_space_mm(r.knee)) for r in results if r.knee.well_marked]
    pairs: dict[str, list[tuple[float, float]]] = {
        "JSN_L_vs_lateral_jsw": [(expected(r, "JSN_L"), mm[0]) for r, mm in spaces if mm],
        "JSN_M_vs_medial_jsw": [(expected(r, "JSN_M"), mm[1]) for r, mm in spaces if mm],
        "osteophytes_vs_KL": [
            (expected(r, *OSTEOPHYTES), r.knee.grades["KL"]) for r in results if "KL" in r.knee.grades
        ],
    }
    return {
        name: {"n": len(values), "spearman": round(float(spearmanr(*zip(*values, strict=True)).statistic), 4)}
        for name, values in pairs.items()
        if len(values) > 2 and len(set(values)) > 2
    }


def contradictions(results: Sequence[Result]) -> dict[str, dict[str, float]]:
    """Shares of knees whose compartment grades cannot be, by the KL that a reader gave them."""

    def most(result: Result, names: Iterable[str]) -> int:
        return max(int(result.graded.probabilities[name].argmax()) for name in names)

    graded = [
        r for r in results if "KL" in r.knee.grades and {*NARROWINGS, *OSTEOPHYTES} <= set(r.graded.probabilities)
    ]
    none = [most(r, (*NARROWINGS, *OSTEOPHYTES)) >= 2 for r in graded if r.knee.grades["KL"] == 0]
    narrowed = [most(r, NARROWINGS) == 0 for r in graded if r.knee.grades["KL"] >= 3]
    found = {"KL 0 with a feature of grade 2 or more": none, "KL 3 or 4 without narrowing": narrowed}
    return {name: {"n": len(seen), "share": round(float(np.mean(seen)), 4)} for name, seen in found.items() if seen}


def measure(
    results: Sequence[Result], tasks: Sequence[Task], seed: int
) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Metrics with their intervals, and the labels and probabilities they are of, by name of each task that has labels."""
    metrics, cases = {}, {}
    for task in tasks:
        labels, probabilities, subjects = labelled(results, task)
        if len(labels):
            cases[task.name] = labels, probabilities
            ci95 = intervals(labels, probabilities, subjects, seed)
            metrics[task.name] = {**grade_metrics(labels, probabilities), "ci95": ci95}
    return metrics, cases


def corruption(text: str) -> list[tuple[str, float]]:
    """``NAME``, ``NAME:STRENGTH`` or ``all``, as pairs; for argparse."""
    name, _, strength = text.partition(":")
    if name not in (*CORRUPTIONS, "all") or not 0 < float(strength or MIDDLE) <= 3:
        raise ValueError(text)
    return [(each, float(strength or MIDDLE)) for each in (CORRUPTIONS if name == "all" else [name])]


def robustness(
    knees: Sequence[Knee], detector: Detector, grader: Grader, corruptions: Sequence[tuple[str, float]], seed: int
) -> dict[str, dict[str, float | None]]:
    """KL's top-1, top ± 1 and quadratic κ under each corruption, by name and strength."""
    found = {}
    for name, strength in corruptions:
        corrupt = partial(corrupted, name=name, strength=strength, rng=np.random.default_rng(seed))
        metrics = grade_metrics(*labelled(grade_crops(knees, detector, grader, corrupt), KL)[:2])
        found[f"{name}:{strength:g}"] = {key: metrics[key] for key in ("top1", "top1_pm1", "kappa_quadratic")}
    return found


def write_predictions(path: Path, results: Sequence[Result], tasks: Sequence[Task]) -> None:
    """One row per knee: label (empty where unknown), grade, expected grade and probabilities of each task."""
    tasks = [t for t in tasks if t.name in results[0].graded.probabilities]
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--split", default="val", help="of labels.csv; all rows where it has no such column")
    parser.add_argument("--tasks", default=",".join(t.name for t in TASKS), help="comma-separated")
    parser.add_argument("--detector", type=Path, default=WEIGHTS / "detector.safetensors")
    parser.add_argument(
        "--grader", type=Path, nargs="+", default=[WEIGHTS / "grader.safetensors"], help="several: ensemble"
    )
    parser.add_argument(
        "--corrupt", type=corruption, nargs="+", default=[], metavar="NAME[:STRENGTH]",
        help=f"measure KL under these too, strength 1 … 3, 2 unless given: all, {', '.join(CORRUPTIONS)}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap and of corruptions")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    parser = _parser()
    given = parser.parse_args(arguments)
    wanted = given.tasks.upper().replace("-", "_").split(",")
    if unknown := set(wanted) - {t.name for t in TASKS}:
        parser.error(f"unknown tasks {sorted(unknown)}; there are {[t.name for t in TASKS]}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        knees = read_knee_kl(given.data, given.split)
        detector = Detector.from_file(given.detector)
        grader = Grader.from_file(*given.grader, device=device)
    except (DataError, WeightsError) as error:
        parser.error(str(error))
    tasks = [t for t in TASKS if t.name in wanted]
    results = grade_crops(knees, detector, grader)
    metrics, cases = measure(results, tasks, given.seed)
    detection, rank, wrong = detection_metrics(results), agreement(results), contradictions(results)
    corruptions = [pair for pairs in given.corrupt for pair in pairs]
    robust = robustness(knees, detector, grader, corruptions, given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    named = ("detection", detection), ("agreement", rank), ("contradictions", wrong), ("corruptions", robust)
    whole = metrics | {name: found for name, found in named if found}
    (given.out / "metrics.json").write_text(json.dumps(whole, indent=2) + "\n")
    write_predictions(given.out / "predictions.csv", results, tasks)
    if KL.name in cases:
        shown = [joint_of(r.knee.image(), r.found) for r in results if KL.name in r.knee.grades]
        draw_mistakes(shown, *cases[KL.name]).savefig(given.out / "mistakes.png", dpi=90)
    facts = {
        "data": f"{given.data.resolve().name}, split {given.split}, {len(knees)} knees, crops of one joint each",
        "detector": detector.identity["sha256"][:12],
        "grader": " + ".join(f"{member.name} {member.sha256[:12]}" for member in grader.members),
        **{f"{name} learned from": grader.provenance[name] for name in metrics},
    }
    cohorts = {knee.cohort for knee in knees}
    write_report(
        given.out, metrics, cases, facts, detection, rank, wrong, robust, cohorts.pop() if len(cohorts) == 1 else ""
    )
    print((given.out / "report.md").read_text())


if __name__ == "__main__":
    main()
