"""Metrics of grades, as Wang et al. 2021 report them and a few more; both kappas are named."""

from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics.functional.classification import (
    binary_auroc,
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_cohen_kappa,
)

CALIBRATION_BINS = 15


def grade_metrics(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float | None]:
    """Metrics of arg-max grades and of their probabilities.

    Parameters
    ----------
    labels : int ndarray (n,)
    probabilities : float ndarray (n, grades)

    Returns
    -------
    dict
        n, top1, kappa_quadratic, kappa, mse, balanced_accuracy (over the grades present), ece; top1_pm1 for ordinal
        tasks, auc for a binary one.
    """
    grades = probabilities.shape[1]
    truth, p = torch.as_tensor(labels), torch.as_tensor(probabilities, dtype=torch.float32)
    found = _of_grades(truth, p.argmax(dim=1), grades)
    recall = multiclass_accuracy(p, truth, grades, average="none")
    found["balanced_accuracy"] = recall[truth.unique()].mean()
    found["kappa"] = multiclass_cohen_kappa(p, truth, grades)
    found["mse"] = ((truth - p.argmax(dim=1)) ** 2).float().mean()
    found["ece"] = multiclass_calibration_error(p, truth, grades, CALIBRATION_BINS)
    if grades == 2:
        found["auc"] = binary_auroc(p[:, 1], truth) if len(truth.unique()) == 2 else torch.tensor(torch.nan)
    return {"n": len(labels), **{name: _rounded(value) for name, value in found.items()}}


def intervals(
    labels: np.ndarray, probabilities: np.ndarray, subjects: Sequence[str], seed: int = 0, draws: int = 1000
) -> dict[str, list[float | None]]:
    """95 % bootstrap intervals; subjects are drawn, not knees, because the two knees of a person are alike."""
    rng = np.random.default_rng(seed)
    names, of_knee = np.unique(np.asarray(subjects), return_inverse=True)
    knees = [np.flatnonzero(of_knee == i) for i in range(len(names))]
    truth, predicted = torch.as_tensor(labels), torch.as_tensor(probabilities.argmax(axis=1))
    samples = []
    for _ in range(draws):
        drawn = np.concatenate([knees[i] for i in rng.integers(len(names), size=len(names))])
        found = _of_grades(truth[drawn], predicted[drawn], probabilities.shape[1])
        samples.append([float(value) for value in found.values()])
    limits = np.percentile(samples, (2.5, 97.5), axis=0).T
    return {name: [_rounded(v) for v in pair] for name, pair in zip(found, limits, strict=True)}


def _rounded(value: float | torch.Tensor) -> float | None:
    """Four digits; None where a metric is not defined, as kappa is where all knees carry one grade."""
    return None if np.isnan(float(value)) else round(float(value), 4)


def _of_grades(truth: torch.Tensor, predicted: torch.Tensor, grades: int) -> dict[str, torch.Tensor]:
    """What is worth an interval: top-1, top ± 1 of ordinal tasks, quadratic kappa."""
    error = (truth - predicted).abs()
    within = {"top1_pm1": (error <= 1).float().mean()} if grades > 2 else {}
    kappa = multiclass_cohen_kappa(predicted, truth, grades, weights="quadratic", validate_args=False)
    return {"top1": (error == 0).float().mean(), **within, "kappa_quadratic": kappa}
