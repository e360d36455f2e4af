"""From a main joint to the two patches the Siamese network sees."""

from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from kneeoa.weights import WeightsError


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
        Of the backbone's input channels, which all show the same grey image, on a 0 … 1 scale; their number is `channels`.
    mirror_left : bool
        Left knees are mirrored, so that the left patch is the lateral compartment; False is the paper to the letter.
    """

    patch: int = 128
    contrast: str = "equalize"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    mirror_left: bool = True

    @property
    def channels(self) -> int:
        """How many the backbone takes: ImageNet's 3, or 1."""
        return len(self.mean)

    @classmethod
    def from_metadata(cls, stored: dict[str, Any]) -> "Preprocessing":
        """As a weights file has it.

        Raises
        ------
        WeightsError
            If its names are not this code's: it prepared joints in another way.
        """
        if unknown := set(stored) ^ set(asdict(cls())):
            raise WeightsError(f"the preprocessing of these weights and of this code differ in {sorted(unknown)}")
        return cls(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})


def standardise(joint: np.ndarray, config: Preprocessing) -> np.ndarray:
    """Main joint, uint8 of any size → uint8 (patch, 2 patch) with the stated contrast."""
    size = (2 * config.patch, config.patch)
    shrinking = joint.shape[1] > size[0]
    joint = cv2.resize(joint, size, interpolation=cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR)
    return cv2.equalizeHist(joint) if config.contrast == "equalize" else joint


def to_patches(joints: Tensor, config: Preprocessing) -> tuple[Tensor, Tensor]:
    """Standardised joints, uint8 (n, p, 2p) → left and flipped right patches, float32 (n, channels, p, p), on their device."""
    x = (joints.float() / 255).unsqueeze(1)
    mean, std = (torch.tensor(v, device=x.device).view(1, -1, 1, 1) for v in (config.mean, config.std))
    x = (x - mean) / std
    return x[..., : config.patch], x[..., config.patch :].flip(-1)
