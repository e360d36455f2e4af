"""Image pyramid → level 1 → NMS → level 2 → the best knee of one single-knee image.

Thresholds and scales are facenet-pytorch's conventions; the paper gives none (docs/method.md).
"""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torchvision.ops import nms

from kneeoa.detection.networks import LEVEL2_SIZE, STRIDE, WINDOW, Level1, Level2, as_input
from kneeoa.geometry import Box, KeyPoints, crop, halved

CANDIDATES = 1024  # most windows of one scale that are compared with each other: a knee gives some ten, noise thousands
SMALLEST_OF_TWO = 0.15  # as `CascadeConfig.smallest_knee`, on a film of two knees, where a box takes about 0.24
FINENESS = 1.5  # least pixels of the copy that is searched, for each of the pyramid's largest step
TURNED = 0.1  # how much less doubt there must be in the turned knee


@dataclass(frozen=True)
class CascadeConfig:
    """Constants of the search; stored in the weights.

    Attributes
    ----------
    smallest_knee : float
        Side of the smallest knee box, as a share of the single-knee image's width.
    factor : float
        Between two steps of the pyramid.
    score1, score2 : float
        Least knee probability to leave level 1 and level 2.
    nms_scale, nms_all : float
        IoU above which the weaker of two proposals is dropped, within one scale and over all.
    proposals : int
        Most windows handed to level 2.
    look : float
        How far the second looks are shifted, as a share of the window's side.
    """

    smallest_knee: float = 0.3
    factor: float = 0.709
    score1: float = 0.6
    score2: float = 0.9
    nms_scale: float = 0.5
    nms_all: float = 0.7
    proposals: int = 64
    look: float = 0.06


@dataclass(frozen=True)
class Found:
    """A knee joint in the pixels of the image it was found in; score 0 … 1."""

    score: float
    box: Box
    key_points: KeyPoints

    def shifted(self, dx: float) -> "Found":
        return Found(self.score, self.box.shifted(dx), self.key_points.shifted(dx))

    def scaled(self, factor: float) -> "Found":
        return Found(self.score, self.box.scaled(factor), self.key_points.scaled(factor))


class Cascade:
    """The two trained levels and how they are run. Stateless: one instance serves many threads."""

    def __init__(self, level1: Level1, level2: Level2, config: CascadeConfig | None = None) -> None:
        # channels last: pooling is then vectorised, and both levels take less than half the time
        self.level1, self.level2 = (n.eval().to(memory_format=torch.channels_last) for n in (level1, level2))
        self.config = config or CascadeConfig()

    @torch.inference_mode()
    def propose(self, image: np.ndarray, smallest: float | None = None) -> np.ndarray:
        """Level 1 over the pyramid: prepared image, uint8 (h, w) → boxes (n, 4) in its pixels, best first."""
        height, width = image.shape
        scale = WINDOW / ((smallest or self.config.smallest_knee) * width)
        boxes, scores = [torch.empty(0, 4)], [torch.empty(0)]
        while min(height, width) * scale >= WINDOW:
            small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else 1)
            logits, offsets = self.level1(as_input(small[None]))
            score = logits[0].sigmoid()
            best, at = score.flatten().topk(min(CANDIDATES, score.numel()))
            at = at[best >= self.config.score1]
            rows, columns = at // score.shape[1], at % score.shape[1]
            corner = torch.stack([columns, rows], dim=1) * STRIDE
            window = torch.cat([corner, corner + WINDOW], dim=1)
            found = (window + offsets[0, :, rows, columns].T * WINDOW) / scale
            keep = nms(found, score[rows, columns], self.config.nms_scale)
            boxes.append(found[keep])
            scores.append(score[rows, columns][keep])
            scale *= self.config.factor
        every, score = torch.cat(boxes), torch.cat(scores)
        return every[nms(every, score, self.config.nms_all)[: self.config.proposals]].numpy()

    @torch.inference_mode()
    def refine(self, image: np.ndarray, boxes: list[Box]) -> list[Found]:
        """Level 2 on the squares around the given boxes: one `Found` each, in the same order, whatever the score."""
        squares = [box.squared().rounded() for box in boxes]
        crops = np.stack([crop(image, box, (LEVEL2_SIZE, LEVEL2_SIZE)) for box in squares])
        logits, offsets, points = self.level2(as_input(crops))
        found = []
        for square, score, offset, xy in zip(squares, logits.sigmoid(), offsets, points, strict=True):
            corner, sides = np.array([square.x1, square.y1]), np.array([square.width, square.height])
            edges = np.array(square.as_tuple()) + offset.numpy() * np.tile(sides, 2)
            key_points = KeyPoints.from_array(corner + xy.numpy().reshape(6, 2) * sides)
            found.append(Found(float(score), Box(*edges.tolist()), key_points))
        return found

    def locate(self, image: np.ndarray, boxes: list[Box]) -> Found:
        """The best of some candidate boxes, looked at again through slightly different windows.

        A knee looks like one through all of them, and the mean of their key points is sharper than each; what only
        resembles a knee does not stay one: the score is the least of all looks.
        """
        best = max(self.refine(image, boxes), key=lambda found: found.score)
        if best.score < self.config.score2:
            return best
        centred = best.key_points.knee_box()
        step = self.config.look * centred.width
        windows = [centred, *(centred.shifted(dx, dy) for dx in (-step, step) for dy in (-step, step))]
        looks = self.refine(image, windows)
        return Found(
            min(best.score, *(look.score for look in looks)),
            Box(*np.mean([look.box.as_tuple() for look in looks], axis=0).tolist()),
            KeyPoints.from_array(np.mean([look.key_points.as_array() for look in looks], axis=0)),
        )

    def detect(self, image: np.ndarray) -> Found | None:
        """The knee of a single-knee image, or None; a score below ``score2`` is left to the caller to reject."""
        small, factor = self._reduced(image, self.config.smallest_knee)
        found = None
        # The pyramid's largest step takes as long as all others, and few knees are so small.
        for smallest in (self.config.smallest_knee / self.config.factor, self.config.smallest_knee):
            if boxes := _boxes(self.propose(small, smallest)):
                found = self.locate(small, boxes)
                if found.score >= self.config.score2:
                    break
        return found and found.scaled(factor)

    def upside_down(self, image: np.ndarray, found: Found) -> bool:
        """Whether a knee looks far more like one with femur and tibia exchanged."""
        small, factor = self._reduced(image, self.config.smallest_knee)
        box = found.key_points.knee_box().scaled(1 / factor)
        step, top = self.config.look * box.width, small.shape[0] - box.y2
        boxes = [Box(box.x1, top + dy, box.x2, top + dy + box.height) for dy in (-step, 0.0, step)]
        turned = max(look.score for look in self.refine(np.ascontiguousarray(small[::-1]), boxes))
        return 1 - turned < TURNED * (1 - found.score)

    def detect_pair(self, image: np.ndarray) -> list[Found]:
        """The best knee of a whole film and the best beside it, image left first, whatever their scores."""
        small, factor = self._reduced(image, SMALLEST_OF_TWO)
        boxes = _boxes(self.propose(small, SMALLEST_OF_TWO))
        if not boxes:
            return []
        ranked = sorted(self.refine(small, boxes), key=lambda found: -found.score)
        second = next((found for found in ranked[1:] if beside(found.box, ranked[0].box)), None)
        pair = [self.locate(small, [found.box]).scaled(factor) for found in (ranked[0], second) if found]
        return sorted(pair, key=lambda found: found.box.x1)

    def _reduced(self, image: np.ndarray, smallest: float) -> tuple[np.ndarray, int]:
        """A copy as small as both levels can do with, and how many pixels make one of its."""
        factor = 1
        while image.shape[1] >= 2 * FINENESS * WINDOW / smallest:
            image, factor = halved(image), 2 * factor
        return image, factor


def _boxes(rows: np.ndarray) -> list[Box]:
    return [Box(*row) for row in rows.tolist()]


def beside(box: Box, other: Box) -> bool:
    """Whether the other leg's knee can be there: about as large, about as high, and not the same one."""
    (x1, y1), (x2, y2), size = box.centre, other.centre, max(box.width, other.width)
    return abs(x1 - x2) > 0.8 * size and abs(y1 - y2) < 1.5 * size and min(box.width, other.width) > 0.6 * size
