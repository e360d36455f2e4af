"""From attenuation to the film: focal blur, scatter, quantum noise, tone curve."""

import cv2
import numpy as np

from training.synthesis.phantom.style import Style

_BEAM = 2.2  # attenuation 1 lets exp(−2.2) of the beam through


def _far_blur(image: np.ndarray, sigma_px: float) -> np.ndarray:
    """A blur far wider than a pixel, made on a small copy because that is all it needs."""
    small = cv2.resize(image, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    return cv2.resize(cv2.GaussianBlur(small, (0, 0), sigma_px / 8), image.shape[::-1], interpolation=cv2.INTER_LINEAR)


def expose(rng: np.random.Generator, attenuation: np.ndarray, mm: float, style: Style) -> np.ndarray:
    """Attenuation (float32) to a film, float32 0 … 1 with bones bright; ``mm`` is the size of a pixel."""
    beam = np.exp(-_BEAM * cv2.GaussianBlur(attenuation, (0, 0), max(rng.uniform(*style.blur_mm) / mm, 0.3)))
    beam += rng.uniform(*style.scatter) * _far_blur(beam, 25 / mm)
    # Photons are counted: the noise is the square root of what arrives, so after the logarithm bone is noisier than air.
    grain = rng.standard_normal(beam.shape, dtype=np.float32)
    beam += rng.uniform(*style.noise) * 0.3 / mm * np.sqrt(beam) * grain
    film = -np.log(np.maximum(beam, 0.02))
    low, high = np.percentile(film[::5, ::5], (1, 99.7))
    black, white = rng.uniform(0.02, 0.10), rng.uniform(0.78, 0.97)
    film = np.clip((film - low) / max(high - low, 1e-3), 0, 1.1) ** np.float32(rng.uniform(*style.gamma))
    return np.clip(black + (white - black) * film, 0, 1).astype(np.float32)
