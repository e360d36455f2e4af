"""Compiles a grader for a runtime, and holds what comes out against PyTorch before anybody is graded by it."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from kneeoa.grading.grader import Grader
from kneeoa.grading.runtime import RUNTIMES, RuntimeRefused, compile_graphs, load_graphs
from kneeoa.tasks import Laterality
from kneeoa.weights import Weights

TOLERANCE = 0.01  # of a probability, against float32 in PyTorch


def compile_grader(weights: Weights, runtime: str, folder: Path, joints: Sequence[np.ndarray]) -> float:
    """Write what ``runtime`` runs into ``folder``; the most that a probability of ``joints``, uint8 (h, w), moved.

    Raises
    ------
    RuntimeRefused
        If that is more than `TOLERANCE`, or the runtime cannot be had here.
    """
    if runtime not in RUNTIMES[1:]:
        raise RuntimeRefused(f"a grader is compiled for one of {', '.join(RUNTIMES[1:])}")
    if not joints:
        raise RuntimeRefused("there is no knee to compare runtimes on")
    plain = Grader(weights)
    compile_graphs(runtime, [member.graph for member in plain.members], weights.sha256, folder)
    load_graphs(folder, weights.sha256, len(plain.members))  # says why, where it cannot be
    moved = largest_difference(plain, Grader(weights, compiled=folder), joints)
    if not moved <= TOLERANCE:
        raise RuntimeRefused(f"{runtime} moves a probability by {moved:.3f}, and {TOLERANCE} is allowed")
    return moved


def largest_difference(one: Grader, other: Grader, joints: Sequence[np.ndarray], batch: int = 8) -> float:
    """Between the probabilities that two graders give joints, uint8 (h, w), over all tasks."""
    moved = []
    for start in range(0, len(joints), batch):
        some = list(joints[start : start + batch])
        for a, b in zip(*(grader.grade(some, [Laterality.RIGHT] * len(some)) for grader in (one, other)), strict=True):
            moved += [np.abs(a.probabilities[task] - b.probabilities[task]).max() for task in a.probabilities]
    return float(np.max(moved))  # NaN where there is one, which Python's own would miss


def compiled_here(weights: Weights, runtime: str, joints: Sequence[np.ndarray]) -> Path:
    """The folder in the user's cache with what ``runtime`` runs; compiled where there is none that fits.

    Raises
    ------
    RuntimeRefused
        As by `compile_grader`.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "kneeoa" / f"{weights.sha256[:16]}-{runtime}-{torch.__version__}"
    try:
        load_graphs(folder, weights.sha256, len(weights.members))
    except RuntimeRefused:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as made:  # nobody finds half of it, or what was refused
            compile_grader(weights, runtime, Path(made, "compiled"), joints)
            shutil.rmtree(folder, ignore_errors=True)
            Path(made, "compiled").rename(folder)
    return folder
