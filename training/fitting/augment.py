"""Augmentation of the whole joint before it is split, so that both patches agree. No flips: they swap lateral and medial."""

import cv2
import numpy as np

from kneeoa.geometry import Box
from training.synthesis.corruptions import corrupted

PHOTOMETRIC = ("clahe", "flatten", "gamma", "blur", "noise", "steps", "jpeg", "pixels", "gradient")
OFTEN = 0.15  # how often an image meets each of them


def photometric(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each of `PHOTOMETRIC` now and then, of any strength and in any order: films differ in these, knees do not."""
    for name in rng.permutation(PHOTOMETRIC):
        if rng.random() < OFTEN:
            image = corrupted(image, name, rng.uniform(0, 3), rng)
    return image


def warp(
    image: np.ndarray, box: Box, size: tuple[int, int], rng: np.random.Generator, strength: float = 1.0
) -> np.ndarray:
    """Cut a box with a random rotation (± 10°), shift and scale (both about the key-point error), resized to ``size``."""
    angle = np.deg2rad(rng.uniform(-10, 10) * strength)
    scale = np.exp(rng.normal(0, 0.05, 2) * strength)
    shift = rng.normal(0, 0.03, 2) * (box.width, box.width) * strength
    sx, sy = size[0] / (box.width * scale[0]), size[1] / (box.height * scale[1])
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.diag([sx, sy]) @ rotation
    offset = np.array(size) / 2 - matrix @ (np.array(box.centre) + shift)
    # Half a pixel: OpenCV counts from pixel centres, our boxes from pixel edges.
    offset += matrix @ (0.5, 0.5) - 0.5
    return cv2.warpAffine(
        image, np.column_stack([matrix, offset]), size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
