"""KNEEL's 16 landmarks: mirrored, and carried over to knees of which only the six key points are known."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from kneeoa.geometry import KeyPoints
from kneeoa.tasks import Laterality
from training.data.knee_kl import SIX, Knee

GOOD_FIT = 2.2  # registration score from which the landmarks of a knee are used
MEAN_W_MM = 79.9  # of 748 OAI knees; where a crop's scale is unknown
TIBIA, FEMUR = slice(0, 9), slice(9, 16)
LOADED = {"JSN_L": (0.10, 0.26), "JSN_M": (0.75, 0.91)}  # where joint space is measured, share of the plateau's width


def mirrored_landmarks(landmarks: np.ndarray, width: float) -> np.ndarray:
    """The landmarks of the horizontally flipped image, each bone again from left to right."""
    flipped = landmarks * (-1, 1) + (width, 0)
    return np.vstack([flipped[TIBIA][::-1], flipped[FEMUR][::-1]])


def as_right(knee: Knee) -> tuple[np.ndarray, np.ndarray]:
    """The knee's image and landmarks, mirrored where it is a left one."""
    image, landmarks = knee.image(), knee.landmarks
    assert landmarks is not None
    if knee.side is Laterality.LEFT:
        return np.ascontiguousarray(image[:, ::-1]), mirrored_landmarks(landmarks, image.shape[1])
    return image, landmarks


def joint_space_mm(knee: Knee) -> tuple[float, float] | None:
    """Mean lateral and medial joint-space width in mm, where radiographs are read for it; None without landmarks."""
    if knee.landmarks is None or knee.mm_per_px is None:
        return None
    points = as_right(knee)[1]
    tibia, femur = points[TIBIA], points[FEMUR]
    shares = np.stack([np.linspace(*LOADED[name], 8) for name in ("JSN_L", "JSN_M")])
    x = tibia[0, 0] + shares * (tibia[-1, 0] - tibia[0, 0])
    widths = np.interp(x, *tibia.T) - np.interp(x, *femur.T)
    lateral, medial = (knee.mm_per_px * widths.mean(axis=1)).tolist()
    return lateral, medial


def landmark_transfer(knees: Sequence[Knee]) -> Callable[[KeyPoints], np.ndarray]:
    """A regression from six key points to the 16 landmarks, (16, 2), of knees shown as right ones.

    Linear in the frame of the six points (their mean, W), fitted on the landmarked ``knees``. Between the corners it is
    off by 0.7 mm across the joint space (0.9 mm from detected key points); whoever draws there traces it in the pixels.
    """
    seen = [as_right(knee)[1] for knee in knees if knee.landmarks is not None and knee.fit_score >= GOOD_FIT]
    if len(seen) < 2 * len(SIX) + 1:
        raise ValueError(f"{len(seen)} landmarked knees are too few to learn the landmarks from")

    def frame(six: np.ndarray) -> tuple[np.ndarray, float]:
        return six.mean(axis=0), float(np.ptp(six[:, 0]))

    own = np.stack([(points - middle) / w for points in seen for middle, w in [frame(points[SIX])]])
    known = np.column_stack([own[:, SIX].reshape(len(own), -1), np.ones(len(own))])
    weights = np.linalg.lstsq(known, own.reshape(len(own), -1), rcond=1e-3)[0]

    def landmarks_from(key_points: KeyPoints) -> np.ndarray:
        six = key_points.as_array()
        middle, w = frame(six)
        return (np.append((six - middle) / w, 1.0) @ weights).reshape(-1, 2) * w + middle

    return landmarks_from


def with_landmarks(knees: Sequence[Knee], key_points: dict[str, KeyPoints]) -> list[Knee]:
    """The knees, those without landmarks given some from their detected ``key_points`` (by name, as the file shows them)."""
    transfer, complete = landmark_transfer(knees), []
    for knee in knees:
        if knee.landmarks is None and knee.name in key_points:
            points, width = key_points[knee.name], knee.image().shape[1]
            left = knee.side is Laterality.LEFT
            landmarks = transfer(points.mirrored(width) if left else points)
            knee = replace(
                knee,
                key_points=points,
                landmarks=mirrored_landmarks(landmarks, width) if left else landmarks,
                fit_score=GOOD_FIT,
                mm_per_px=MEAN_W_MM / points.width,
            )
        complete.append(knee)
    return complete
