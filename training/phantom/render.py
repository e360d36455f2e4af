"""Paints outlines the way X-rays do: everything in the beam adds up, edges of bone are dense."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from kneeoa.geometry import KeyPoints
from training.phantom.anatomy import Outlines

_SUBPIXEL = 4  # bits of cv2's fixed-point coordinates


@dataclass(frozen=True)
class Style:
    """Ranges of looks; the ``test`` style is kept apart from training on purpose."""

    bone: tuple[float, float] = (0.26, 0.38)
    cortex_mm: tuple[float, float] = (0.7, 1.5)
    texture: tuple[float, float] = (0.01, 0.035)
    grain_mm: tuple[float, float] = (0.3, 0.8)


STYLES = {"train": Style(), "test": Style((0.3, 0.45), (0.5, 1.0), (0.03, 0.05), (0.25, 0.6))}


def _mask(outlines: Iterable[np.ndarray], origin: np.ndarray, mm: float, shape: tuple[int, int]) -> np.ndarray:
    """Union of polygons, uint8 0 … 255 with soft edges."""
    mask = np.zeros(shape, np.uint8)
    for outline in outlines:
        fixed = np.round((outline / mm + origin - 0.5) * 2**_SUBPIXEL).astype(np.int32)
        cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, _SUBPIXEL)
    return mask


def _grain(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Trabeculae: noise drawn out along the shaft, unit variance."""
    noise = cv2.GaussianBlur(rng.normal(0, 1, shape).astype(np.float32), (0, 0), sigmaX=sigma, sigmaY=3 * sigma)
    return noise / noise.std()


def _bone(rng: np.random.Generator, mask: np.ndarray, mm: float, style: Style, grain: np.ndarray) -> np.ndarray:
    """Density of one bone: a body, trabecular grain, a dense cortex along its edge."""
    inside = (mask > 127).astype(np.uint8)
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3) * mm
    cortex = np.exp(-depth / rng.uniform(*style.cortex_mm)) * rng.uniform(0.12, 0.25)
    body = rng.uniform(*style.bone) * (0.6 + 0.4 * np.clip(depth / 9, 0, 1))
    return (mask / np.float32(255)) * (body + cortex + rng.uniform(*style.texture) * grain)


def draw_leg(
    rng: np.random.Generator,
    outlines: Outlines,
    shape: tuple[int, int],
    centre: tuple[float, float],
    mm: float,
    style: str = "train",
) -> tuple[np.ndarray, KeyPoints]:
    """One right leg on black, float32 (h, w) about 0 … 1, and its key points in pixels; ``centre`` is the eminence's."""
    look, origin = STYLES[style], np.array(centre)
    grain = _grain(rng, shape, rng.uniform(*look.grain_mm) / mm)
    femur = _mask((outlines.femur,), origin, mm, shape)
    tibia = _mask((outlines.tibia,), origin, mm, shape)
    spurs = _mask(outlines.spurs, origin, mm, shape)
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    x, y = (columns + 0.5 - centre[0]) * mm, (rows + 0.5 - centre[1]) * mm
    half = rng.uniform(55, 75) - 0.03 * y * rng.uniform(0, 2) + 4 * np.exp(-((y / 40) ** 2))
    tissue = np.sqrt(np.clip(1 - (np.abs(x) / half) ** 2, 0, 1)) * rng.uniform(0.2, 0.4)
    subchondral = rng.uniform(0.04, 0.12) * np.exp(-((np.abs(y - 6) / 6) ** 2))
    bones = _bone(rng, femur, mm, look, grain) + _bone(rng, tibia, mm, look, grain)
    only_spur = np.clip(spurs.astype(np.float32) - np.maximum(femur, tibia), 0, 255) / 255
    bones += only_spur * rng.uniform(0.75, 1.0) * float(np.mean(look.bone) + 0.1)
    bones += subchondral * np.maximum(femur, tibia) / 255
    bones += 0.5 * _bone(rng, _mask((outlines.fibula,), origin, mm, shape), mm, look, grain)
    patella = _mask((outlines.patella,), origin, mm, shape)
    bones += 0.35 * cv2.GaussianBlur(_bone(rng, patella, mm, look, grain), (0, 0), 1.2 / mm)
    leg = cv2.GaussianBlur(tissue + bones, (0, 0), rng.uniform(0.25, 0.6) / mm)
    return leg.astype(np.float32), outlines.key_points.scaled(1 / mm).shifted(*centre)
