"""What hospitals do to an image before a grader sees it, by name and strength: to train against and to measure under.

Strengths are 1 to 3, 2 the middle: what one meets now and then. Images are uint8 (h, w) with bones bright; geometry is about
the image's centre.
"""

from collections.abc import Callable

import cv2
import numpy as np

Corruption = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def _clahe(image: np.ndarray, s: float, _: np.random.Generator) -> np.ndarray:
    return cv2.createCLAHE(2.0 * s, (8, 8)).apply(image)


def _flatten(image: np.ndarray, s: float, _: np.random.Generator) -> np.ndarray:
    """30, 50, 70 % of the local contrast taken away: research crops were equalised locally, films were not."""
    low = cv2.GaussianBlur(image, (0, 0), image.shape[0] / 8).astype(np.float32)
    return _bytes(image - (0.1 + 0.2 * s) * (image - low))


def _gamma(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return _bytes(255 * (image / np.float32(255)) ** np.float32((1 + 0.4 * s) ** rng.choice((-1, 1))))


def _blur(image: np.ndarray, s: float, _: np.random.Generator) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 0.5 * s)


def _noise(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return _bytes(image + rng.normal(0, 6 * s, image.shape))


def _steps(image: np.ndarray, s: float, _: np.random.Generator) -> np.ndarray:
    """64, 32, 16 grey values."""
    step = 2 ** round(1 + s)
    return (image // step * step + step // 2).astype(np.uint8)


def _jpeg(image: np.ndarray, s: float, _: np.random.Generator) -> np.ndarray:
    """Quality 50, 30, 10."""
    coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, round(70 - 20 * s)])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE)
    assert decoded is not None
    return decoded


def _pixels(image: np.ndarray, s: float, _: np.random.Generator) -> np.ndarray:
    """Pixels 1.3, 1.6, 1.9 times as large, and back."""
    h, w = image.shape
    small = cv2.resize(image, None, fx=1 / (1 + 0.3 * s), fy=1 / (1 + 0.3 * s), interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR)


def _rotation(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return _placed(image, rng.choice((-1, 1)) * 4.0 * s, 1.0)


def _magnification(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    return _placed(image, 0.0, (1 + 0.04 * s) ** rng.choice((-1, 1)))


def _gradient(image: np.ndarray, s: float, rng: np.random.Generator) -> np.ndarray:
    """Brighter to one side, by up to 15, 30, 45 % of white."""
    h, w = image.shape
    y, x = np.mgrid[:h, :w] / np.float32(max(h, w)) - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    return _bytes(image + 255 * 0.15 * s * (np.cos(angle) * x + np.sin(angle) * y))


def _placed(image: np.ndarray, degrees: float, scale: float) -> np.ndarray:
    h, w = image.shape
    matrix = cv2.getRotationMatrix2D(((w - 1) / 2, (h - 1) / 2), degrees, scale)
    return cv2.warpAffine(image, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS: dict[str, Corruption] = {
    "clahe": _clahe,
    "flatten": _flatten,
    "gamma": _gamma,
    "blur": _blur,
    "noise": _noise,
    "steps": _steps,
    "jpeg": _jpeg,
    "pixels": _pixels,
    "rotation": _rotation,
    "magnification": _magnification,
    "gradient": _gradient,
}
MIDDLE = 2.0


def corrupted(image: np.ndarray, name: str, strength: float, rng: np.random.Generator) -> np.ndarray:
    """The image, uint8 (h, w), corrupted in the named way; ``strength`` 0 … 3, where 0 leaves it as it is."""
    return CORRUPTIONS[name](image, strength, rng) if strength else image
