"""Whether what was found is a knee that may be graded: upright, whole, of a knee's shape and size."""

import numpy as np

from kneeoa.detection.cascade import Found
from kneeoa.geometry import KeyPoints

WIDTH_MM = (40.0, 140.0)  # W of an adult knee with a wide margin; 748 OAI knees lie in 62 … 101 mm
TILT = 14.0  # degrees that a joint may lean, as it is read: of 20, 15 are; 823 real knees lean up to 10.5
ABOVE = 0.1  # of W, that the film must show above and below the key points


def out_of_scope(
    found: Found, shape: tuple[int, int], field: tuple[slice, slice], spacing_mm: tuple[float, float] | None
) -> str | None:
    """Why a knee is not to be graded, one of `kneeoa.remarks.REASONS`, or None.

    Parameters
    ----------
    found : Found
        In film pixels.
    shape, field
        The film's height and width, and which part of it was exposed.
    """
    points, tilt = found.key_points, tilt_of(found.key_points)
    if not _is_knee_shaped(points.turned(tilt), found.box.width):
        return "implausible_key_points"
    if abs(tilt) > TILT:
        return "rotated"
    if spacing_mm and not WIDTH_MM[0] < points.width * spacing_mm[1] < WIDTH_MM[1]:
        return "implausible_size"
    if found.upside_down:
        return "upside_down"
    return "cut_off" if _is_cut(points, shape, field) else None


def tilt_of(points: KeyPoints) -> float:
    """How far a joint's line is turned clockwise, in degrees: the mean of femur and tibia."""
    xy = points.as_array()
    dx, dy = xy[2] - xy[0] + xy[5] - xy[3]
    return float(np.degrees(np.arctan2(dy, dx)))


def _is_knee_shaped(points: KeyPoints, box_width: float) -> bool:
    x, y = points.as_array().T
    ordered = x[0] < x[1] < x[2] and x[3] < x[4] < x[5] and y[1] < min(y[0], y[2]) and y[4] < min(y[3], y[5])
    return bool(ordered and 0.4 < points.width / box_width < 1.2 and max(y[0], y[2]) <= max(y[3], y[5]))


def _is_cut(points: KeyPoints, shape: tuple[int, int], field: tuple[slice, slice]) -> bool:
    """Whether key points lie beyond an edge of what was exposed, where they are guessed, or close to its top or bottom."""
    (top, bottom, _), (left, right, _) = (part.indices(side) for part, side in zip(field, shape, strict=True))
    x, y = points.as_array().T
    above = min(y.min() - top, bottom - y.max())
    return bool(x.min() < left or x.max() > right or above < ABOVE * points.width)
