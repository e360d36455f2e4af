"""Metrics of ordinal grades, as Wang et al. 2021 report them; both kappas are named."""

import numpy as np
from sklearn.metrics import cohen_kappa_score


def ordinal_metrics(labels: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """n, top-1, top ± 1, quadratic and plain kappa, and mean squared error of arg-max grades."""
    error = np.abs(labels - predicted)
    return {
        "n": len(labels),
        "top1": round(float((error == 0).mean()), 4),
        "top1_pm1": round(float((error <= 1).mean()), 4),
        "kappa_quadratic": round(float(cohen_kappa_score(labels, predicted, weights="quadratic")), 4),
        "kappa": round(float(cohen_kappa_score(labels, predicted)), 4),
        "mse": round(float((error**2).mean()), 4),
    }
