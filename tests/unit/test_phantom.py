import numpy as np
import pytest

from kneeoa.tasks import TASKS, Laterality
from training.phantom import draw_film, kl_of, sample_grades
from training.phantom.anatomy import draw_outlines
from training.phantom.render import draw_leg

NONE = dict.fromkeys(("JSN_L", "JSN_M", "FL", "FM", "TL", "TM"), 0)


@pytest.mark.parametrize(
    ("features", "kl"),
    [
        ({}, 0),
        ({"FM": 1}, 1),
        ({"JSN_M": 1}, 1),
        ({"TM": 2}, 2),
        ({"FM": 1, "TL": 1}, 2),
        ({"FM": 1, "JSN_M": 1}, 3),
        ({"FM": 3, "JSN_L": 2}, 3),
        ({"JSN_M": 3}, 4),
    ],
)
def test_kl_follows_from_the_features(features, kl):
    assert kl_of({**NONE, **features}) == kl


def test_the_sampler_reaches_every_grade_of_every_task(rng):
    grades = [sample_grades(rng) for _ in range(400)]

    for task in TASKS:
        assert {g[task.name] for g in grades} == set(range(task.grades))


def test_the_same_seed_draws_the_same_film():
    one, two = (draw_film(np.random.default_rng(4), spacing_mm=0.8) for _ in range(2))

    assert (one.pixels == two.pixels).all()
    assert one.knees == two.knees


def test_key_points_lie_in_order_on_both_knees(rng):
    film = draw_film(rng, spacing_mm=0.8)

    assert [knee.side for knee in film.knees] == [Laterality.RIGHT, Laterality.LEFT]
    for knee in film.knees:
        x, y = knee.key_points.as_array().T
        assert x[0] < x[1] < x[2]
        assert x[3] < x[4] < x[5]
        assert (x > 0).all()
        assert (x < film.pixels.shape[1]).all()
        assert y[1] < y[4]


def picture(task: str, grade: int, seed: int):
    """A knee with one finding, as rendered before film effects; other grades give the same knee and the same rays."""
    outlines = draw_outlines(np.random.default_rng(seed), {**NONE, task: grade})
    leg, points = draw_leg(np.random.default_rng(seed), outlines, (260, 260), (130, 130), 0.45)
    return leg, points.points


@pytest.mark.parametrize(("task", "column"), [("JSN_M", 0.8), ("JSN_L", 0.2)])
def test_the_joint_space_in_the_picture_closes_with_the_grade(task, column):
    """Measured on pixels: the dark rows between femur and tibia in the graded compartment's middle."""

    def gap(grade: int, seed: int) -> int:
        leg, points = picture(task, grade, seed)
        left, right = points[3], points[5]
        x, y = round(left[0] + column * (right[0] - left[0])), round((left[1] + right[1]) / 2)
        strip = leg[y - 22 : y + 10, x - 3 : x + 4].mean(axis=1)
        return int((strip < 0.7 * np.median(strip)).sum())

    gaps = [np.mean([gap(grade, seed) for seed in range(12)]) for grade in range(4)]

    assert gaps[0] > 5
    assert gaps[0] > gaps[1] + 1 > gaps[2] + 2
    assert gaps[3] < 1


@pytest.mark.parametrize("task", ["FL", "FM", "TL", "TM"])
def test_osteophytes_grow_in_the_picture(task):
    def area(grade: int, seed: int) -> int:
        return int((picture(task, grade, seed)[0] - picture(task, 0, seed)[0] > 0.1).sum())

    areas = [np.mean([area(grade, seed) for seed in range(6)]) for grade in (1, 2, 3)]

    assert areas[0] > 5
    assert 1.5 * areas[0] < areas[1]
    assert 1.5 * areas[1] < areas[2]
