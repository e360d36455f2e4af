"""The paper's ablation on whatever data it is given: whole joint → + Siamese → + OA task → + gate, and the ensemble.

Trains the four networks with one configuration and one seed, measures them on the held-out part and writes ablation.md and
ablation.json. Each run lies in a folder of its own under ``--out`` and goes on where it stopped.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kneeoa.detection.detector import Detector
from kneeoa.disclaimer import DISCLAIMER
from kneeoa.grading.grader import Grader
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import OA, TASKS
from kneeoa.weights import WeightsError
from training.config import CONFIGS, ConfigError, read_config
from training.data.knee_kl import DataError, read_parts
from training.evaluation.evaluate import grade_crops, measure
from training.fitting.grader_module import GraderConfig
from training.fitting.joint_dataset import real_joints
from training.fitting.train_grader import train

WITHOUT_OA = [task.name for task in TASKS if task is not OA]
STEPS: dict[str, dict[str, Any]] = {
    "whole joint": {"network": "whole", "tasks": WITHOUT_OA},
    "+ Siamese": {"network": "siamese", "gate": "none", "tasks": WITHOUT_OA},
    "+ OA task": {"network": "siamese", "gate": "none"},
    "+ gate": {"network": "siamese", "gate": "vector"},
}
ENSEMBLE = ("whole joint", "+ gate")


def table(found: dict[str, dict[str, dict[str, Any]]], metric: str) -> list[str]:
    """Markdown: a row a network, a column a task."""
    names = [
        t.name for t in TASKS if any(t.name in metrics and metric in metrics[t.name] for metrics in found.values())
    ]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for step, metrics in found.items():
        cells = [metrics.get(name, {}).get(metric) for name in names]
        lines.append(f"| {step} | " + " | ".join("–" if cell is None else str(cell) for cell in cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="folders in the form of the public KL set")
    parser.add_argument("--split", default="val", help="the part to measure on")
    parser.add_argument("--config", type=Path, default=CONFIGS / "paper/siamese.yaml")
    parser.add_argument("--init", type=Path, help="a timm backbone's weights to start each network from")
    parser.add_argument("--per-knee", action="store_true", help="people may be in both parts, as in the paper's split")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    graders: dict[str, Path] = {}
    try:
        config = read_config(GraderConfig, given.config)
        learn, held_out = read_parts(given.data, given.split, given.per_knee)
        real, judged = (real_joints(part, detector.cascade) for part in (learn, held_out))
        kept = {name: value for name, value in config.architecture.items() if name not in ("network", "gate", "tasks")}
        for number, (step, changes) in enumerate(STEPS.items()):
            own = replace(config, architecture=kept | changes)
            graders[step] = train(real, judged, own, given.out / f"{number}", given.seed, given.init)
    except (ConfigError, DataError, WeightsError) as error:
        parser.error(str(error))
    chosen = {step: [path] for step, path in graders.items()} | {"ensemble": [graders[s] for s in ENSEMBLE]}
    found = {
        step: measure(grade_crops(held_out, detector, Grader.from_file(*members)), TASKS, given.seed)[0]
        for step, members in chosen.items()
    }
    (given.out / "ablation.json").write_text(json.dumps(found, indent=2) + "\n")
    lines = [
        "# Ablation",
        "",
        f"{len(learn)} knees to learn from, {len(held_out)} held out.",
    ]
    for title, metric in (("Top-1", "top1"), ("Top ± 1", "top1_pm1"), ("Quadratic κ", "kappa_quadratic")):
        lines += ["", f"## {title}", "", *table(found, metric)]
    (given.out / "ablation.md").write_text("\n".join([*lines, "", DISCLAIMER, ""]))
    print((given.out / "ablation.md").read_text())


if __name__ == "__main__":
    main()
