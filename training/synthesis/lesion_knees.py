"""Real knees of KL 0–1 to draw lesions into, and the knees drawn: crops, key points and grades that are known."""

from collections.abc import Iterator, Sequence

import numpy as np

from kneeoa.detection.cascade import Cascade
from kneeoa.geometry import KeyPoints
from kneeoa.tasks import COMPARTMENT_TASKS
from training.data.key_points import key_points_of
from training.data.knee_kl import Knee
from training.data.landmarks import GOOD_FIT, as_right, with_landmarks
from training.synthesis.lesions import draw_lesions
from training.synthesis.phantom import sample_grades


def usable(knees: Sequence[Knee]) -> list[Knee]:
    """The knees that are (almost) free of features, KL 0–1, with landmarks good enough to draw by."""
    return [k for k in knees if k.grades.get("KL", 4) <= 1 and k.landmarks is not None and k.fit_score >= GOOD_FIT]


def substrates(knees: Sequence[Knee], cascade: Cascade, more: int, seed: int) -> list[Knee]:
    """The `usable` knees, and up to ``more`` of KL 0–1 without landmarks, which get theirs from detected key points."""
    bare = [knee for knee in knees if knee.landmarks is None and knee.grades.get("KL", 4) <= 1]
    chosen = [bare[i] for i in np.random.default_rng(seed).permutation(len(bare))[:more]]
    marked = [knee for knee in knees if knee.landmarks is not None]
    return usable(with_landmarks([*marked, *chosen], key_points_of(cascade, chosen)))


def _draw_grades(rng: np.random.Generator) -> dict[str, int]:
    """Half the knees as disease comes, half with six independent grades, so that no feature stands in for another."""
    if rng.random() < 0.5:
        return sample_grades(rng)
    return {task.name: int(rng.choice(4, p=(0.4, 0.2, 0.2, 0.2))) for task in COMPARTMENT_TASKS}


def drawn_knees(
    knees: Sequence[Knee], number: int, seed: int, style: str = "train"
) -> Iterator[tuple[np.ndarray, KeyPoints, dict[str, int]]]:
    """Crops with drawn features, all shown as right knees: image uint8 (h, w), key points in it, the six grades.

    Raises ``ValueError`` where none of the ``knees`` is `usable`.
    """
    rng, chosen = np.random.default_rng(seed), usable(knees)
    if not chosen:
        raise ValueError("no knee of KL 0 or 1 with good landmarks to draw on")
    for _ in range(number):
        knee = chosen[rng.integers(len(chosen))]
        image, landmarks = as_right(knee)
        grades = _draw_grades(rng)
        assert knee.mm_per_px is not None  # as with all that have landmarks
        drawn, points = draw_lesions(rng, image, landmarks, knee.mm_per_px, grades, style)
        yield drawn, points, {task.name: grades[task.name] for task in COMPARTMENT_TASKS}
