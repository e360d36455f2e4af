"""Fits how a right knee is told from a left one, and writes model_src/weights/handedness.json.

Least squares on real knees, moved and scaled a little as the detector's boxes are, and on phantoms.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kneeoa.detection.handedness import HEIGHT, WIDTH, asymmetry
from kneeoa.geometry import Box
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import Laterality
from training.data.knee_kl import Knee, read_knee_kl
from training.synthesis.phantom import draw_joint

JOINT = 0.5, 0.5625  # where the joint's centre lies on a crop of the public set, as shares of its sides
RIDGE = 10.0
LIMIT = 0.2


def real(rng: np.random.Generator, knees: Sequence[Knee]) -> np.ndarray:
    """Asymmetries of right knees and of mirrored left ones, float (n, WIDTH / 2 · HEIGHT)."""
    rows = []
    for knee in knees:
        image = knee.image()
        side = image.shape[1] * rng.normal(1, 0.06)
        x, y = (np.array(JOINT) + rng.normal(0, 0.025, 2)) * image.shape[::-1]
        sign = 1 if knee.side is Laterality.RIGHT else -1
        rows.append(sign * asymmetry(image.astype(np.float32), Box.square((x, y), side)))
    return np.array(rows)


def drawn(rng: np.random.Generator, number: int) -> np.ndarray:
    """The same of phantoms."""
    joints = (draw_joint(rng) for _ in range(number))
    return np.array([asymmetry(image.astype(np.float32), knee.box) for image, knee in joints]).reshape(number, -1)


def fit(rows: np.ndarray) -> np.ndarray:
    """Weights that give right knees 1; mirrored, the same rows give −1."""
    return np.linalg.solve(rows.T @ rows + RIDGE * np.eye(rows.shape[1]), rows.sum(axis=0))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--knees", type=int, default=5778)
    parser.add_argument("--phantoms", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS / "handedness.json")
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(given.seed)
    known = [knee for knee in read_knee_kl(given.data, "train") if knee.side is not Laterality.UNKNOWN]
    chosen = [known[i] for i in rng.permutation(len(known))[: given.knees]]
    weights = fit(np.concatenate([real(rng, chosen), drawn(rng, given.phantoms)]))
    judged = [knee for knee in read_knee_kl(given.data, "val") if knee.side is not Laterality.UNKNOWN]
    read = real(rng, judged) @ weights
    by_subject: dict[str, list[float]] = {}
    for knee, value in zip(judged, read, strict=True):
        by_subject.setdefault(knee.subject, []).append(value)
    pairs = np.array([np.mean(values) for values in by_subject.values() if len(values) == 2])
    phantoms = drawn(np.random.default_rng(given.seed + 1), given.phantoms) @ weights
    for name, values in (("val knees", read), ("val pairs", pairs), ("phantoms", phantoms)):
        false, caught = (values < -LIMIT).mean(), (values > LIMIT).mean()
        print(f"{name}: {len(values)}, doubted {false:.4f}, mirrored ones doubted {caught:.4f}")
    stored = {
        "limit": LIMIT,
        "provenance": f"{len(chosen)} knees of the public KL set (train part) and {given.phantoms} phantoms",
        "shape": [HEIGHT, WIDTH // 2],
        "weights": weights.round(5).tolist(),
    }
    given.out.write_text(json.dumps(stored) + "\n")


if __name__ == "__main__":
    main()
