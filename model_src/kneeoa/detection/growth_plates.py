"""Whether growth plates are open: a child's knee has no grade of osteoarthritis, and the networks would give it one.

An open plate is a dark, wavy line across the whole bone, beside the joint, in femur and tibia. In a grown knee it has closed, and
what is left of it is bright, or nothing. All limits are ours; docs/method.md has what was measured with them.
"""

import cv2
import numpy as np

from kneeoa.geometry import KeyPoints, crop

SIZE = 80  # px that W is looked at in: about a millimetre each
REACH = 34  # px to either side of a bone's middle that a plate must cross
FEMUR, TIBIA = (12, 36), (8, 28)  # px from the joint between which it is sought
NEAR = 3  # px above and below a line, where it must be brighter
ONE_ROW = np.ones((3, 1), np.uint8)  # how far a line rises or falls from one column to the next
MOST, LEAST = 0.25, -0.05  # of the joint's contrast: how much a single pixel of the line may say
LIMIT = 0.095  # of it: how much darker a plate is, on the mean of both bones; the most of 240 train knees is 0.081


def shows_growth_plates(film: np.ndarray, points: KeyPoints) -> bool:
    """Whether femur and tibia have a dark line across.

    Parameters
    ----------
    film : ndarray of shape (h, w)
        Bones bright, arbitrary units.
    points : KeyPoints
        The knee's, in its pixels.
    """
    return darkest_lines(film, points) > LIMIT


def darkest_lines(film: np.ndarray, points: KeyPoints) -> float:
    """How much darker the darkest lines across both bones are than what lies to either side, as a share of the contrast."""
    box, side = points.knee_box(1.5), round(1.5 * SIZE)
    joint = crop(film, box, (side, side)).astype(np.float32)
    low, high = np.percentile(joint, (5, 95))
    if high <= low:
        return 0.0
    joint = (joint - low) / (high - low)
    femur, tibia = ((points.as_array() - (box.x1, box.y1)) * (side / box.width)).reshape(2, 3, 2)
    return (_darkest_line(joint, femur, -1, FEMUR) + _darkest_line(joint, tibia, 1, TIBIA)) / 2


def _darkest_line(joint: np.ndarray, bone: np.ndarray, sign: int, away: tuple[int, int]) -> float:
    """Of the lines from side to side that rise or fall by 45° at most."""
    (x, y), across = bone[[0, 2]].mean(axis=0), bone[2] - bone[0]
    cos, sin = across / max(float(np.linalg.norm(across)), 1.0)
    u = np.arange(-REACH, REACH + 1)
    v = sign * np.arange(away[0] - NEAR, away[1] + NEAR + 1)[:, None]
    maps = (x + u * cos - v * sin).astype(np.float32), (y + u * sin + v * cos).astype(np.float32)
    strip = cv2.GaussianBlur(
        cv2.remap(joint, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), (0, 0), sigmaX=3.0, sigmaY=0.5
    )
    beside = cv2.blur(strip, (1, 3))
    darker = np.minimum(beside[: -2 * NEAR], beside[2 * NEAR :]) - strip[NEAR:-NEAR]
    columns = np.clip(darker, LEAST, MOST).T[:, :, None]
    best = columns[0]  # of all lines that end in each row
    for column in columns[1:]:
        best = column + cv2.dilate(best, ONE_ROW)  # the most of each row and its neighbours
    return float(best.max()) / len(columns)
