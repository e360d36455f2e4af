"""The public knee-KL set (Chen 2018, doi:10.17632/56rmx5bjcr.1) with registered KNEEL landmarks.

A folder with ``labels.csv`` (file, split, subject, side, kl, inverted), optionally ``landmarks.csv`` (file, fit_score,
mm_per_px, then t0x … f6y in crop pixels) and the crops themselves. Bones are returned bright, whatever the file shows.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kneeoa.geometry import KeyPoints
from kneeoa.tasks import Laterality

_SIX = ("f0", "f3", "f6", "t0", "t4", "t8")  # KNEEL's numbers of the six key points, in the order of KEY_POINTS


@dataclass(frozen=True)
class Knee:
    """One knee-joint crop: its file, KL grade and, where registered, key points in crop pixels and the pixel size."""

    path: Path
    name: str
    subject: str
    side: Laterality
    kl: int
    inverted: bool
    key_points: KeyPoints | None = None
    fit_score: float = 0.0
    mm_per_px: float | None = None

    def image(self) -> np.ndarray:
        """uint8 (h, w), bones bright."""
        pixels = cv2.imread(str(self.path), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise FileNotFoundError(f"cannot read {self.path}")
        return 255 - pixels if self.inverted else pixels


def read_knee_kl(root: Path, split: str) -> list[Knee]:
    """All knees of one split, in the order of ``labels.csv``."""
    landmarks = {}
    if (root / "landmarks.csv").exists():
        with open(root / "landmarks.csv", newline="") as file:
            landmarks = {row["file"]: row for row in csv.DictReader(file)}
    knees = []
    with open(root / "labels.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] != split:
                continue
            mark = landmarks.get(row["file"])
            knees.append(
                Knee(
                    path=root / row["file"],
                    name=row["file"],
                    subject=row["subject"],
                    side=Laterality(row["side"]),
                    kl=int(row["kl"]),
                    inverted=row["inverted"] == "1",
                    key_points=mark and KeyPoints.from_array([[mark[p + "x"], mark[p + "y"]] for p in _SIX]),
                    fit_score=float(mark["fit_score"]) if mark else 0.0,
                    mm_per_px=float(mark["mm_per_px"]) if mark else None,
                )
            )
    return knees
