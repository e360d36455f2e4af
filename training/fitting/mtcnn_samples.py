"""Windows the detector learns from: MTCNN's negatives, parts and positives, cut from prepared single-knee images."""

from dataclasses import dataclass

import cv2
import numpy as np

from kneeoa.geometry import Box, KeyPoints, crop
from training.fitting.augment import photometric
from training.synthesis.single_knee_images import View

NEGATIVE, PART, POSITIVE = 0.3, 0.4, 0.65  # IoU bounds of Zhang et al. 2016; 0.3 … 0.4 is unused


@dataclass(frozen=True)
class Window:
    """A crop uint8 (s, s) with its targets; offsets and key points are fractions of the crop's side, nan where unused."""

    pixels: np.ndarray
    is_knee: float
    box: np.ndarray
    key_points: np.ndarray


def _square_near(rng: np.random.Generator, knee: Box, spread: float) -> Box:
    x, y = knee.centre
    centre = x + rng.normal(0, spread) * knee.width, y + rng.normal(0, spread) * knee.width
    return Box.square(centre, knee.width * float(np.exp(rng.normal(0, spread))))


def _square_anywhere(rng: np.random.Generator, shape: tuple[int, ...]) -> Box:
    height, width = shape
    side = rng.uniform(0.15, 1.0) * min(height, width)
    return Box.square((rng.uniform(side / 2, width - side / 2), rng.uniform(side / 2, height - side / 2)), side)


def sample(rng: np.random.Generator, view: View, size: int, kind: str) -> Window:
    """One window of a kind: ``negative``, ``part``, ``positive``, or ``landmark`` (a positive turned by up to ± 8°)."""
    nothing = Window(np.empty(0), 0.0, np.full(4, np.nan), np.full(12, np.nan))
    if view.key_points is None or kind == "negative":
        knee = view.key_points.knee_box() if view.key_points else None
        for _ in range(20):
            near = knee is not None and rng.random() < 0.5
            box = _square_near(rng, knee, 0.7) if knee and near else _square_anywhere(rng, view.image.shape)
            if knee is None or box.iou(knee) < NEGATIVE:
                break
        return Window(photometric(crop(view.image, box, (size, size)), rng), 0.0, nothing.box, nothing.key_points)
    image, points = view.image, view.key_points
    if rng.random() < 0.5:
        image, points = np.ascontiguousarray(image[:, ::-1]), points.mirrored(image.shape[1])
    if kind == "landmark":
        image, points = _turned(rng, image, points)
    knee = points.knee_box()
    low, high = (PART, POSITIVE) if kind == "part" else (POSITIVE, 1.01)
    for _ in range(50):
        box = _square_near(rng, knee, 0.2 if kind == "part" else 0.1)
        if low <= box.iou(knee) < high:
            break
    pixels = photometric(crop(image, box, (size, size)), rng)
    target = (np.array(knee.as_tuple()) - box.as_tuple()) / box.width
    if kind == "part":
        return Window(pixels, np.nan, target, nothing.key_points)
    return Window(pixels, 1.0, target, ((points.as_array() - (box.x1, box.y1)) / box.width).ravel())


def _turned(rng: np.random.Generator, image: np.ndarray, points: KeyPoints) -> tuple[np.ndarray, KeyPoints]:
    """The knee's surroundings turned about the knee, with its key points."""
    matrix = cv2.getRotationMatrix2D(points.knee_box().centre, rng.uniform(-8, 8), 1.0)
    turned = cv2.warpAffine(image, matrix, image.shape[::-1], borderMode=cv2.BORDER_REPLICATE)
    return turned, KeyPoints.from_array(points.as_array() @ matrix[:, :2].T + matrix[:, 2])
