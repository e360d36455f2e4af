"""How wide the joint space is, measured where radiographs are read for it: between the bones' traced surfaces.

Ours, not the paper's. The key points say where to look; the surfaces are traced in the pixels.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kneeoa.geometry import KeyPoints, crop

LOADED = 0.10, 0.26  # from either corner of the plateau, share of its width
# How far the surfaces lie below the line between their corners, in W, at five places across LOADED; mean of 431 OAI knees
_CONDYLE = 0.013, 0.018, 0.015, 0.002, -0.014
_PLATEAU = 0.004, 0.006, 0.002, -0.005, -0.013
_STIFFNESS = 1.0  # low, since detected key points are 2 mm off
_REACH, _FINE = 0.12, 0.004  # in W: how far from there a surface is sought, and how finely edges are seen


@dataclass(frozen=True)
class JointSpace:
    """The narrowest place of a compartment: from the condyle (x, y1) down to the plateau (x, y2), in film pixels."""

    x: float
    y1: float
    y2: float

    @property
    def width(self) -> float:
        return self.y2 - self.y1


def joint_spaces(film: np.ndarray, key_points: KeyPoints) -> tuple[JointSpace, JointSpace]:
    """Of the compartment at the image's left and of that at its right.

    Parameters
    ----------
    film : uint8 ndarray (h, w)
        Bones bright.
    key_points : KeyPoints
        In its pixels.
    """
    around = key_points.knee_box()
    dx, dy = round(around.x1), round(around.y1)  # as `crop` cuts it
    points = key_points.shifted(-dx, -dy).as_array()
    femur, tibia = points[[0, 2]], points[[3, 5]]
    w = key_points.width
    knee = crop(film, around)
    steep = cv2.Sobel(cv2.GaussianBlur(knee.astype(np.float32), (0, 0), max(_FINE * w, 0.5)), cv2.CV_32F, 0, 1)
    spaces = []
    for corner, inward in ((0, 1), (1, -1)):
        share = np.linspace(*LOADED, max(8, round(np.ptp(LOADED) * w)))
        x = tibia[corner, 0] + inward * share * (tibia[1, 0] - tibia[0, 0])
        rows = [
            np.interp(x, *bone.T) + w * np.interp(share, np.linspace(*LOADED, len(below)), below)
            for bone, below in ((femur, _CONDYLE), (tibia, _PLATEAU))
        ]
        condyle, plateau = (
            row + trace(sign * steep, x, row, round(_REACH * w), _STIFFNESS)
            for row, sign in zip(rows, (-1, 1), strict=True)
        )
        at = int((plateau - condyle).argmin())
        spaces.append(JointSpace(dx + float(x[at]), dy + float(min(condyle[at], plateau[at])), dy + float(plateau[at])))
    return spaces[0], spaces[1]


def trace(edges: np.ndarray, x: np.ndarray, y: np.ndarray, reach: int, stiffness: float = 2.0) -> np.ndarray:
    """Rows from ``y`` to the path with the strongest edge beside the points (x, y), at most ``reach`` away, float (n,)."""
    offsets = np.arange(-reach, reach + 1)
    columns = x[:, None].repeat(len(offsets), 1).astype(np.float32)
    rows = (y[:, None] + offsets).astype(np.float32)
    found = cv2.remap(edges, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return strongest_path(found, stiffness)


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
