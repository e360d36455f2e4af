import numpy as np
import pytest
import torch

from kneeoa.geometry import Box
from kneeoa.grading.grader import Grader
from kneeoa.tasks import TASKS, Laterality
from tests.conftest import ROOT
from training.augment import warp
from training.config import read_config
from training.data.joints import UNLABELLED, phantom_joints
from training.data.knee_kl import read_knee_kl
from training.data.views import film_views, without_knee
from training.data.windows import NEGATIVE, PART, POSITIVE, sample
from training.films import compose
from training.losses import grading_loss
from training.metrics import ordinal_metrics
from training.phantom import draw_film
from training.train_detector import DetectorConfig, detection_loss
from training.train_detector import train as train_detector
from training.train_grader import GraderConfig
from training.train_grader import train as train_grader


def test_metrics_by_hand():
    metrics = ordinal_metrics(np.array([0, 1, 2, 4]), np.array([0, 2, 2, 2]))

    assert (metrics["n"], metrics["top1"], metrics["top1_pm1"], metrics["mse"]) == (4, 0.5, 0.75, 1.25)


def test_a_missing_label_is_masked_from_its_task_only():
    logits = {task.name: torch.randn(2, task.grades) for task in TASKS}
    labels = torch.full((2, 8), UNLABELLED)
    labels[0, 0] = 3

    loss = grading_loss(logits, labels)

    torch.testing.assert_close(loss, -logits["KL"][0].log_softmax(0)[3])


def test_augmentation_of_strength_zero_is_the_plain_crop(rng):
    image = rng.integers(0, 255, (60, 90), np.uint8)

    cut = warp(image, Box(10, 20, 50, 40), (40, 20), rng, strength=0)

    assert (cut == image[20:40, 10:50]).all()


def test_phantoms_leave_kl_and_oa_to_real_knees():
    (joint,) = phantom_joints(1, seed=0)

    assert (joint.labels()[:2] == UNLABELLED).all()
    assert (joint.labels()[2:] != UNLABELLED).all()


def test_windows_are_what_their_iou_says(rng):
    view = film_views(draw_film(rng, spacing_mm=1.0))[0]
    bounds = {"negative": (0, NEGATIVE), "part": (PART, POSITIVE), "positive": (POSITIVE, 1.01)}

    for kind, (low, high) in bounds.items():
        window = sample(rng, view, 48, kind)
        assert window.pixels.shape == (48, 48)
        if kind == "negative":
            assert window.is_knee == 0
            assert np.isnan(window.box).all()
        else:
            x1, y1, x2, y2 = window.box  # the knee, in units of the crop, whose corners are (0, 0) and (1, 1)
            assert low <= Box(0, 0, 1, 1).iou(Box(x1, y1, 1 + x2, 1 + y2)) < high
            assert np.isnan(window.key_points).all() == (kind == "part")
    assert without_knee(rng, view).key_points is None


def test_only_known_targets_enter_the_detection_loss(rng):
    view = film_views(draw_film(rng, spacing_mm=1.0))[0]
    windows = [sample(rng, view, 48, kind) for kind in ("negative", "part", "positive")]
    logits, boxes, points = torch.zeros(3), torch.zeros(3, 4), torch.zeros(3, 12)

    alone = detection_loss(logits, boxes, points, windows, (1, 0, 0))
    whole = detection_loss(logits, boxes, points, windows, (0.8, 0.6, 1.5))

    assert alone.item() == pytest.approx(np.log(2), abs=1e-6)
    assert whole > 0.8 * alone


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The whole training, in seconds, on phantoms."""
    torch.set_num_threads(2)
    out = tmp_path_factory.mktemp("runs")
    config = read_config(GraderConfig, ROOT / "training/configs/tiny.yaml")
    detector = train_detector(
        None,
        DetectorConfig(films=4, self_labelled=0, phantoms=4, steps=[3, 3], batch=16, lr=1e-3),
        out / "detector",
        seed=0,
    )
    return detector, train_grader(None, None, config, out / "grader", seed=0), config, out


def test_training_runs_end_to_end_and_its_weights_serve(trained):
    _, weights, _, _ = trained
    grader = Grader.from_file(weights)

    (graded,) = grader.grade([np.zeros((50, 100), np.uint8)], [Laterality.RIGHT])

    assert grader.provenance["KL"].startswith("synthetic")
    assert graded.probabilities["KL"].shape == (5,)


def test_a_finished_run_resumes_to_the_same_weights(trained):
    _, weights, config, out = trained
    before = weights.read_bytes()

    train_grader(None, None, config, out / "grader", seed=0)

    assert weights.read_bytes() == before


def test_an_unknown_config_key_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text((ROOT / "training/configs/tiny.yaml").read_text() + "learning_rate: 1\n")

    with pytest.raises(TypeError, match="learning_rate"):
        read_config(GraderConfig, path)


def test_composed_films_carry_real_knees_where_they_say(knee_kl, rng):
    knees = [k for k in read_knee_kl(knee_kl, "val") if k.key_points]
    pair = [next(k for k in knees if k.side is side) for side in (Laterality.RIGHT, Laterality.LEFT)]

    film = compose(rng, pair, {k.name: k.key_points for k in knees}, spacing_mm=0.5)

    assert [k.side for k in film.knees] == [Laterality.RIGHT, Laterality.LEFT]
    for knee in film.knees:
        assert film.pixels.shape[1] > knee.box.x2
        assert knee.box.x1 > 0


def test_the_public_split_keeps_subjects_apart(knee_kl):
    train, val = ({k.subject for k in read_knee_kl(knee_kl, split)} for split in ("train", "val"))

    assert not train & val
