"""How many knees of a cohort the detector found, and a contact sheet of those that it did not."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.errors import KneeOaError
from kneeoa.imaging.prepare import for_display
from training.data.stored import read_film

SHOWN = 40
HEIGHT = 240  # px of a film on the sheet
_GROUPS = (["visit"], ["view"], ["site"], ["visit", "site"])


def write_detection(out: Path, knees: pd.DataFrame, root: Path) -> None:
    """Write ``detection.md`` and, where knees were not found on films that can be read, ``not_found.png``.

    Parameters
    ----------
    knees : DataFrame
        A manifest with ``reason``, empty where a knee was found.
    root : Path
        Folder that ``path`` is relative to.
    """
    knees = knees.assign(found=knees["reason"] == "")
    lines = ["# Detection", "", _share("all knees", knees["found"])]
    for names in _GROUPS:
        keys = ["cohort", *names]
        if knees[names].nunique().min() < 2:
            continue
        lines += ["", f"| {' | '.join(keys)} | knees | found | share |", "|---" * (len(keys) + 3) + "|"]
        for values, found in knees.groupby(keys)["found"]:
            cells = [str(value) or "unknown" for value in values]
            lines.append(f"| {' | '.join(cells)} | {len(found)} | {found.sum()} | {100 * found.mean():.2f} % |")
    lines += ["", *(f"- {why}: {number}" for why, number in knees["reason"][~knees["found"]].value_counts().items())]
    if shown := _sheet(knees[~knees["found"]], root, out / "not_found.png"):
        lines += ["", f"The first {shown} films with a knee that was not found:", "", "![not found](not_found.png)"]
    (out / "detection.md").write_text("\n".join([*lines, "", DISCLAIMER, ""]))


def _share(what: str, found: pd.Series) -> str:
    return f"{what}: {found.sum()} of {len(found)} found ({100 * found.mean():.2f} %)"


def _sheet(missing: pd.DataFrame, root: Path, path: Path) -> int:
    """The films, each with the manifest's rows and why; returns how many."""
    path.unlink(missing_ok=True)
    films: list[tuple[str, np.ndarray]] = []
    for film, rows in missing.groupby("path", sort=False):
        if len(films) == SHOWN:
            break
        try:
            radiograph = read_film(root / str(film))[0]
        except KneeOaError:
            continue
        image = for_display(radiograph, rule="")  # nobody had to invert it to find a knee
        scale = HEIGHT / image.shape[0]
        why = ", ".join(f"{side} {reason}" for side, reason in zip(rows["side"], rows["reason"], strict=True))
        films.append(
            (f"row {rows.index[0]}: {why}", cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
        )
    if films:
        columns = min(5, len(films))
        figure = Figure(figsize=(3 * columns, 3.2 * -(-len(films) // columns)), layout="constrained")
        for i, (title, image) in enumerate(films):
            axis = figure.add_subplot(-(-len(films) // columns), columns, i + 1)
            axis.imshow(image, cmap="gray")
            axis.set_title(title, fontsize=7)
            axis.axis("off")
        figure.savefig(path, dpi=90)
    return len(films)
