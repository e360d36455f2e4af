"""Augmentation of the whole joint before it is split, so that both patches agree. No flips: they swap lateral and medial."""

import cv2
import numpy as np

from kneeoa.geometry import Box


def photometric(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Contrast, gamma, blur and noise, with and without local equalisation: films differ in these, knees do not."""
    if rng.random() < 0.3:
        clahe = cv2.createCLAHE(rng.uniform(1, 5), (int(rng.integers(2, 9)),) * 2)
        image = clahe.apply(image)
    elif rng.random() < 0.3:  # undo some of the local contrast that research crops carry
        low = cv2.GaussianBlur(image, (0, 0), image.shape[0] / rng.uniform(4, 10)).astype(np.float32)
        image = np.clip(image * 0.5 + low * rng.uniform(0.3, 0.7), 0, 255).astype(np.uint8)
    x = (image / np.float32(255)) ** np.float32(rng.uniform(0.5, 1.5))
    x = x * rng.uniform(0.7, 1.2) + rng.uniform(-0.1, 0.1)
    if rng.random() < 0.3:
        x = cv2.GaussianBlur(x, (0, 0), rng.uniform(0.3, 1.2))
    if rng.random() < 0.5:
        x = x + rng.normal(0, rng.uniform(0.005, 0.04), x.shape)
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)


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
