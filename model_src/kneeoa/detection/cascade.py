"""Image pyramid → level 1 → NMS → level 2 → the best knee of one single-knee image.

Thresholds and scales are facenet-pytorch's conventions; the paper gives none (docs/method.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from kneeoa.detection.networks import LEVEL2_SIZE, STRIDE, WINDOW, Level1, Level2, as_input
from kneeoa.geometry import Box, KeyPoints, crop, halved, turned

CANDIDATES = 1024  # most windows of one scale that are compared with each other: a knee gives some ten, noise thousands
SMALLEST_OF_TWO = 0.15  # as `CascadeConfig.smallest_knee`, on a film of two knees, where a box takes about 0.24
FINENESS = (
    3  # least pixels of the copy that is searched, for each of the pyramid's largest step; with 1.5, answers differ
)
TURNED = 0.1  # how much less doubt there must be in the turned knee
TURNED_LOOKS, LOOKS = 3, 8  # second looks at a knee turned upside down, and in all
LEANINGS = (-50, -25, 25, 50)  # degrees by which a doubtful knee is turned
TURNS = (-90, 90, -45, 45, -135, 135)  # degrees by which a film without knees is
ENOUGH = 480  # least px of its width then, for it is to be named only

Window = tuple[np.ndarray, Box]  # an image and where in it level 2 looks


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
    """A knee joint in the pixels of the image it was found in; scores 0 … 1, as it is and turned upside down."""

    score: float
    box: Box
    key_points: KeyPoints
    turned: float = 0.0

    @property
    def upside_down(self) -> bool:
        """Whether it looks far more like a knee with femur and tibia exchanged."""
        return 1 - self.turned < TURNED * (1 - self.score)

    def shifted(self, dx: float, dy: float = 0.0) -> "Found":
        return replace(self, box=self.box.shifted(dx, dy), key_points=self.key_points.shifted(dx, dy))

    def scaled(self, factor: float) -> "Found":
        return replace(self, box=self.box.scaled(factor), key_points=self.key_points.scaled(factor))


class Cascade:
    """The two trained levels and how they are run. Stateless: one instance serves many threads."""

    def __init__(self, level1: Level1, level2: Level2, config: CascadeConfig | None = None) -> None:
        # channels last: pooling is then vectorised, and both levels take less than half the time
        self.level1 = level1.eval().to(memory_format=torch.channels_last)
        self.level2 = level2.eval().to(memory_format=torch.channels_last)
        self.config = config or CascadeConfig()

    @torch.inference_mode()
    def propose(self, images: np.ndarray, smallest: float | None = None) -> list[list[Box]]:
        """Level 1 over the pyramid: prepared images, uint8 (n, h, w) → each one's boxes in its pixels, best first."""
        number, height, width = images.shape
        scale = WINDOW / ((smallest or self.config.smallest_knee) * width)
        layers, factor = list(images), 1  # halved from time to time: no step is reduced from much more than it needs
        boxes, scores = [[np.empty((0, 4))] for _ in images], [[np.empty(0)] for _ in images]
        while min(height, width) * scale >= WINDOW:
            if scale * factor < 1 / 6:
                layers, factor = [halved(image) for image in layers], 2 * factor
            by, how = scale * factor, cv2.INTER_AREA if scale * factor < 1 else cv2.INTER_LINEAR
            small = np.stack([cv2.resize(layer, None, fx=by, fy=by, interpolation=how) for layer in layers])
            logits, offsets = self.level1(as_input(small))
            for i, score in enumerate(logits.sigmoid().numpy()):
                at = np.flatnonzero(score >= self.config.score1)
                at = at[np.argsort(-score.flat[at], kind="stable")[:CANDIDATES]]
                sure = score.flat[at]
                rows, columns = np.unravel_index(at, score.shape)
                corner = np.stack([columns, rows], axis=1) * STRIDE
                window = np.hstack([corner, corner + WINDOW])
                found = (window + offsets[i, :, rows, columns].numpy().T * WINDOW) / scale
                keep = _distinct(found, sure, self.config.nms_scale)
                boxes[i].append(found[keep])
                scores[i].append(sure[keep])
            scale *= self.config.factor
        proposals = []
        for every, score in ((np.concatenate(boxes[i]), np.concatenate(scores[i])) for i in range(number)):
            kept = every[_distinct(every, score, self.config.nms_all)[: self.config.proposals]]
            proposals.append([Box(*row) for row in kept.tolist()])
        return proposals

    @torch.inference_mode()
    def refine(self, windows: Sequence[Window]) -> list[Found]:
        """Level 2 on the squares around boxes: one `Found` each, in the same order, whatever the score."""
        if not windows:
            return []
        squares = [box.squared().rounded() for _, box in windows]
        size = LEVEL2_SIZE, LEVEL2_SIZE
        crops = np.stack([crop(image, box, size) for (image, _), box in zip(windows, squares, strict=True)])
        logits, offsets, points = self.level2(as_input(crops))
        found = []
        for square, score, offset, xy in zip(squares, logits.sigmoid(), offsets, points, strict=True):
            corner, sides = np.array([square.x1, square.y1]), np.array([square.width, square.height])
            edges = np.array(square.as_tuple()) + offset.numpy() * np.tile(sides, 2)
            key_points = KeyPoints.from_array(corner + xy.numpy().reshape(6, 2) * sides)
            found.append(Found(float(score), Box(*edges.tolist()), key_points))
        return found

    def locate(self, image: np.ndarray, boxes: list[Box]) -> Found:
        """`locate_each` of one image."""
        return self.locate_each([(image, boxes)])[0]

    def locate_each(self, candidates: Sequence[tuple[np.ndarray, list[Box]]]) -> list[Found]:
        """Of each image, the best of some boxes, looked at again through slightly different windows, and turned.

        A knee looks like one through all of them, and the mean of their key points is sharper than each; what only
        resembles a knee does not stay one: the score is the least of all looks.
        """
        every = iter(self.refine([(image, box) for image, boxes in candidates for box in boxes]))
        best = [max((next(every) for _ in boxes), key=lambda found: found.score) for _, boxes in candidates]
        good = [i for i, found in enumerate(best) if found.score >= self.config.score2]
        looks = self.refine([window for i in good for window in self._again(candidates[i][0], best[i])])
        for at, i in enumerate(good):
            own = looks[at * LOOKS : (at + 1) * LOOKS]
            upright, turned = own[:-TURNED_LOOKS], own[-TURNED_LOOKS:]
            best[i] = Found(
                min(best[i].score, *(look.score for look in upright)),
                Box(*np.mean([look.box.as_tuple() for look in upright], axis=0).tolist()),
                KeyPoints.from_array(np.mean([look.key_points.as_array() for look in upright], axis=0)),
                max(look.score for look in turned),
            )
        return best

    def _again(self, image: np.ndarray, found: Found) -> list[Window]:
        """The second looks at a knee: five upright, then three at the image turned upside down."""
        box, flipped = found.key_points.knee_box(), np.ascontiguousarray(image[::-1])
        step, top = self.config.look * box.width, image.shape[0] - box.y2
        turned = Box(box.x1, top, box.x2, top + box.height)
        upright = [box, *_around(box, step)]
        return [(image, each) for each in upright] + [(flipped, turned.shifted(0, dy)) for dy in (-step, 0.0, step)]

    def leans(self, image: np.ndarray, found: Found) -> bool:
        """Whether what was found looks far more like a knee when it is turned by 25° or 50° to either side."""
        side = 4 * LEVEL2_SIZE
        around = crop(image, Box.square(found.box.centre, 2 * found.box.width), (side, side))
        windows = []
        for degrees in LEANINGS:
            copy = turned(around, degrees)
            box = Box.square((copy.shape[1] / 2, copy.shape[0] / 2), side / 2)
            windows += [(copy, each) for each in (box, *_around(box, self.config.look * box.width))]
        return 1 - max(look.score for look in self.refine(windows)) < TURNED * (1 - found.score)

    def detect(self, images: Sequence[np.ndarray]) -> list[Found | None]:
        """The knee of each single-knee image, or None; a score below ``score2`` is left to the caller to reject.

        They are of one shape, and searched together.
        """
        if not images:
            return []
        reduced = [self._reduced(image, self.config.smallest_knee) for image in images]
        proposals = self.propose(np.stack([small for small, _ in reduced]))
        some = [i for i, boxes in enumerate(proposals) if boxes]
        found: list[Found | None] = [None] * len(images)
        for i, knee in zip(some, self.locate_each([(reduced[i][0], proposals[i]) for i in some]), strict=True):
            found[i] = knee.scaled(reduced[i][1])
        return found

    def detect_pair(self, image: np.ndarray) -> list[Found]:
        """The best knee of a whole film and the best beside it, image left first, whatever their scores."""
        small, factor = self._reduced(image, SMALLEST_OF_TWO)
        boxes = self.propose(small[None], SMALLEST_OF_TWO)[0]
        if not boxes:
            return []
        ranked = sorted(self.refine([(small, box) for box in boxes]), key=lambda found: -found.score)
        second = next((found for found in ranked[1:] if beside(found.box, ranked[0].box)), None)
        pair = self.locate_each([(small, [found.box]) for found in (ranked[0], second) if found])
        return sorted((found.scaled(factor) for found in pair), key=lambda found: found.box.x1)

    def seen_turned(self, image: np.ndarray) -> str | None:
        """Why a film shows knees only when it is turned, ``upside_down`` or ``rotated``; None where it shows none then."""
        while image.shape[1] >= 2 * ENOUGH:
            image = halved(image)
        if self._shows_knees(np.ascontiguousarray(image[::-1])):
            return "upside_down"
        return "rotated" if any(self._shows_knees(turned(image, degrees)) for degrees in TURNS) else None

    def _shows_knees(self, image: np.ndarray) -> bool:
        return any(found.score >= self.config.score2 for found in self.detect_pair(image))

    def _reduced(self, image: np.ndarray, smallest: float) -> tuple[np.ndarray, int]:
        """A copy as small as both levels can do with, and how many pixels make one of its."""
        factor = 1
        while image.shape[1] >= 2 * FINENESS * WINDOW / smallest:
            image, factor = halved(image), 2 * factor
        return image, factor


def _distinct(boxes: np.ndarray, scores: np.ndarray, most: float) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes (n, 4) that overlap no better one by an IoU above ``most``, best first."""
    # torchvision's does the same, and importing it takes four seconds
    sized = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    return np.array(cv2.dnn.NMSBoxes(sized, scores, 0.0, most), int)  # type: ignore[arg-type]  # arrays are taken, too


def _around(box: Box, step: float) -> list[Box]:
    return [box.shifted(dx, dy) for dx in (-step, step) for dy in (-step, step)]


def beside(box: Box, other: Box) -> bool:
    """Whether the other leg's knee can be there: about as large, about as high, and not the same one."""
    (x1, y1), (x2, y2), size = box.centre, other.centre, max(box.width, other.width)
    return abs(x1 - x2) > 0.8 * size and abs(y1 - y2) < 1.5 * size and min(box.width, other.width) > 0.6 * size
