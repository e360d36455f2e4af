"""Makes the grader that is served out of one or several trained ones, calibrated: a probability means what it says.

Each member's logits, and the log of the members' mean, are divided by a temperature per task (Guo et al. 2017), so no arg-max
grade changes. Fitted on val; judged on people the fit did not see, in five folds.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GroupKFold

import kneeoa
from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import TASKS
from kneeoa.weights import Weights, WeightsError, read_weights, save_weights
from training.data.knee_kl import DataError, Knee, read_knee_kl
from training.evaluation.evaluate import grade_crops, labelled
from training.evaluation.metrics import grade_metrics

GRID = np.exp(np.linspace(np.log(0.25), np.log(4), 161))


def scaled(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities float (n, grades) as if their logits had been divided by ``temperature``."""
    logits = np.log(np.clip(probabilities, 1e-9, 1)) / temperature
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def best_temperature(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """The temperature of the smallest negative log-likelihood; int (n,) and float (n, grades)."""
    picked = [np.log(scaled(probabilities, t)[np.arange(len(labels)), labels]).mean() for t in GRID]
    return float(GRID[int(np.argmax(picked))])


def held_out(labels: np.ndarray, probabilities: np.ndarray, subjects: list[str]) -> np.ndarray:
    """Probabilities scaled by temperatures fitted on other people."""
    result = np.empty_like(probabilities)
    for fitted, judged in GroupKFold(5).split(labels, groups=subjects):
        result[judged] = scaled(probabilities[judged], best_temperature(labels[fitted], probabilities[fitted]))
    return result


def temperatures_of(grader: Grader, knees: Sequence[Knee], detector: Detector) -> dict[str, float]:
    """A temperature for each task that has labels; prints what it does to the calibration error."""
    results, found = grade_crops(knees, detector, grader), {}
    for task in TASKS:
        labels, probabilities, subjects = labelled(results, task)
        if len(labels):
            found[task.name] = round(best_temperature(labels, probabilities), 4)
            before, after = (
                grade_metrics(labels, p)["ece"] for p in (probabilities, held_out(labels, probabilities, subjects))
            )
            print(f"{task.name}: temperature {found[task.name]}, ECE {before} → {after} (people not fitted on)")
    return found


def combined(members: Sequence[Weights]) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and metadata of the file that holds all members; one alone keeps its form."""
    if len(members) == 1:
        return members[0].tensors, members[0].metadata
    tensors = {f"{i}.{name}": value for i, member in enumerate(members) for name, value in member.tensors.items()}
    stored = [{**member.metadata, "sha256": member.sha256} for member in members]
    return tensors, {"kind": "grader", "version": kneeoa.__version__, "members": stored}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--split", default="val")
    parser.add_argument("--grader", type=Path, nargs="+", required=True, help="weights to calibrate; several: ensemble")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    try:
        knees = read_knee_kl(given.data, given.split)
        members = [member for path in given.grader for member in read_weights(path, "grader").members]
    except (DataError, WeightsError) as error:
        parser.error(str(error))
    calibrated = []
    for member in members:
        bare = replace(member, metadata={**member.metadata, "temperatures": {}})
        print(Grader(bare).members[0].name)
        fitted = temperatures_of(Grader(bare, device=device), knees, detector)
        calibrated.append(replace(member, metadata={**member.metadata, "temperatures": fitted}))
    tensors, metadata = combined(calibrated)
    if len(members) > 1:
        print("mean")
        metadata["mean_temperatures"] = temperatures_of(Grader(*calibrated, device=device), knees, detector)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save_weights(given.out, tensors, metadata)
    print(given.out)


if __name__ == "__main__":
    main()
