"""Turns an evaluation into report.md, with one picture per task: confusion matrix and reliability diagram."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from matplotlib.figure import Figure

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.tasks import TASKS, Task
from training.evaluation.metrics import CALIBRATION_BINS

PAPER = Path(__file__).parent / "expected_results.yaml"
COLUMNS = {
    "n": "knees", "top1": "top-1", "top1_pm1": "top ± 1", "kappa_quadratic": "quadratic κ", "kappa": "plain κ",
    "mse": "MSE", "balanced_accuracy": "balanced accuracy", "auc": "AUC", "ece": "ECE",
}  # fmt: skip


def draw_task(task: Task, labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """Confusion matrix (rows: label, each row's shares) and reliability diagram; int (n,) and float (n, grades)."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    predicted, counts = probabilities.argmax(axis=1), np.zeros((task.grades, task.grades), int)
    np.add.at(counts, (labels, predicted), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    left.imshow(shares, cmap="Greys", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        left.text(column, row, count, ha="center", va="center", color="w" if shares[row, column] > 0.5 else "k")
    left.set(xlabel="predicted", ylabel="label", title=task.title, xticks=range(task.grades), yticks=range(task.grades))

    confidence, right_ = probabilities.max(axis=1), predicted == labels
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    used = [b for b in range(CALIBRATION_BINS) if (bins == b).any()]
    right.plot([0, 1], [0, 1], color="0.7", linestyle="--")
    right.scatter(
        [confidence[bins == b].mean() for b in used],
        [right_[bins == b].mean() for b in used],
        s=[10 + 300 * (bins == b).mean() for b in used],
        color="k",
    )
    right.set(xlabel="stated probability", ylabel="share that was right", title="reliability", xlim=(0, 1), ylim=(0, 1))
    return figure


def draw_mistakes(joints: Sequence[np.ndarray], labels: np.ndarray, probabilities: np.ndarray) -> Figure:
    """The joints, uint8 (h, w), whose wrong grade was stated with the greatest probability, at most 40; the surest first."""
    predicted, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = [i for i in np.argsort(-sure) if predicted[i] != labels[i]][:40]
    figure = Figure(figsize=(14, 12), layout="constrained")
    panels = figure.subplots(8, 5).ravel()
    for axis in panels:
        axis.axis("off")
    for axis, i in zip(panels, wrong, strict=False):
        axis.imshow(joints[i], cmap="gray")
        axis.set_title(f"label {labels[i]}, graded {predicted[i]} ({100 * sure[i]:.0f} %)", fontsize=9)
    return figure


def draw_log(folder: Path) -> Figure:
    """A run's loss and held-out KL by epoch, from the CSV logs that `train_grader` keeps: one each time it was started."""
    epochs = pd.concat(map(pd.read_csv, sorted(folder.glob("*/metrics.csv")))).groupby("epoch").max()
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axis, columns in zip(figure.subplots(1, 2), (["loss"], ["val/KL_top1", "val/KL_kappa"]), strict=True):
        for column, line in zip(columns, ("k-", "k--"), strict=False):
            if column in epochs:
                axis.plot(epochs.index + 1, epochs[column], line, label=column.replace("_", " "))
        axis.set(xlabel="epoch")
        axis.legend(frameon=False)
    return figure


def write_report(
    out: Path,
    metrics: dict[str, dict[str, Any]],
    cases: dict[str, tuple[np.ndarray, np.ndarray]],
    facts: dict[str, str],
    detection: dict[str, float] | None = None,
    agreement: dict[str, dict[str, float]] | None = None,
    contradictions: dict[str, dict[str, float]] | None = None,
    corruptions: dict[str, dict[str, float | None]] | None = None,
    cohort: str = "",
) -> None:
    """Write ``report.md`` and a PNG per task.

    Parameters
    ----------
    metrics : dict
        By task name, as in metrics.json.
    cases : dict
        By task name: labels int (n,) and probabilities float (n, grades).
    facts : dict
        What was measured on what: a line each.
    detection : dict, optional
        Of key points against landmarks.
    agreement : dict, optional
        As `training.evaluation.evaluate.agreement` gives it.
    contradictions : dict, optional
        As `training.evaluation.evaluate.contradictions` gives it.
    corruptions : dict, optional
        As `training.evaluation.evaluate.robustness` gives it; KL's metrics must be there.
    cohort : str
        Of all knees; the paper's numbers are put beside ours where it reports the same one.
    """
    lines = ["# Evaluation", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    lines += ["| task | " + " | ".join(COLUMNS.values()) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, found in metrics.items():
        cells = ["–" if found.get(key) is None else str(found[key]) for key in COLUMNS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "95 % intervals, bootstrapped by subject:", ""]
    for name, found in metrics.items():
        ranges = ", ".join(
            f"{COLUMNS[key]} {low} … {high}" for key, (low, high) in found["ci95"].items() if low is not None
        )
        lines.append(f"- {name}: {ranges}")
    if theirs := yaml.safe_load(PAPER.read_text()).get(cohort):
        lines += ["", f"Wang et al. 2021 on {cohort} (another split of it, ImageNet weights to start from), top-1:", ""]
        lines += [f"| | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
        ours = {name: found["top1"] for name, found in metrics.items()}
        for row, values in {"here": ours, **theirs}.items():
            lines.append(f"| {row} | " + " | ".join(f"{values[t]:.4f}" if t in values else "–" for t in metrics) + " |")
    for name, found in (agreement or {}).items():
        lines += ["", f"Spearman's ρ, {name.replace('_', ' ')}: {found['spearman']} ({found['n']} knees)."]
    for name, found in (contradictions or {}).items():
        lines += ["", f"{name}: {100 * found['share']:.1f} % of {found['n']} knees."]
    if corruptions:
        rows, keys = {"none": metrics["KL"], **corruptions}, ("top1", "top1_pm1", "kappa_quadratic")
        lines += ["", "KL under corruptions, each with its strength:", ""]
        lines += ["| | " + " | ".join(COLUMNS[key] for key in keys) + " |", "|---" * (len(keys) + 1) + "|"]
        lines += [f"| {name} | " + " | ".join(str(found[key]) for key in keys) + " |" for name, found in rows.items()]
    if detection:
        lines += ["", f"Key points against landmarks ({detection['n']} knees): mean error "
                  f"{detection['key_point_error_percent_of_w']} % of W, {detection['key_point_error_mm']} mm; "
                  f"box IoU {detection['iou']}."]  # fmt: skip
    for task in TASKS:
        if task.name in cases:
            draw_task(task, *cases[task.name]).savefig(out / f"{task.name}.png", dpi=110)
            lines += ["", f"![{task.title}]({task.name}.png)"]
    (out / "report.md").write_text("\n".join([*lines, "", DISCLAIMER, ""]))
