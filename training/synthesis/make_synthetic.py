"""Writes synthetic knees with known grades as a folder that `make evaluate` reads: phantoms, or lesions drawn into real knees.

In the ``test`` style by default, which no training sees.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kneeoa.geometry import Box, crop
from training.data.cut_crops import MARGIN
from training.data.knee_kl import DataError, read_knee_kl
from training.synthesis.lesion_knees import drawn_knees
from training.synthesis.lesions import STYLES
from training.synthesis.phantom import draw_joint

Drawn = Iterator[tuple[np.ndarray, dict[str, int]]]


def phantoms(number: int, seed: int, style: str) -> Drawn:
    """Crops uint8 (h, w) of right knees, with all eight grades."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        image, knee = draw_joint(rng, style=style)
        x, y, half = *knee.box.centre, MARGIN / 2 * knee.key_points.width
        yield crop(image, Box(x - half, y - half, x + half, y + half)), knee.grades


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="draw into this folder's knees of KL 0–1 with landmarks; else phantoms"
    )
    parser.add_argument("--split", default="val", help="of --data")
    parser.add_argument("--number", type=int, default=400)
    parser.add_argument("--style", choices=sorted(STYLES), default="test")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        knees = read_knee_kl(given.data, given.split) if given.data else []
    except DataError as error:
        parser.error(str(error))
    drawn: Drawn = phantoms(given.number, given.seed, given.style)
    if knees:
        drawn = ((image, grades) for image, _, grades in drawn_knees(knees, given.number, given.seed, given.style))
    given.out.mkdir(parents=True, exist_ok=True)
    rows = []
    for i, (image, grades) in enumerate(drawn):
        cv2.imwrite(str(given.out / f"{i:05d}.png"), image)
        rows.append({"file": f"{i:05d}.png", "side": "R", **grades})
    pd.DataFrame(rows).to_csv(given.out / "labels.csv", index=False)
    print(f"{given.out / 'labels.csv'}: {len(rows)} knees")


if __name__ == "__main__":
    main()
