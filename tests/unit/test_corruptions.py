"""Named corruptions: each does something, the more the stronger, and leaves the image an image."""

import cv2
import numpy as np
import pytest

from training.evaluation.evaluate import corruption
from training.synthesis.corruptions import CORRUPTIONS, corrupted
from training.synthesis.phantom import draw_joint


@pytest.fixture(scope="module")
def knee() -> np.ndarray:
    return cv2.resize(draw_joint(np.random.default_rng(3))[0], (224, 224))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_grows_with_its_strength(knee, name):
    def change(strength: float) -> float:
        found = corrupted(knee, name, strength, np.random.default_rng(0))
        assert (found.dtype, found.shape) == (np.uint8, knee.shape)
        return float(np.abs(found.astype(int) - knee).mean())

    assert change(0) == 0
    assert 0.1 < change(1) < change(2) < change(3)


def test_corruptions_are_named_on_the_command_line():
    assert corruption("blur:3") == [("blur", 3.0)]
    assert corruption("all") == [(name, 2.0) for name in CORRUPTIONS]
    for wrong in ("fog", "blur:0", "blur:9", "blur:x"):
        with pytest.raises(ValueError, match="fog|blur|x"):
            corruption(wrong)
