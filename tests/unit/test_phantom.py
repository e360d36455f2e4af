import numpy as np
import pytest

from kneeoa.tasks import TASKS, Laterality
from training.synthesis.phantom import draw_film, draw_joint, kl_of, sample_grades

NONE = dict.fromkeys(("JSN_L", "JSN_M", "FL", "FM", "TL", "TM"), 0)
FILM = {"spacing_mm": 0.8}


def graded(**features: int) -> dict[str, int]:
    grades = {**NONE, **features}
    return {"KL": kl_of(grades), "OA": int(kl_of(grades) >= 2), **grades}


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
    assert {g["KL"] for g in (sample_grades(rng, kl=3) for _ in range(20))} == {3}


@pytest.mark.parametrize("style", ["train", "test"])
def test_the_same_seed_draws_the_same_film(style):
    one, two = (draw_film(np.random.default_rng(4), style=style, **FILM) for _ in range(2))
    other = draw_film(np.random.default_rng(5), style=style, **FILM)

    assert (one.pixels == two.pixels).all()
    assert one.knees == two.knees
    assert one.knees != other.knees
    assert one.pixels.min() >= 0
    assert one.pixels.max() <= 1


@pytest.mark.parametrize("sides", [(Laterality.RIGHT, Laterality.LEFT), (Laterality.RIGHT,), (Laterality.LEFT,)])
def test_key_points_lie_in_order_on_every_film(rng, sides):
    for _ in range(4):
        film = draw_film(rng, sides=sides, **FILM)

        assert tuple(knee.side for knee in film.knees) == sides
        for knee in film.knees:
            x, y = knee.key_points.as_array().T
            assert 0 < x[0] < x[1] < x[2] < film.pixels.shape[1]
            assert 0 < x[3] < x[4] < x[5] < film.pixels.shape[1]
            assert 0 < y[1] < y[4] < film.pixels.shape[0]
            assert knee.box == knee.key_points.knee_box()
            assert 50 < knee.key_points.width * film.spacing_mm < 115


def test_a_left_knee_is_the_mirror_image_of_a_right_one():
    right, left = (draw_joint(np.random.default_rng(7), side=side) for side in (Laterality.RIGHT, Laterality.LEFT))

    assert (right[0] == left[0][:, ::-1]).all()
    assert left[1].key_points == right[1].key_points.mirrored(left[0].shape[1])


def test_the_fibula_lies_at_the_outer_side_of_each_leg():
    """Beside the tibia's shaft there is bone on the lateral side and flesh on the medial one."""
    brighter = 0
    for seed in range(6):
        crop, knee = draw_joint(np.random.default_rng(seed), graded(), side=Laterality.LEFT)
        (left, _), (right, y) = knee.key_points.points[3], knee.key_points.points[5]
        y = round(y + 0.45 * (right - left))
        medial, lateral = (crop[y - 8 : y + 8, round(x) - 8 : round(x) + 8].mean() for x in (left, right))
        brighter += lateral > medial
    assert brighter >= 5


@pytest.mark.parametrize(("task", "column"), [("JSN_M", 0.8), ("JSN_L", 0.2)])
def test_the_joint_space_in_the_picture_closes_with_the_grade(task, column):
    """Measured on pixels: dark rows between condyle and plateau; what is dark is told by the same person's healthy joint."""

    def profile(grade: int, seed: int) -> np.ndarray:
        crop, knee = draw_joint(np.random.default_rng(seed), graded(**{task: grade}), spacing_mm=0.3)
        left, right = knee.key_points.points[3], knee.key_points.points[5]
        x, y = np.round(np.array(left) + column * (np.array(right) - left)).astype(int)
        return crop[y - 24 : y + 10, x - 5 : x + 6].mean(axis=1)

    people = [[profile(grade, seed) for grade in range(4)] for seed in range(10)]
    dark = [(healthy.min() + np.median(healthy)) / 2 for healthy, *_ in people]
    gaps = [np.mean([(p[grade] < d).sum() for p, d in zip(people, dark, strict=True)]) for grade in range(4)]

    assert gaps[0] > 8
    assert gaps[0] > gaps[1] + 2 > gaps[2] + 4
    assert gaps[3] < 2


@pytest.mark.parametrize("task", ["FL", "FM", "TL", "TM"])
def test_osteophytes_grow_in_the_picture_and_leave_the_key_points(task):
    def spur(grade: int, seed: int) -> tuple[int, object]:
        (sick, knee), (well, same) = (draw_joint(np.random.default_rng(seed), graded(**{task: g})) for g in (grade, 0))
        return int((sick.astype(int) - well > 12).sum()), knee.key_points == same.key_points

    found = [[spur(grade, seed) for seed in range(6)] for grade in (1, 2, 3)]
    areas = [np.mean([area for area, _ in each]) for each in found]

    assert areas[0] > 4
    assert 1.5 * areas[0] < areas[1]
    assert 1.4 * areas[1] < areas[2]
    assert all(unmoved for each in found for _, unmoved in each)
