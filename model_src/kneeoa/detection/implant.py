"""Whether metal fills a joint: a replaced knee has no grade, and the networks would give it one.

Metal is the brightest in the joint, in large pieces with smooth outlines, and falls off within a pixel or two where bone and
over-exposure fade. All limits are ours; docs/method.md has what was measured with them.
"""

import cv2
import numpy as np

from kneeoa.geometry import Box, crop

SIDE = 72  # px of the joint's box as it is looked at, about 1.4 mm each: the edge of metal is one of them wide
LEVELS = (0.85, 0.9, 0.95)  # of the joint's contrast from which a pixel may be metal; it is noisy, or saturated
AGREEING = 2  # of these levels must show metal: over-exposed bone and a dense patella look like it at one
PIECE = 0.01  # share of the box from which a piece counts: screws and staples are smaller
METAL = 0.02, 0.4  # of the box in all: half a joint's replacement takes 0.03; over-exposed bones take more
MOST = 0.7  # of all that is as bright must be such pieces; in an over-exposed film there is much else
DROP = 0.15  # of the contrast, right outside a piece
SHARP = 0.7  # share of a piece's outline with such a drop
AT_ONCE = 0.75  # of the drop two pixels farther out
SMOOTH = 0.75  # length of the convex hull to that of the outline
_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def shows_implant(film: np.ndarray, box: Box) -> bool:
    """Whether metal fills a joint.

    Parameters
    ----------
    film : ndarray of shape (h, w)
        Bones bright, arbitrary units, before any equalisation.
    box : Box
        The knee joint's, in its pixels.
    """
    joint = crop(film, box, (SIDE, SIDE)).astype(np.float32)
    low, high = np.percentile(joint, (5, 99.5))
    if high <= low:
        return False
    joint = (joint - low) / (high - low)
    return sum(_mostly_metal(joint, level) for level in LEVELS) >= AGREEING


def _mostly_metal(joint: np.ndarray, level: float) -> bool:
    bright = cv2.morphologyEx((joint > level).astype(np.uint8), cv2.MORPH_OPEN, _CROSS)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    shares = stats[1:, cv2.CC_STAT_AREA] / joint.size
    large = {label: share for label, share in enumerate(shares, 1) if share > PIECE}
    metal = sum(share for label, share in large.items() if _is_metal(joint, (labels == label).astype(np.uint8)))
    return METAL[0] < metal < METAL[1] and metal > MOST * sum(large.values())


def _is_metal(joint: np.ndarray, piece: np.ndarray) -> bool:
    """Whether a piece, a mask of the joint's shape, has a sharp and smooth outline."""
    grown = [cv2.dilate(piece, _CROSS, iterations=step) for step in range(5)]
    inside = cv2.erode(piece, _CROSS).astype(bool)
    near, far = ((grown[step + 1] > grown[step]) for step in (1, 3))
    if not inside.any() or not far.any():
        return False
    metal = joint[inside].mean()
    drop, settled = metal - joint[near], float(np.median(metal - joint[far]))
    if (drop > DROP).mean() < SHARP or np.median(drop) < AT_ONCE * settled:
        return False
    outlines, _ = cv2.findContours(piece, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    around = cv2.arcLength(cv2.convexHull(np.concatenate(outlines)), True)
    return bool(around > SMOOTH * sum(cv2.arcLength(outline, True) for outline in outlines))
