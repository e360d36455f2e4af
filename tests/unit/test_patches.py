import json
from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch

from kneeoa.grading.patches import Preprocessing, standardise, to_patches
from kneeoa.weights import WeightsError


def test_a_joint_becomes_two_patches_wide_and_one_high(rng):
    joint = rng.integers(40, 90, (50, 130), np.uint8)

    plain, equalised = (standardise(joint, Preprocessing(patch=32, contrast=how)) for how in ("none", "equalize"))

    assert plain.shape == (32, 64)
    assert plain.dtype == np.uint8
    assert plain.max() <= 90
    assert (equalised == cv2.equalizeHist(plain)).all()


def test_shrinking_averages_and_growing_interpolates():
    stripes = np.tile(np.array([0, 200], np.uint8), (32, 64))

    small = standardise(stripes, Preprocessing(patch=16, contrast="none"))
    large = standardise(stripes[:2, :4], Preprocessing(patch=8, contrast="none"))

    assert (small == 100).all()
    assert large[0].tolist() == [0, 0, 25, 75, 125, 175, 175, 125, 75, 25, 25, 75, 125, 175, 200, 200]
    same = standardise(stripes[:32, :64], Preprocessing(patch=32, contrast="none"))
    assert (same == stripes[:32, :64]).all()


def test_patches_are_scaled_to_the_backbones_mean_and_deviation(rng):
    joints = torch.from_numpy(rng.integers(0, 256, (2, 16, 32), np.uint8))
    config = Preprocessing(patch=16, mean=(0.5, 0.25), std=(0.5, 2.0))

    left, right = to_patches(joints, config)

    assert left.shape == right.shape == (2, 2, 16, 16)
    grey = joints.float() / 255
    torch.testing.assert_close(left[:, 0], (grey[..., :16] - 0.5) / 0.5)
    torch.testing.assert_close(left[:, 1], (grey[..., :16] - 0.25) / 2)
    torch.testing.assert_close(right[:, 1].flip(-1), (grey[..., 16:] - 0.25) / 2)


def test_a_preprocessing_survives_its_weights_file_and_no_other_is_read():
    config = Preprocessing(patch=64, contrast="none", mean=(0.5,), std=(0.25,), mirror_left=False)
    stored = json.loads(json.dumps(asdict(config)))

    assert Preprocessing.from_metadata(stored) == config
    assert (config.channels, Preprocessing().channels) == (1, 3)
    with pytest.raises(WeightsError, match="sharpness"):
        Preprocessing.from_metadata(stored | {"sharpness": 1})
    del stored["patch"]
    with pytest.raises(WeightsError, match="patch"):
        Preprocessing.from_metadata(stored)


def test_what_weights_are_trained_on_unless_they_say_otherwise():
    """ImageNet's mean and deviation, as timm's backbones expect them."""
    assert asdict(Preprocessing()) == {
        "patch": 128,
        "contrast": "equalize",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "mirror_left": True,
    }
