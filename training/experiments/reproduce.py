"""The paper on OAI and MOST as released, from nothing to its tables: manifest → crops → training → evaluation.

Of each cohort a Siamese network and one that sees the joint in one piece are trained, and measured on the cohort's test part,
alone and as an ensemble; those of OAI on all of MOST too. Everything lies below ``--out``, and a second call goes on where
the first one stopped. The end writes ``reproduction.md`` and ``reproduction.json``.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from kneeoa.detection.detector import Detector
from kneeoa.disclaimer import DISCLAIMER
from kneeoa.grading.grader import Grader
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import TASKS
from kneeoa.weights import WeightsError
from training.config import CONFIGS, ConfigError, read_config
from training.data.cut_crops import main as cut_crops
from training.data.knee_kl import DataError, Knee, read_knee_kl, read_parts
from training.data.make_manifest import main as make_manifest
from training.data.manifest import read_manifest
from training.data.most import KL_19
from training.data.schema import SPLITS
from training.evaluation.evaluate import grade_crops, measure
from training.evaluation.report import PAPER
from training.experiments.ablate import table
from training.fitting.grader_module import GraderConfig
from training.fitting.joint_dataset import real_joints
from training.fitting.train_grader import train

COHORTS = ("OAI", "MOST")
NETWORKS = {"Siamese": "siamese", "whole joint": "whole"}
MEMBERS = {"Siamese": ["Siamese"], "ensemble": ["Siamese", "whole joint"]}
TRANSFER = "OAI-to-MOST"
METRICS = {"top1": "Top-1", "top1_pm1": "Top ± 1", "kappa_quadratic": "Quadratic κ"}

Found = dict[str, dict[str, Any]]  # by row of a table, by task: metrics


def prepare(cohort: str, folder: Path, out: Path, split: str, options: Sequence[str], workers: Sequence[str]) -> Path:
    """The cohort's manifest and crops; returns the crops' folder."""
    manifest, crops = out / f"{cohort}.parquet", out / "crops" / cohort
    if not manifest.exists():
        make_manifest([cohort.lower(), str(folder), "--out", str(manifest), "--split", split, *options, *workers])
    cut_crops([str(manifest), "--data", str(folder), "--out", str(crops), *workers])
    return crops


def counted(manifest: Path, crops: Path) -> dict[str, int]:
    """Knees, those found, and how the split shares these."""
    labels = pd.read_csv(crops / "labels.csv", usecols=["split"])
    sizes = labels["split"].value_counts()
    return {"knees": len(read_manifest(manifest)), "found": len(labels)} | {
        part: int(sizes.get(part, 0)) for part in SPLITS
    }


def learned(
    crops: Path, config: GraderConfig, detector: Detector, out: Path, per_knee: bool, given: argparse.Namespace
) -> dict[str, Path]:
    """The weights of each network, trained on one cohort."""
    learn, held_out = read_parts([crops], "val", per_knee)
    real, judged = (real_joints(part, detector.cascade) for part in (learn, held_out))
    kept = {name: value for name, value in config.architecture.items() if name not in ("network", "gate")}
    weights = {}
    for name, network in NETWORKS.items():
        gate = {"gate": config.architecture.get("gate", "vector")} if network == "siamese" else {}
        own = replace(config, architecture=kept | {"network": network} | gate)
        source = f"{crops.name}'s readers"
        weights[name] = train(real, judged, own, out / network, given.seed, given.init, f"real labels: {source}")
    return weights


def measured(knees: Sequence[Knee], detector: Detector, weights: dict[str, Path], seed: int) -> Found:
    """Metrics of the Siamese network and of the ensemble."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    graders = {
        row: Grader.from_file(*(weights[name] for name in names), device=device) for row, names in MEMBERS.items()
    }
    return {row: measure(grade_crops(knees, detector, grader), TASKS, seed)[0] for row, grader in graders.items()}


def report(knees: dict[str, dict[str, int]], found: dict[str, Found]) -> str:
    """Markdown: ours and the paper's, table by table."""
    paper = yaml.safe_load(PAPER.read_text())
    parts = ("knees", "found", *SPLITS)
    lines = [
        "# Wang et al. 2021 on OAI and MOST",
        "",
        "Its numbers are marked as the paper's; – is what it does not give.",
        "",
    ]
    lines += [
        "## Knees found, and the split",
        "",
        f"| | {' | '.join(parts)} | share found |",
        "|---" * (len(parts) + 2) + "|",
    ]
    for cohort in COHORTS:
        for who, numbers in (("here", knees[cohort]), ("the paper", paper["knees"][cohort])):
            cells = [str(numbers[part]) for part in parts]
            share = f"{100 * numbers['found'] / max(numbers['knees'], 1):.2f} %"
            lines.append(f"| {cohort}, {who} | {' | '.join(cells)} | {share} |")
    for name, rows in found.items():
        title = "Learned on OAI, measured on all of MOST" if name == TRANSFER else f"{name}, its test part"
        lines += ["", f"## {title}"]
        for metric, words in METRICS.items():
            theirs = paper[name] if metric == "top1" and name in COHORTS else paper.get(metric, {}).get(name, {})
            both = {f"{row}, here": metrics for row, metrics in rows.items()}
            both |= {f"{row}, the paper": {t: {metric: v} for t, v in values.items()} for row, values in theirs.items()}
            if metric in paper.get(name, {}):
                both["Tiulpin & Saarakkala 2020"] = {t: {metric: v} for t, v in paper[name][metric].items()}
            lines += ["", f"### {words}", "", *table(both, metric)]
    return "\n".join([*lines, "", DISCLAIMER, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oai", type=Path, required=True, help="folder of OAI's tables and films")
    parser.add_argument("--most", type=Path, required=True, help="folder of MOST's; may be the same")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=CONFIGS / "paper/siamese.yaml")
    parser.add_argument("--init", type=Path, help="a timm backbone's ImageNet weights, to start from")
    parser.add_argument(
        "--split",
        choices=("per-knee", "by-subject"),
        default="per-knee",
        help="the paper's by knee leaks between visits",
    )
    parser.add_argument(
        "--kl-19", choices=KL_19, default="2", help="what MOST's KL 1.9 is taken for; the paper does not say"
    )
    parser.add_argument("--quick", action="store_true", help="decode the films only when they are cut")
    parser.add_argument("--workers", help="processes; one a core by default")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    options = ["--seed", str(given.seed), "--kl-19", given.kl_19, *(["--quick"] if given.quick else [])]
    workers = ["--workers", given.workers] if given.workers else []
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    try:
        config = read_config(GraderConfig, given.config)  # what is wrong with it is told before hours of work
        crops, weights, knees = {}, {}, {}
        for cohort, folder in zip(COHORTS, (given.oai, given.most), strict=True):
            crops[cohort] = prepare(cohort, folder, given.out, given.split, options, workers)
            knees[cohort] = counted(given.out / f"{cohort}.parquet", crops[cohort])
        for cohort in COHORTS:
            own = given.out / "runs" / cohort
            weights[cohort] = learned(crops[cohort], config, detector, own, given.split == "per-knee", given)
        found = {c: measured(read_knee_kl(crops[c], "test"), detector, weights[c], given.seed) for c in COHORTS}
        found[TRANSFER] = measured(read_knee_kl(crops["MOST"], None), detector, weights["OAI"], given.seed)
    except (ConfigError, DataError, WeightsError) as error:
        parser.error(str(error))
    (given.out / "reproduction.json").write_text(json.dumps({"knees": knees, **found}, indent=2) + "\n")
    (given.out / "reproduction.md").write_text(report(knees, found))
    print((given.out / "reproduction.md").read_text())


if __name__ == "__main__":
    main()
