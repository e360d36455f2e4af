"""Key points of crops that show one knee joint, by the detector's second level alone."""

from collections.abc import Iterable

import numpy as np

from kneeoa.detection.cascade import Cascade, Found
from kneeoa.geometry import Box, KeyPoints
from kneeoa.imaging.prepare import prepare_single
from training.data.knee_kl import Knee


def locate_in_crop(cascade: Cascade, image: np.ndarray) -> Found:
    """The knee of a crop whose whole area is the knee's surroundings; coordinates in crop pixels."""
    height, width = image.shape
    return cascade.locate(prepare_single(image.astype(np.float32)), [Box(0, 0, width, height)])


def key_points_of(cascade: Cascade, knees: Iterable[Knee]) -> dict[str, KeyPoints]:
    """By file name."""
    return {knee.name: locate_in_crop(cascade, knee.image()).key_points for knee in knees}
