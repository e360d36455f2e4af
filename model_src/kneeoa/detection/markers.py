"""Whether the letters R and L on a film, of lead or burned in, contradict its sides. They cast doubt, and never name a side.

Small pieces that stand alone, much brighter than what is around them or cut out of a plate that is, are compared with drawn
letters, with mirrored ones and with all others. Whatever is not clearly an R or an L is nothing. All limits are ours;
docs/method.md has what was measured with them.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kneeoa.geometry import Box
from kneeoa.tasks import Laterality

KNEE = 170  # px of a knee's box on the film as it is looked at, about 0.6 mm each
SPARED = 0.8  # rows and columns of a finer film are left out down to 1.25 times that many: a third of the time
HEIGHT = 0.045, 0.2  # of a letter, in widths of the box: 5 … 20 mm
ASPECT = 0.4, 1.1  # its width in heights
FILLED = 0.15, 0.8  # share of its frame
PLATE = 1.2, 1.8, 0.45  # height of the lowest and the highest letters' plates in theirs; share of its frame at least
ALONE = 0.7  # in heights: how far there is no other piece about as high; words are not read
AROUND = 0.18  # in widths of the box: what a pixel is compared with
SCALE = 200  # grey values that the film's contrast becomes
STEP = 24  # of them, from a pixel's surroundings to a pixel of a letter
CONTRAST = 50  # of them, from around a letter to its mean
EVEN = 0.45  # standard deviation within a letter, in its own contrast
WIDE, HIGH, MARGIN = 16, 20, 2  # px of a letter as it is compared
ALIKE, APART = 0.8, 0.7  # least correlation with a letter; most of its distance from 1 in that of the three it is not
NEAR = 1.1, 1.5  # in widths of the box: how far beside a knee alone, and beside one of two, its letter lies at most
BETWEEN = 0.3  # in widths of the box: how much nearer to its knee than to the other
_SIDES = (Laterality.RIGHT, Laterality.LEFT)
_OTHERS = "ABCDEFGHIJKMNOPQSTUVWXYZ0123456789"
_ANGLES, _STROKES, _DRAWN = (-16, -8, 0, 8, 16), (0, 3, 7), 64
_Frame = tuple[int, int, int, int]  # x, y, width, height


@dataclass(frozen=True)
class Letter:
    """An R or an L with its centre at ``(x, y)``, film pixels; ``mirrored`` where it is to be read in a mirror."""

    side: Laterality
    mirrored: bool
    x: float
    y: float


class Markers:
    """Reads R and L. Stateless after construction."""

    def __init__(self) -> None:
        drawn = [(_kind_of(text), picture) for text in "RL" + _OTHERS for picture in _pictures(text)]
        both = [(kind + 2 * m if kind < 2 else 4, p[:, ::-1] if m else p) for kind, p in drawn for m in (0, 1)]
        both.sort(key=lambda pair: pair[0])
        self._templates = np.stack([_standard(picture) for _, picture in both])
        self._starts = np.searchsorted([kind for kind, _ in both], range(5))  # R, L, both mirrored, others

    def doubt(self, film: np.ndarray, knees: Iterable[tuple[Box, Laterality]], swapped: bool) -> bool:
        """Whether letters contradict the sides of a film's knees, and none agrees.

        A mirrored film of two knees has its letters beside the wrong ones. Of a knee alone the letter must read as the film
        is shown; beside another knee it need not: markers may lie face down.

        Parameters
        ----------
        film : ndarray of shape (h, w)
            Bones bright, arbitrary units.
        knees
            Boxes in film pixels, and sides.
        swapped : bool
            Whether the header says that the film is shown as in a mirror.
        """
        named = list(knees)
        if not named or any(side is Laterality.UNKNOWN for _, side in named):
            return False
        letters = self.read(film, [box for box, _ in named])
        return {_agrees(letter, named, swapped) for letter in letters} - {None} == {False}

    def read(self, film: np.ndarray, boxes: Sequence[Box]) -> list[Letter]:
        """The letters outside the knees' boxes."""
        unit = float(np.mean([box.width for box in boxes]))
        shrink = min(1.0, KNEE / unit)
        small = _grey(film, shrink)
        if small is None:
            return []
        found = []
        for (x, y, w, h), shape in _pieces(small, shrink * unit):
            at = (x + w / 2) / shrink, (y + h / 2) / shrink
            if any(box.x1 < at[0] < box.x2 and box.y1 < at[1] < box.y2 for box in boxes):
                continue
            if (kind := self._kind(shape)) is not None:
                found.append(Letter(_SIDES[kind % 2], kind >= 2, *at))
        return found

    def _kind(self, shape: np.ndarray) -> int | None:
        # not by @: BLAS would wake its threads, which then spin for a tenth of a second on the core of another worker
        alike = np.einsum("ij,j->i", self._templates, _standard(shape))
        best = np.maximum.reduceat(alike, self._starts)
        kind = int(best.argmax())
        if kind == 4 or best[kind] < ALIKE:
            return None
        return kind if 1 - best[kind] < APART * (1 - np.delete(best[:4], kind).max()) else None


def _agrees(letter: Letter, knees: Sequence[tuple[Box, Laterality]], swapped: bool) -> bool | None:
    """Whether a letter agrees with the side of the knee beside it; None where it lies beside none, or between two."""
    far = [abs(letter.x - box.centre[0]) / box.width for box, _ in knees]
    own, *others = np.argsort(far)
    if far[own] > NEAR[bool(others)] or any(far[other] < far[own] + BETWEEN for other in others):
        return None
    return letter.side is knees[own][1] and (bool(others) or letter.mirrored == swapped)


def _grey(film: np.ndarray, shrink: float) -> np.ndarray | None:
    """The film in small, uint8, `SCALE` for its contrast; None where it has none."""
    height, width = (max(1, round(shrink * side)) for side in film.shape)
    step = max(1, int(SPARED / shrink))
    fine = np.ascontiguousarray(film[::step, ::step])
    small = np.asarray(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), np.float32)
    low, high = np.percentile(small[::4, ::4], (2, 99.5)).tolist()
    if high <= low:
        return None
    scale = SCALE / (high - low)
    return np.asarray(cv2.convertScaleAbs(np.clip(small, low, low + 255 / scale), alpha=scale, beta=-low * scale))


def _pieces(film: np.ndarray, unit: float) -> Iterator[tuple[_Frame, np.ndarray]]:
    """Frames and shapes, float 0 … 1, of what may be letters; ``unit`` is the width of a knee's box."""
    side = round(AROUND * unit) | 1
    bright = (cv2.subtract(film, cv2.blur(film, (side, side))) > STEP).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=4)
    for k in _alone(stats, (bright.shape[0], bright.shape[1]), unit):
        x, y, w, h, _ = stats[k]
        part = np.s_[y : y + h, x : x + w]
        yield from _clear(film, (x, y), labels[part] == k, 1)
    _, _, w, h, area = stats.T
    plates = (h > PLATE[0] * HEIGHT[0] * unit) & (h < PLATE[1] * HEIGHT[1] * unit)
    plates &= (w > ASPECT[0] * h) & (w < 2 * h) & (area > PLATE[2] * w * h)
    for k in np.flatnonzero(plates):
        left, top, w, h, _ = stats[k]
        _, holes, inside, _ = cv2.connectedComponentsWithStats(
            (labels[top : top + h, left : left + w] != k).astype(np.uint8), connectivity=4
        )
        for hole in _alone(inside, (h, w), unit):
            x, y, w, h, _ = inside[hole]
            yield from _clear(film, (left + x, top + y), holes[y : y + h, x : x + w] == hole, -1)


def _clear(
    film: np.ndarray, corner: tuple[int, int], shape: np.ndarray, sign: int
) -> Iterator[tuple[_Frame, np.ndarray]]:
    (x, y), (h, w) = corner, shape.shape
    grey = film[y : y + h, x : x + w]
    contrast = sign * (grey[shape].mean() - grey[~shape].mean())
    if contrast > CONTRAST and grey[shape].std() < EVEN * contrast:
        yield (x, y, w, h), shape.astype(np.float32)


def _alone(stats: np.ndarray, size: tuple[int, int], unit: float) -> Iterator[int]:
    """Labels of components of a letter's size with none about as high near them, but for what encloses them."""
    x, y, w, h, area = stats.T
    fits = (h > HEIGHT[0] * unit) & (h < HEIGHT[1] * unit) & (w > ASPECT[0] * h) & (w < ASPECT[1] * h)
    fits &= (area > FILLED[0] * w * h) & (area < FILLED[1] * w * h)
    fits &= (x > 0) & (y > 0) & (x + w < size[1]) & (y + h < size[0])
    fits[0] = False  # the background
    for k in np.flatnonzero(fits):
        a, b, c, d = x[k], y[k], w[k], h[k]
        gap = np.maximum(np.maximum(x - a - c, a - x - w), np.maximum(y - b - d, b - y - h))
        encloses = (x <= a) & (y <= b) & (x + w >= a + c) & (y + h >= b + d)  # itself, too
        if not ((gap < ALONE * d) & (h > 0.6 * d) & (h < 1.7 * d) & ~encloses).any():
            yield int(k)


def _kind_of(text: str) -> int:
    return "RL".find(text) % 5  # R 0, L 1, others 4


def _pictures(text: str) -> Iterator[np.ndarray]:
    """A character in several strokes and turns, float 0 … 1, cut to its frame."""
    font = ImageFont.load_default(_DRAWN)
    for stroke in _STROKES:
        paper = Image.new("L", (2 * _DRAWN, 2 * _DRAWN))
        ImageDraw.Draw(paper).text((_DRAWN, _DRAWN), text, 255, font, "mm", stroke_width=stroke)
        for angle in _ANGLES:
            turned = (np.asarray(paper.rotate(angle, Image.Resampling.BILINEAR)) > 127).astype(np.uint8)
            x, y, w, h = cv2.boundingRect(turned)
            yield turned[y : y + h, x : x + w].astype(np.float32)


def _standard(shape: np.ndarray) -> np.ndarray:
    """A shape stretched to the size that letters are compared at, as a vector of mean 0 and length 1."""
    shrinking = shape.shape[0] > HIGH
    inner = cv2.resize(shape, (WIDE, HIGH), interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    soft = np.asarray(cv2.GaussianBlur(np.pad(inner, MARGIN), (0, 0), 0.7), np.float32).ravel()
    centred = soft - soft.mean()
    return np.asarray(centred / np.linalg.norm(centred))
