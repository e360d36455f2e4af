"""From a main joint to the two patches the Siamese network sees."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Preprocessing:
    """What must not drift between training and serving; stored in the weights and compared at load.

    Attributes
    ----------
    patch : int
        Side of a patch, pixels.
    contrast : str
        ``equalize``: global histogram equalisation of the joint, which cancels any monotone change of grey values made
        before it, so a film, a screenshot and a pre-processed research crop look alike; ``none``.
    mean, std : tuple of float
        Of the backbone's three equal input channels, on a 0 … 1 scale.
    mirror_left : bool
        Left knees are mirrored, so that the left patch is the lateral compartment; False is the paper to the letter.
    """

    patch: int = 128
    contrast: str = "equalize"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    mirror_left: bool = True


def standardise(joint: np.ndarray, config: Preprocessing) -> np.ndarray:
    """Main joint, uint8 of any size → uint8 (patch, 2 patch) with the stated contrast."""
    size = (2 * config.patch, config.patch)
    shrinking = joint.shape[1] > size[0]
    joint = cv2.resize(joint, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return cv2.equalizeHist(joint) if config.contrast == "equalize" else joint


def to_patches(joints: Tensor, config: Preprocessing) -> tuple[Tensor, Tensor]:
    """Standardised joints, uint8 (n, p, 2p) → left and flipped right patches, float32 (n, 3, p, p), on the same device."""
    x = (joints.float() / 255).unsqueeze(1)
    mean, std = (torch.tensor(v, device=x.device).view(1, 3, 1, 1) for v in (config.mean, config.std))
    x = (x - mean) / std
    return x[..., : config.patch], x[..., config.patch :].flip(-1)
