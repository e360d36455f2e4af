"""Which side a knee looks like: the fibula lies laterally. It casts doubt on a side that is named, and never names one."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from kneeoa.errors import NotARadiograph
from kneeoa.geometry import Box, crop, halved
from kneeoa.imaging.prepare import equalize, to_8bit
from kneeoa.tasks import Laterality

WIDTH, HEIGHT = 28, 14  # of the tibia's half of the box, as it is read


def asymmetry(image: np.ndarray, box: Box) -> np.ndarray:
    """What differs between a tibia and its mirror image, float (WIDTH / 2 · HEIGHT,): mirrored, all signs change.

    Parameters
    ----------
    image : ndarray of shape (h, w)
        Bones bright, arbitrary units.
    box : Box
        The knee joint's.

    Raises
    ------
    NotARadiograph
        If there is no contrast.
    """
    tibia = crop(image, Box(box.x1, box.centre[1], box.x2, box.y2))
    while tibia.shape[1] >= 8 * WIDTH:
        tibia = halved(tibia)
    small = cv2.resize(equalize(to_8bit(tibia)), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) / 255.0
    return (small - small[:, ::-1])[:, : WIDTH // 2].ravel()


@dataclass(frozen=True)
class Handedness:
    """A linear reading: positive for what looks like a right knee, about ± 1.

    Attributes
    ----------
    weights : float ndarray (WIDTH / 2 · HEIGHT,)
    limit : float
        How far the mean of a film's knees must be on the wrong side.
    """

    weights: np.ndarray
    limit: float

    @classmethod
    def from_file(cls, path: Path) -> "Handedness":
        stored = json.loads(path.read_text())
        return cls(np.array(stored["weights"]), stored["limit"])

    def doubts(self, film: np.ndarray, knees: Iterable[tuple[Box, Laterality]]) -> bool:
        """Whether a film's knees, each with the side that it should look like, look like the other."""
        try:
            read = [
                float(asymmetry(film, box) @ self.weights) * (1 if side is Laterality.RIGHT else -1)
                for box, side in knees
                if side is not Laterality.UNKNOWN
            ]
        except NotARadiograph:
            return False
        return bool(read) and float(np.mean(read)) < -self.limit
