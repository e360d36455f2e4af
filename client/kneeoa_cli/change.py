"""What changed between a patient's films: per knee, the grades and joint spaces by date, and mm a year with their noise."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

import cv2
import numpy as np

from kneeoa.geometry import Box, crop
from kneeoa.messages import Message

NOISE_MM = 0.25  # s.d. of a reading: phantoms at 0.2 and 0.4 mm a pixel 0.25 and 0.27; real films read again 0.17
NORMAL_95 = 1.96
YEAR = 365.25  # days
SCALE_MM = 0.25  # a pixel of a joint's picture


@dataclass(frozen=True)
class Rate:
    """Least squares through the visits: mm a year, and the half width of what noise alone would give in 95 of 100."""

    mm_a_year: float
    band: float

    @property
    def beyond(self) -> bool:
        return abs(self.mm_a_year) > self.band


def rate(dates: Iterable[str], widths_mm: Iterable[float | None]) -> Rate | None:
    """Of widths at ISO dates; None where fewer than two dates have one."""
    known = [
        (date.fromisoformat(day).toordinal() / YEAR, mm)
        for day, mm in zip(dates, widths_mm, strict=True)
        if mm is not None
    ]
    if len({when for when, _ in known}) < 2:
        return None
    when, mm = np.array(known).T
    spread = when - when.mean()
    return Rate(float(spread @ mm / (spread @ spread)), float(NORMAL_95 * NOISE_MM / np.sqrt(spread @ spread)))


def changes(visits: Iterable[tuple[str, str, Message]]) -> dict[str, list[dict[str, Any]]]:
    """The visits of each knee that was graded at two dates at least, oldest first: ``date``, ``film``, ``knee``.

    Parameters
    ----------
    visits
        ISO date, name and reply of each film.
    """
    seen: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for day, film, reply in sorted(visits, key=lambda visit: visit[:2]):
        for knee in reply["knees"]:
            if day and knee["grades"] and knee["knee"] in "RL":
                seen[knee["knee"]].append({"date": day, "film": film, "knee": knee})
    return {side: seen[side] for side in "RL" if len({visit["date"] for visit in seen[side]}) > 1}


def joint_picture(film: np.ndarray, knee: Message, spacing_mm: tuple[float, float]) -> np.ndarray:
    """A graded knee's main joint in the scale of all such pictures, RGB uint8 (h, w, 3), its narrowest spaces drawn.

    Parameters
    ----------
    film : uint8 ndarray (h, w)
        As `kneeoa.reporting.figure.displayed`.
    spacing_mm : (row, column)
    """
    joint = crop(film, box := Box(*knee["main_joint"]))
    factor = np.array(spacing_mm[::-1]) / SCALE_MM  # x, y
    size = np.maximum(np.rint(factor * joint.shape[::-1]), 1).astype(int)
    picture = cv2.cvtColor(cv2.resize(joint, [int(v) for v in size], interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2RGB)
    for space in (knee.get("joint_space") or {}).values():
        ends = (np.array(space["minimum"]["ends"]) - (round(box.x1), round(box.y1))) * factor - 0.5
        start, end = (tuple(int(v) for v in np.rint(point)) for point in ends)
        cv2.line(picture, start, end, (230, 159, 0), 2, cv2.LINE_AA)
    return picture
