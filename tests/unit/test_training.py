import cv2
import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import cohen_kappa_score
from torch.utils.data import BatchSampler, RandomSampler

import training.fitting.train_detector
import training.fitting.train_grader
from kneeoa.geometry import Box, KeyPoints
from kneeoa.grading.grader import Grader
from kneeoa.grading.network import build_network
from kneeoa.tasks import TASKS, Laterality
from tests.conftest import ROOT
from training.config import ConfigError, read_config
from training.data.knee_kl import read_knee_kl
from training.evaluation.metrics import grade_metrics, intervals
from training.fitting.augment import warp
from training.fitting.calibrate import best_temperature, held_out, scaled
from training.fitting.grader_module import GraderConfig, Share
from training.fitting.joint_dataset import UNLABELLED, phantom_joints
from training.fitting.losses import grade_weights, grading_loss, soft_target
from training.fitting.mtcnn_samples import NEGATIVE, PART, POSITIVE, sample
from training.fitting.train_detector import DetectorConfig, detection_loss
from training.fitting.train_detector import train as train_detector
from training.fitting.train_grader import train as train_grader
from training.synthesis.composed_films import compose
from training.synthesis.phantom import draw_film
from training.synthesis.single_knee_images import film_views, without_knee


def test_metrics_by_hand():
    probabilities = np.eye(5)[[0, 2, 2, 2]] * 0.6 + 0.08

    metrics = grade_metrics(np.array([0, 1, 2, 4]), probabilities)

    assert (metrics["n"], metrics["top1"], metrics["top1_pm1"], metrics["mse"]) == (4, 0.5, 0.75, 1.25)
    assert metrics["balanced_accuracy"] == 0.5  # of the four grades present, two are always right
    assert metrics["ece"] == pytest.approx(0.68 - 0.5, abs=1e-4)
    assert metrics["kappa_quadratic"] == pytest.approx(
        cohen_kappa_score([0, 1, 2, 4], [0, 2, 2, 2], weights="quadratic", labels=range(5)), abs=1e-4
    )


def test_intervals_hold_the_value_and_people_are_drawn_whole(rng):
    labels = rng.integers(0, 2, 300)
    probabilities = np.eye(2)[np.where(rng.random(300) < 0.7, labels, 1 - labels)]
    top1 = grade_metrics(labels, probabilities)["top1"]

    alone = intervals(labels, probabilities, [str(i) for i in range(300)], draws=200)["top1"]
    together = intervals(labels, probabilities, ["one person"] * 300, draws=20)["top1"]

    assert alone[0] < top1 < alone[1]
    assert together == [top1, top1]


def test_neighbours_share_the_target_and_the_ends_have_one():
    target = soft_target(torch.tensor([0, 2]), 5, 0.1)

    torch.testing.assert_close(target, torch.tensor([[0.9, 0.1, 0, 0, 0], [0, 0.05, 0.9, 0.05, 0]]))


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


@pytest.mark.slow
def test_training_runs_end_to_end_and_its_weights_serve(trained):
    _, weights, _, _ = trained
    grader = Grader.from_file(weights)

    (graded,) = grader.grade([np.zeros((50, 100), np.uint8)], [Laterality.RIGHT])

    assert grader.provenance["KL"].startswith("synthetic")
    assert graded.probabilities["KL"].shape == (5,)


@pytest.mark.slow
def test_a_finished_run_resumes_to_the_same_weights(trained):
    _, weights, config, out = trained
    before = weights.read_bytes()

    train_grader(None, None, config, out / "grader", seed=0)

    assert weights.read_bytes() == before


def test_an_unknown_config_key_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text((ROOT / "training/configs/tiny.yaml").read_text() + "learning_rate: 1\n")

    with pytest.raises(ConfigError, match=r"c\.yaml.*learning_rate"):
        read_config(GraderConfig, path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "training/configs").rglob("*.yaml")), ids=lambda p: f"{p.parent.name}/{p.stem}"
)
def test_every_config_is_one(path):
    kind = DetectorConfig if path.stem == "detector" else GraderConfig

    config = read_config(kind, path)

    if isinstance(config, GraderConfig):
        assert config.phase(config.epochs - 1).lr > 0
        build_network(**config.architecture)


@pytest.mark.parametrize(
    ("command", "kind"),
    [(training.fitting.train_detector, DetectorConfig), (training.fitting.train_grader, GraderConfig)],
)
def test_without_a_config_the_best_one_is_used(command, kind, tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(command, "train", lambda *given, **_: used.extend(x for x in given if isinstance(x, kind)))

    command.main(["--out", str(tmp_path)])

    assert len(used) == 1


def test_rare_grades_weigh_more_and_the_mean_weight_is_one():
    labels = torch.full((8, 8), UNLABELLED)
    labels[:, 0] = torch.tensor([0, 0, 0, 0, 1, 2, 2, UNLABELLED])

    (weights,) = grade_weights(labels, 0.5).values()

    assert (weights[1] / weights[0]).item() == pytest.approx(2)
    assert weights[labels[:7, 0]].mean().item() == pytest.approx(1)
    torch.testing.assert_close(grade_weights(labels, 0.0)["KL"], torch.ones(5))


def test_a_step_of_several_processes_has_the_knees_of_one_with_the_whole_batch():
    def batches(rank, processes, batch):
        drawn = RandomSampler(range(26), generator=torch.Generator().manual_seed(1))
        share = Share(drawn, rank, processes)
        some, again = (list(map(sorted, BatchSampler(share, batch, drop_last=True))) for _ in range(2))
        assert again == some  # begun twice, where a run goes on
        return some

    alone = batches(0, 1, 8)
    together = [sorted(a + b) for a, b in zip(batches(0, 2, 4), batches(1, 2, 4), strict=True)]

    assert together == alone
    assert len(Share(RandomSampler(range(26)), 0, 4)) == 6


def test_the_papers_schedule_has_exactly_one_epoch_at_a_thousandth():
    config = read_config(GraderConfig, ROOT / "training/configs/paper/siamese.yaml")

    phases = [config.phase(epoch) for epoch in range(config.epochs)]

    assert [p.lr for p in phases] == [1e-2] * 2 + [1e-3] + [1e-4] * 17
    assert [p.train for p in phases] == ["heads"] * 2 + ["all"] * 18


def test_an_unknown_schedule_is_named():
    settings = yaml.safe_load((ROOT / "training/configs/tiny.yaml").read_text())

    with pytest.raises(ValueError, match="cosine"):
        GraderConfig(**settings | {"schedule": "cosine"})


def test_calibration_finds_the_temperature_and_helps_people_it_did_not_see(rng):
    logits = rng.normal(0, 1.5, (3000, 5))
    honest = scaled(np.exp(logits), 1.0)
    labels = np.array([rng.choice(5, p=p) for p in honest])
    boastful = scaled(np.exp(logits), 0.5)

    temperature = best_temperature(labels, boastful)
    calibrated = held_out(labels, boastful, [str(i // 2) for i in range(3000)])

    assert temperature == pytest.approx(2, rel=0.1)
    assert (calibrated.argmax(1) == boastful.argmax(1)).all()
    assert grade_metrics(labels, calibrated)["ece"] < 0.5 * grade_metrics(labels, boastful)["ece"]


class Dots:
    """A knee of which only the six key points can be seen."""

    mm_per_px, grades = 0.5, {}
    points = KeyPoints.from_array([[50, 80], [98, 72], [150, 84], [48, 118], [101, 108], [153, 115]])

    def __init__(self, side: Laterality) -> None:
        self.name, self.side = side.value, side

    def image(self) -> np.ndarray:
        drawn = np.full((200, 200), 60, np.uint8)
        for point in self.points.as_array().astype(int):
            cv2.circle(drawn, point.tolist(), 3, 255, -1)
        return drawn


def test_key_points_of_composed_films_lie_where_the_knees_were_put(rng):
    knees = [Dots(Laterality.RIGHT), Dots(Laterality.LEFT)]

    for spacing in (0.5, 0.3):
        film = compose(rng, knees, {knee.name: Dots.points for knee in knees}, spacing)
        for knee in film.knees:
            for x, y in knee.key_points.as_array():
                left, top = round(x) - 30, round(y) - 30
                around = cv2.GaussianBlur(film.pixels[top : top + 60, left : left + 60], (0, 0), 2)
                row, column = np.unravel_index(around.argmax(), around.shape)
                assert (left + column, top + row) == pytest.approx((x, y), abs=3)


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
