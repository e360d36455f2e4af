"""Measures how well joint spaces are measured: on phantoms, whose geometry is known, and on real knees with landmarks.

Writes joint_spaces.json and bland_altman.png.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from kneeoa.detection.cascade import Cascade
from kneeoa.detection.detector import Detector
from kneeoa.geometry import KeyPoints, main_joint
from kneeoa.measurement.joint_space import LOADED, joint_spaces
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import Laterality
from training.data.key_points import locate_in_crop
from training.data.knee_kl import Knee, read_knee_kl
from training.data.landmarks import GOOD_FIT, joint_space_mm
from training.evaluation.evaluate import joint_of
from training.synthesis.phantom.anatomy import draw_anatomy, draw_size, surface_y
from training.synthesis.phantom.film import draw_joint
from training.synthesis.phantom.grades import sample_grades
from training.synthesis.phantom.style import STYLES

OFF = 0.02  # of W: how far detected key points are off


def drawn(seed: int, mm: float) -> tuple[np.ndarray, KeyPoints, list[float]]:
    """A phantom joint of the held-out style, its key points, and its true narrowest spaces in mm, lateral and medial."""
    rng = np.random.default_rng(seed)
    grades = sample_grades(rng)
    state = rng.bit_generator.state
    anatomy = draw_anatomy(rng, grades, STYLES["test"], draw_size(rng))
    rng.bit_generator.state = state
    image, knee = draw_joint(rng, grades, style="test", spacing_mm=mm)
    left, right = anatomy.key_points.as_array()[[3, 5], 0]
    shares = (np.linspace(*LOADED, 30), 1 - np.linspace(*LOADED, 30))
    columns = [left + share * (right - left) for share in shares]
    true = [(surface_y(anatomy.plateau, x) - surface_y(anatomy.condyles, x)).min() for x in columns]
    return image, knee.key_points, [max(width, 0.0) for width in true]


def on_phantoms(number: int, mm: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Measured and true widths in mm, (2 n,) each; key points as far off as detected ones are."""
    rng, measured, true = np.random.default_rng(seed), [], []
    for each in range(number):
        image, points, widths = drawn(seed + each, mm)
        moved = points.as_array() + rng.normal(0, OFF * points.width / np.sqrt(2), (6, 2))
        measured += [space.width * mm for space in joint_spaces(image, KeyPoints.from_array(moved))]
        true += widths
    return np.array(measured), np.array(true)


def on_knees(cascade: Cascade, knees: Sequence[Knee]) -> tuple[np.ndarray, np.ndarray]:
    """Narrowest widths as served and landmarks' mean widths in mm, (n, 2) each, lateral and medial; of knees with landmarks."""
    measured, known = [], []
    for knee in knees:
        widths = joint_space_mm(knee)
        if widths is None or knee.mm_per_px is None or knee.fit_score < GOOD_FIT:
            continue
        image = knee.image()
        found = locate_in_crop(cascade, image)
        corner = main_joint(found.box, found.key_points)
        spaces = joint_spaces(joint_of(image, found), found.key_points.shifted(-round(corner.x1), -round(corner.y1)))
        shown = [knee.mm_per_px * space.width for space in spaces]
        measured.append(shown if knee.side is Laterality.RIGHT else shown[::-1])
        known.append(widths)
    return np.array(measured).reshape(-1, 2), np.array(known).reshape(-1, 2)


def agreement(measured: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """Bland and Altman's bias and limits, the mean absolute difference (mm) and Pearson's r, of two series (n,)."""
    off = measured - known
    return {
        "n": len(off),
        "bias": round(float(off.mean()), 3),
        "limits": round(float(1.96 * off.std(ddof=1)), 3),
        "mean_absolute": round(float(np.abs(off).mean()), 3),
        "r": round(float(np.corrcoef(measured, known)[0, 1]), 3),
    }


def draw(series: dict[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Bland–Altman plots side by side: difference against mean, with bias and limits of agreement."""
    figure = Figure(figsize=(4 * len(series), 3.6), layout="constrained")
    for axis, (name, (measured, known)) in zip(
        np.atleast_1d(figure.subplots(1, len(series))), series.items(), strict=True
    ):
        found = agreement(measured, known)
        axis.plot((measured + known) / 2, measured - known, "k.", markersize=4, alpha=0.6)
        for level, line in ((0, "-"), (-1, "--"), (1, "--")):
            axis.axhline(found["bias"] + level * found["limits"], color="0.4", linestyle=line)
        axis.set(title=name, xlabel="mean of both, mm", ylabel="measured − known, mm")
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder in the form of the public KL set, with landmarks"
    )
    parser.add_argument("--split", default="val")
    parser.add_argument("--phantoms", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    cascade = Detector.from_file(WEIGHTS / "detector.safetensors").cascade
    measured, known = on_knees(cascade, read_knee_kl(given.data, given.split))
    series = {f"phantoms, {mm} mm a pixel": on_phantoms(given.phantoms, mm, given.seed) for mm in (0.2, 0.4)}
    series |= {
        f"{given.split} knees, {side}": (measured[:, i], known[:, i]) for i, side in enumerate(("lateral", "medial"))
    }
    found = {name: agreement(*pair) for name, pair in series.items()}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "joint_spaces.json").write_text(json.dumps(found, indent=2) + "\n")
    draw(series).savefig(given.out / "bland_altman.png", dpi=80)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
