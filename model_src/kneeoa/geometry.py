"""Boxes, key points and the main-joint rule.

All coordinates are ``(x, y)`` in continuous image pixels: pixel ``i`` covers ``[i, i + 1)``, y points down, boxes are
half-open. A mirror in an image ``w`` wide is therefore ``x → w − x`` for boxes and key points alike.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

KEY_POINTS = ("femur_left", "femur_notch", "femur_right", "tibia_left", "tibia_eminence", "tibia_right")
_MIRRORED = (2, 1, 0, 5, 4, 3)  # named by image side, so a mirror swaps left and right

MAIN_JOINT_MARGIN = 0.2  # Wang et al. 2021: the key points' y range is widened by 0.2 W at the top and at the bottom


@dataclass(frozen=True)
class Box:
    """An axis-aligned half-open rectangle ``[x1, x2) × [y1, y2)`` in pixels."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def width(self) -> float:
        return self.x2 - self.x1

    @property
    def height(self) -> float:
        return self.y2 - self.y1

    @property
    def centre(self) -> tuple[float, float]:
        return (self.x1 + self.x2) / 2, (self.y1 + self.y2) / 2

    @classmethod
    def square(cls, centre: tuple[float, float], side: float) -> "Box":
        """The square of the given side around a centre."""
        (x, y), r = centre, side / 2
        return cls(x - r, y - r, x + r, y + r)

    def squared(self) -> "Box":
        """The square with the same centre and this box's longer side (MTCNN's ``rerec``)."""
        return Box.square(self.centre, max(self.width, self.height))

    def rounded(self) -> "Box":
        """To whole pixels, at least one each way: what `crop` cuts."""
        x1, y1 = round(self.x1), round(self.y1)
        return Box(x1, y1, max(round(self.x2), x1 + 1), max(round(self.y2), y1 + 1))

    def shifted(self, dx: float, dy: float = 0.0) -> "Box":
        return Box(self.x1 + dx, self.y1 + dy, self.x2 + dx, self.y2 + dy)

    def scaled(self, factor: float) -> "Box":
        """The same rectangle in an image resized by ``factor``."""
        return Box(*(factor * v for v in self.as_tuple()))

    def mirrored(self, image_width: float) -> "Box":
        return Box(image_width - self.x2, self.y1, image_width - self.x1, self.y2)

    def iou(self, other: "Box") -> float:
        """Intersection over union, 0 … 1."""
        w = min(self.x2, other.x2) - max(self.x1, other.x1)
        h = min(self.y2, other.y2) - max(self.y1, other.y1)
        inter = max(w, 0.0) * max(h, 0.0)
        return inter / (self.width * self.height + other.width * other.height - inter)

    def as_tuple(self) -> tuple[float, float, float, float]:
        return self.x1, self.y1, self.x2, self.y2


@dataclass(frozen=True)
class KeyPoints:
    """The six key points in the order of `KEY_POINTS`, each ``(x, y)`` in image pixels."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        if len(self.points) != len(KEY_POINTS):
            raise ValueError(f"expected {len(KEY_POINTS)} key points, got {len(self.points)}")

    @classmethod
    def from_array(cls, values: np.ndarray | Iterable) -> "KeyPoints":
        """From anything that reshapes to (6, 2)."""
        return cls(tuple((float(x), float(y)) for x, y in np.asarray(values, dtype=float).reshape(-1, 2)))

    def as_array(self) -> np.ndarray:
        """Float array of shape (6, 2)."""
        return np.array(self.points)

    @property
    def width(self) -> float:
        """W = max(x) − min(x) over the six points; the unit of the 0.2 W rule, *not* the box's width."""
        return float(np.ptp(self.as_array()[:, 0]))

    def shifted(self, dx: float, dy: float = 0.0) -> "KeyPoints":
        return KeyPoints.from_array(self.as_array() + (dx, dy))

    def scaled(self, factor: float) -> "KeyPoints":
        return KeyPoints.from_array(self.as_array() * factor)

    def turned(self, degrees: float) -> "KeyPoints":
        """Counter-clockwise about their middle."""
        xy, angle = self.as_array(), np.radians(degrees)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return KeyPoints.from_array((xy - xy.mean(axis=0)) @ turn + xy.mean(axis=0))

    def mirrored(self, image_width: float) -> "KeyPoints":
        """The points of the horizontally flipped image, renamed so that ``left`` is again at the image's left."""
        return KeyPoints(tuple((image_width - self.points[i][0], self.points[i][1]) for i in _MIRRORED))

    def knee_box(self, side_in_w: float = 1.3) -> Box:
        """The square knee-joint box the detector is trained on: side 1.3 W, around the points' bounding box (our choice)."""
        xy = self.as_array()
        x, y = (xy.min(axis=0) + xy.max(axis=0)) / 2
        return Box.square((float(x), float(y)), side_in_w * self.width)


def main_joint(box: Box, key_points: KeyPoints, margin: float = MAIN_JOINT_MARGIN) -> Box:
    """The main joint of Wang et al. 2021: the box's columns, the key points' rows widened by 0.2 W.

    The paper's ordinate points up ("maximum increased, minimum reduced"); in image coordinates that is
    ``y1 = min(y) − 0.2 W`` and ``y2 = max(y) + 0.2 W``.
    """
    y = key_points.as_array()[:, 1]
    reach = margin * key_points.width
    return Box(box.x1, float(y.min()) - reach, box.x2, float(y.max()) + reach)


def crop(image: np.ndarray, box: Box, size: tuple[int, int] | None = None) -> np.ndarray:
    """Cut a box out of a grey image; where it leaves the image, the edge is repeated.

    Parameters
    ----------
    image : ndarray of shape (h, w)
    box : Box
        In the image's pixels; rounded to whole pixels, at least one pixel each way.
    size : (width, height), optional
        Resize the cut to this many pixels.
    """
    h, w = image.shape
    x1, y1, x2, y2 = box.rounded().as_tuple()
    if min(x1, y1) >= 0 and x2 <= w and y2 <= h:
        cut = image[int(y1) : int(y2), int(x1) : int(x2)]
    else:
        columns, rows = np.arange(x1, x2).clip(0, w - 1), np.arange(y1, y2).clip(0, h - 1)
        cut = image.take(rows, axis=0).take(columns, axis=1)
    if size is None:
        return cut.copy()
    shrinking = cut.shape[1] > size[0]
    return cv2.resize(cut, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)


def halved(image: np.ndarray) -> np.ndarray:
    """Half as many pixels each way, each the mean of four; an odd last row or column is dropped."""
    h, w = (side // 2 for side in image.shape)
    return cv2.resize(image[: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA)


def turned(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turned counter-clockwise, on a canvas that holds all of it; what is beyond the image is 0."""
    h, w = image.shape
    matrix = np.asarray(cv2.getRotationMatrix2D((w / 2, h / 2), degrees, 1), np.float64)
    cos, sin = np.abs(matrix[0, :2])
    size = round(h * sin + w * cos), round(h * cos + w * sin)
    matrix[:, 2] += np.array([size[0] - w, size[1] - h]) / 2
    return np.asarray(cv2.warpAffine(image, matrix, size))
