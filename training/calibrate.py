"""Scales a grader's logits so that a probability means what it says: one temperature per task, kept in the weights.

Guo et al. 2017. The arg-max grade never changes. Fitted on val; judged on people the fit did not see, in five folds.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from sklearn.model_selection import GroupKFold

from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader
from kneeoa.tasks import TASKS
from kneeoa.weights import read_weights, save_weights
from training.data.knee_kl import read_knee_kl
from training.evaluate import WEIGHTS, grade_crops, labelled
from training.metrics import grade_metrics

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--split", default="val")
    parser.add_argument("--grader", type=Path, required=True, help="weights to calibrate")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    weights = read_weights(given.grader, "grader")
    weights.metadata["temperatures"] = {}
    grader = Grader(weights, "cuda" if torch.cuda.is_available() else "cpu")
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    results = grade_crops(read_knee_kl(given.data, given.split), detector, grader)
    temperatures = {}
    for task in TASKS:
        labels, probabilities, subjects = labelled(results, task)
        if len(labels):
            temperatures[task.name] = round(best_temperature(labels, probabilities), 4)
            before, after = (
                grade_metrics(labels, p)["ece"] for p in (probabilities, held_out(labels, probabilities, subjects))
            )
            print(f"{task.name}: temperature {temperatures[task.name]}, ECE {before} → {after} (people not fitted on)")
    save_weights(given.out, weights.tensors, weights.metadata | {"temperatures": temperatures})


if __name__ == "__main__":
    main()
