"""Folders in the form of the public knee-KL set (Chen 2018, doi:10.17632/56rmx5bjcr.1) with registered KNEEL landmarks.

``labels.csv`` has one row per knee: file, any of the eight tasks by name (``kl``, ``jsn_l`` …), and optionally split,
subject, cohort, side (R or L) and inverted (1 where the file shows bones dark). ``landmarks.csv``, also optional: file,
fit_score, mm_per_px, then t0x … f6y in crop pixels. The crops show one knee joint each. Bones are returned bright.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kneeoa.geometry import KeyPoints
from kneeoa.tasks import OA_FROM_KL, TASKS, Laterality, Task
from training.data.table import read_table

LANDMARKS = tuple(f"t{i}" for i in range(9)) + tuple(f"f{i}" for i in range(7))  # KNEEL's names
SIX = [LANDMARKS.index(name) for name in ("f0", "f3", "f6", "t0", "t4", "t8")]  # where KEY_POINTS are among them
WELL_MARKED = 2.4  # landmarks with at least this fit score are good enough to measure by


class DataError(ValueError):
    """A data set is not what it should be; the message names the file, the row and the column."""


@dataclass(frozen=True)
class Knee:
    """One knee-joint crop: its file, known grades and, where registered, points in crop pixels and the pixel size.

    ``landmarks`` are KNEEL's 16, float (16, 2) in the order of `LANDMARKS`, each bone from image left to image right.
    """

    path: Path
    name: str
    subject: str
    side: Laterality
    grades: Mapping[str, int]
    inverted: bool
    cohort: str = ""
    key_points: KeyPoints | None = None
    fit_score: float = 0.0
    mm_per_px: float | None = None
    landmarks: np.ndarray | None = field(default=None, compare=False)

    @property
    def well_marked(self) -> bool:
        """Whether its landmarks are good enough to measure by."""
        return self.key_points is not None and self.fit_score >= WELL_MARKED

    def image(self) -> np.ndarray:
        """uint8 (h, w), bones bright."""
        pixels = cv2.imread(str(self.path), cv2.IMREAD_GRAYSCALE)
        if pixels is None:
            raise DataError(f"cannot read {self.path}")
        return 255 - pixels if self.inverted else pixels


def read_knee_kl(root: Path, split: str | None) -> list[Knee]:
    """All knees of one split (of all, if None or if there is no such column), in the order of ``labels.csv``.

    Raises
    ------
    DataError
        If the file, a column, an image or the whole split is missing, or a grade or a side is unknown.
    """
    rows = _table(root / "labels.csv")
    if not rows or "file" not in rows[0]:
        raise DataError(f"{root / 'labels.csv'} needs a header with a column 'file' and at least one row")
    columns = {task: name for name in rows[0] for task in TASKS if name.upper().replace("-", "_") == task.name}
    if not columns:
        raise DataError(f"{root / 'labels.csv'} has none of the label columns {[t.name.lower() for t in TASKS]}")
    landmarks = (
        {row["file"]: row for row in _table(root / "landmarks.csv")} if (root / "landmarks.csv").exists() else {}
    )
    if doubled := [name for name, number in Counter(row["file"] for row in rows).items() if number > 1]:
        raise DataError(
            f"{root / 'labels.csv'} has {len(doubled)} files twice, {doubled[0]} for one; give each knee one row"
        )
    knees = []
    for line, row in enumerate(rows, start=2):
        if split is not None and row.get("split", split) != split:
            continue
        where = f"{root / 'labels.csv'} line {line}"
        knees.append(_knee(root, row, columns, landmarks.get(row["file"]), where))
    if not knees:
        raise DataError(f"{root / 'labels.csv'} has no knee of the split {split!r}")
    return knees


def _knee(root: Path, row: dict[str, str], columns: dict[Task, str], mark: dict[str, str] | None, where: str) -> Knee:
    """A row's knee, with its row of landmarks where it has one; ``where`` names the row in errors."""
    if not (root / row["file"]).is_file():
        raise DataError(f"{where}: no file {row['file']}")
    grades = {t.name: _grade(row[name], t.grades, f"{where}, column {name}") for t, name in columns.items()}
    known = {name: grade for name, grade in grades.items() if grade is not None}
    if "KL" in known:
        known.setdefault("OA", int(known["KL"] >= OA_FROM_KL))
    if row.get("side", "") not in ("", "R", "L"):
        raise DataError(f"{where}: side must be R, L or empty")
    points = np.array([[float(mark[p + axis]) for axis in "xy"] for p in LANDMARKS]) if mark else None
    return Knee(
        path=root / row["file"],
        name=row["file"],
        subject=row.get("subject") or row["file"],
        side=Laterality(row["side"]) if row.get("side") else Laterality.UNKNOWN,
        grades=known,
        inverted=row.get("inverted") == "1",
        cohort=row.get("cohort") or "",
        key_points=None if points is None else KeyPoints.from_array(points[SIX]),
        fit_score=float(mark["fit_score"]) if mark else 0.0,
        mm_per_px=float(mark["mm_per_px"]) if mark else None,
        landmarks=points,
    )


def read_parts(roots: Sequence[Path], held_out: str, per_knee: bool = False) -> tuple[list[Knee], list[Knee]]:
    """The train part and a held-out one of one or several folders.

    Raises DataError as `read_knee_kl` does, and unless ``per_knee`` where somebody is in both parts: what is measured on
    acquaintances flatters.
    """
    learn, judge = ([knee for root in roots for knee in read_knee_kl(root, part)] for part in ("train", held_out))
    if not per_knee and (shared := {knee.subject for knee in learn} & {knee.subject for knee in judge}):
        raise DataError(
            f"{len(shared)} subjects are in train and in {held_out}; keep each in one part, or train per knee"
        )
    return learn, judge


def _table(path: Path) -> list[dict[str, str]]:
    try:
        with open(path, newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None


def _grade(text: str, grades: int, where: str) -> int | None:
    if not text.strip():
        return None
    if not text.strip().isdigit() or int(text) >= grades:
        raise DataError(f"{where}: a grade must be one of 0 … {grades - 1} or empty")
    return int(text)


def knee_kl_manifest(root: Path) -> pd.DataFrame:
    """The set as a manifest with its published split; polarity is left to whoever reads the files."""
    return read_table(root / "labels.csv", "KNEE_KL", visit="V00", rename={"file": "path"}, ignore=("inverted",))
