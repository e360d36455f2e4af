"""Weights files of small random networks."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from kneeoa.grading.network import build_network
from kneeoa.grading.patches import Preprocessing
from kneeoa.tasks import TASKS
from kneeoa.weights import save_weights


def small_grader(path: Path, patch: int = 64, learned: str = "nothing", **architecture: Any) -> Path:
    """A grader on a backbone of a fifth of a million parameters, with grey input; written to ``path``."""
    architecture = {"network": "siamese", "backbone": "test_efficientnet", **architecture}
    metadata = {
        "kind": "grader",
        "version": "0",
        "architecture": architecture,
        "preprocessing": asdict(Preprocessing(patch=patch, mean=(0.5,), std=(0.5,))),
        "provenance": {task.name: learned for task in TASKS},
    }
    save_weights(path, build_network(**architecture, channels=1).state_dict(), metadata)
    return path
