import json

import numpy as np
import pytest

from kneeoa.detection.handedness import Handedness, asymmetry
from kneeoa.geometry import Box
from kneeoa.tasks import Laterality
from tests.conftest import WEIGHTS
from training.data.knee_kl import read_knee_kl

R, L, UNKNOWN = Laterality.RIGHT, Laterality.LEFT, Laterality.UNKNOWN
BOX = Box(10, 10, 90, 90)


def test_the_mirror_image_has_all_signs_changed(rng):
    image = rng.random((100, 100), np.float32)

    mirrored = asymmetry(image[:, ::-1].copy(), BOX.mirrored(100))

    assert mirrored == pytest.approx(-asymmetry(image, BOX), abs=0.02)


def test_grey_values_do_not_matter_but_their_order(rng):
    image = rng.random((100, 100), np.float32)

    assert asymmetry(100 + 3 * image, BOX) == pytest.approx(asymmetry(image, BOX), abs=0.02)


def test_only_named_sides_are_doubted_and_a_film_by_the_mean_of_its_knees(rng):
    image = rng.random((100, 100), np.float32)
    weights = asymmetry(image, BOX)
    reading = Handedness(weights / (weights @ weights), limit=0.2)  # reads this image as 1, a right knee

    assert [reading.doubts(image, [(BOX, side)]) for side in (R, L, UNKNOWN)] == [False, True, False]
    assert not reading.doubts(image, [(BOX, R), (BOX, L)])
    assert not reading.doubts(np.zeros((100, 100), np.float32), [(BOX, L)])
    assert not reading.doubts(image, [])


def test_real_knees_are_not_doubted_and_mirrored_ones_are(knee_kl):
    stored = json.loads((WEIGHTS / "handedness.json").read_text())
    reading = np.array(stored["weights"])
    knees = read_knee_kl(knee_kl, "val")[::4]
    box = Box.square((112, 126), 224)

    read = [asymmetry(knee.image().astype(np.float32), box) @ reading * (1 if knee.side is R else -1) for knee in knees]

    assert np.mean(np.array(read) < -stored["limit"]) <= 0.005
    assert np.mean(np.array(read) > stored["limit"]) >= 0.97
