"""How wide the joint space is, measured where radiographs are read for it: between the bones' traced surfaces.

Ours, not the paper's. The key points say where to look; the surfaces are traced in the pixels: the lower edge of the condyle,
and the upper edge of the plateau's bright floor, which lies below the dimmer rim of a plateau that is seen at a slant.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from kneeoa.geometry import Box, KeyPoints, crop
from kneeoa.messages import Message, shown_as
from kneeoa.tasks import Laterality

LOADED = 0.10, 0.26  # from either corner of the plateau, share of its width: where the narrowest place is sought
FIXED = 0.25  # from either corner of the condyles, share of their width: OAI's x
_SEEN = 0.08, 0.30  # what is traced, from either corner of the plateau
# How far the surfaces lie below the line between their corners, in W, at five places across LOADED; mean of 431 OAI knees
_CONDYLE = 0.013, 0.018, 0.015, 0.002, -0.014
_PLATEAU = 0.004, 0.006, 0.002, -0.005, -0.013
_STIFFNESS = 1.0  # low, since detected key points are 2 mm off
_REACH, _FINE = 0.12, 0.003  # in W: how far from there a surface is sought, and how finely edges are seen
_ALONG = 0.012  # in W: edges are averaged along the joint line
_NEAR = 0.012  # in W: how far from the traced edge its steepest place is
_FLOOR, _BRIGHT = 0.015, 2.0  # in W: the plateau's floor; its weight against the edge's
_OPEN = 0.15  # how much darker than the bones beside it a space is, in standard deviations of the knee; less is closed
_MIN_W = 24  # px; below, there is nothing to trace


@dataclass(frozen=True)
class JointSpace:
    """A place of a compartment: from the condyle (x, y1) down to the plateau (x, y2), in film pixels; one point where closed."""

    x: float
    y1: float
    y2: float

    @property
    def width(self) -> float:
        return self.y2 - self.y1


def joint_spaces(film: np.ndarray, key_points: KeyPoints) -> tuple[JointSpace, JointSpace]:
    """The narrowest places of the compartment at the image's left and of that at its right.

    Parameters
    ----------
    film : uint8 ndarray (h, w)
        Bones bright.
    key_points : KeyPoints
        In its pixels.
    """
    (left, _), (right, _) = measured(film, key_points)
    return left, right


def measured(film: np.ndarray, key_points: KeyPoints) -> list[tuple[JointSpace, JointSpace]]:
    """The same, each with the place at `FIXED` beside it."""
    around = key_points.knee_box()
    dx, dy = round(around.x1), round(around.y1)  # as `crop` cuts it
    points, w = key_points.shifted(-dx, -dy).as_array(), key_points.width
    knee = cv2.GaussianBlur(crop(film, around).astype(np.float32), (0, 0), max(_FINE * w, 0.5))
    places = []
    for corner, inward in ((0, 1), (1, -1)):
        share = np.linspace(*_SEEN, max(8, round(np.ptp(_SEEN) * w)))
        x = points[3 + 2 * corner, 0] + inward * share * (points[5, 0] - points[3, 0])
        condyle, plateau = (
            _surface(knee, x, np.interp(x, *bone.T) + w * np.interp(share, np.linspace(*LOADED, 5), below), sign, w)
            for bone, below, sign in ((points[[0, 2]], _CONDYLE, -1), (points[[3, 5]], _PLATEAU, 1))
        )
        closed = (plateau <= condyle) | ~_is_open(knee, x, condyle, plateau, w)
        middle = (condyle + plateau) / 2
        condyle, plateau = np.where(closed, middle, condyle), np.where(closed, middle, plateau)
        inside = np.flatnonzero((share >= LOADED[0]) & (share <= LOADED[1]))
        narrowest = inside[(plateau - condyle)[inside].argmin()]
        fixed = np.abs(x - points[2 * corner, 0] - inward * FIXED * (points[2, 0] - points[0, 0])).argmin()
        narrow, quarter = (
            JointSpace(float(dx + x[i]), float(dy + condyle[i]), float(dy + plateau[i])) for i in (narrowest, fixed)
        )
        places.append((narrow, quarter))
    return places


def joint_space_of(knee: Message, joint: np.ndarray, spacing_mm: Sequence[float] | None) -> Message | None:
    """The ``joint_space`` of a knee of a reply; None where its side, its place or its key points are not known.

    Parameters
    ----------
    knee : dict
        Of a detection, which may be handmade.
    joint : uint8 ndarray (h, w)
        Its crop.
    spacing_mm : (row, column), optional
    """
    names = {Laterality.RIGHT: ("lateral", "medial"), Laterality.LEFT: ("medial", "lateral")}.get(shown_as(knee))
    if names is None or not knee.get("main_joint") or not knee.get("key_points"):
        return None
    box, (h, w) = Box(*map(float, map(round, knee["main_joint"]))), joint.shape  # as `crop` cuts it
    if min(box.width, box.height) < 1:
        return None
    scale = np.array([w / box.width, h / box.height])
    points = (np.array(list(knee["key_points"].values())) - (box.x1, box.y1)) * scale
    ordered = points[0, 0] < points[2, 0] and points[3, 0] < points[5, 0]
    if not ordered or np.ptp(points[:, 0]) < _MIN_W or (points < 0).any() or (points > (w, h)).any():
        return None
    row_mm = spacing_mm[0] if spacing_mm and spacing_mm[0] > 0 else None

    def told(place: JointSpace) -> Message:
        ends = np.array([(place.x, place.y1), (place.x, place.y2)]) / scale + (box.x1, box.y1)
        px = float(ends[1, 1] - ends[0, 1])
        ends_px = [[round(float(v), 2) for v in end] for end in ends]
        return {"mm": None if row_mm is None else round(px * row_mm, 2), "px": round(px, 2), "ends": ends_px}

    sides = zip(names, measured(joint, KeyPoints.from_array(points)), strict=True)
    return {name: {"minimum": told(narrowest), "fixed": told(fixed)} for name, (narrowest, fixed) in sorted(sides)}


def _surface(knee: np.ndarray, x: np.ndarray, y: np.ndarray, sign: int, w: float) -> np.ndarray:
    """Rows of the bone's edge near the points (x, y), float (n,): below the condyle (``sign`` −1), above the plateau (+1)."""
    steep = sign * cv2.Sobel(knee, cv2.CV_32F, 0, 1)
    reach = round(_REACH * w)
    offsets = np.arange(-reach, reach + 1.0)
    score = _normal(_straight(steep, x, y, offsets, _ALONG * w))
    if sign > 0:
        thick = max(2, round(_FLOOR * w))
        floor = _straight(cv2.blur(knee, (1, thick)), x, y + thick / 2, offsets, _ALONG * w)
        score += _BRIGHT * _normal(floor - floor.mean())
    path = y + strongest_path(score, _STIFFNESS)
    near = max(2.0, _NEAR * w)
    offsets = np.arange(-near, near + 0.25, 0.25)
    edge = _straight(steep, x, path, offsets, _ALONG * w)
    path = path + offsets[edge.argmax(axis=1)]
    return cv2.GaussianBlur(path[:, None], (1, 0), 0.01 * w, borderType=cv2.BORDER_REPLICATE)[:, 0]


def _is_open(knee: np.ndarray, x: np.ndarray, condyle: np.ndarray, plateau: np.ndarray, w: float) -> np.ndarray:
    """Whether it is darker between the surfaces than in the bones, bool (n,): two bones that touch have edges elsewhere."""
    beside = np.linspace(0.005, 0.02, 5) * w
    bones = (_straight(knee, x, condyle, -beside), _straight(knee, x, plateau, beside))
    within = condyle[:, None] + (plateau - condyle)[:, None] * np.linspace(0.2, 0.8, 9)
    depth = (bones[0].mean(axis=1) + bones[1].mean(axis=1)) / 2 - _sampled(knee, x, within).mean(axis=1)
    depth = cv2.GaussianBlur(depth[:, None], (1, 0), 0.015 * w, borderType=cv2.BORDER_REPLICATE)[:, 0]
    return depth > _OPEN * knee.std()


def _straight(image: np.ndarray, x: np.ndarray, y: np.ndarray, offsets: np.ndarray, along: float = 0.0) -> np.ndarray:
    """The image beside the points (x, y), float32 (n, offsets), averaged ``along`` them (s.d. in steps)."""
    found = _sampled(image, x, y[:, None] + offsets)
    return cv2.GaussianBlur(found, (1, 0), along, borderType=cv2.BORDER_REPLICATE) if along else found


def _sampled(image: np.ndarray, x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The image in the columns x (n,) at the ``rows`` (n, m); pixel i covers [i, i + 1)."""
    columns = x[:, None].repeat(rows.shape[1], 1).astype(np.float32) - np.float32(0.5)
    places = rows.astype(np.float32) - np.float32(0.5)
    return cv2.remap(image, columns, places, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _normal(values: np.ndarray) -> np.ndarray:
    return values / (values.std() + 1e-6)


def strongest_path(edge: np.ndarray, stiffness: float) -> np.ndarray:
    """The path with the strongest edge, one offset per row of ``edge`` (steps, offsets), at most one offset a step.

    ``stiffness`` is the price of leaving the middle offset for the rim, in standard deviations of the edge. Returns
    offsets from the middle, float (steps,), smoothed.
    """
    steps, n = edge.shape
    middle = (n - 1) / 2
    score = edge / (edge.std() + 1e-6) - stiffness * ((np.arange(n) - middle) / middle) ** 2
    best, came = score[0], np.zeros((steps, n), int)
    for i in range(1, steps):
        padded = np.pad(best, 1, constant_values=-np.inf)
        near = np.stack([padded[:-2] - 0.3, padded[1:-1], padded[2:] - 0.3])
        came[i] = near.argmax(axis=0) - 1
        best = near.max(axis=0) + score[i]
    path = np.empty(steps)
    at = int(best.argmax())
    for i in range(steps - 1, -1, -1):
        path[i] = at - middle
        at += came[i, at]
    return cv2.GaussianBlur(path[:, None], (1, 0), 1.5, borderType=cv2.BORDER_REPLICATE)[:, 0] if steps > 1 else path
