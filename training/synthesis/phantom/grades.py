"""Plausible sets of the eight grades, and the rule that derives KL from the six features."""

import numpy as np

from kneeoa.tasks import NARROWINGS, OA_FROM_KL, OSTEOPHYTES


def kl_of(grades: dict[str, int]) -> int:
    """KL 0 … 4 from the features, after Kellgren and Lawrence's definitions.

    4: a compartment is closed. 3: narrowing and an osteophyte. 2: a definite osteophyte (grade ≥ 2, or two of grade 1).
    1: a single possible osteophyte, or doubtful narrowing alone. 0: nothing.
    """
    spurs = [grades[name] for name in OSTEOPHYTES]
    narrowing = max(grades[name] for name in NARROWINGS)
    if narrowing == 3:
        return 4
    if narrowing and any(spurs):
        return 3
    if max(spurs) >= 2 or sum(spur > 0 for spur in spurs) >= 2:
        return 2
    return int(any(spurs) or narrowing > 0)


def sample_grades(rng: np.random.Generator, kl: int | None = None) -> dict[str, int]:
    """All eight grades by task name; KL is uniform unless given, disease more often medial than lateral."""
    kl = int(rng.integers(5)) if kl is None else kl
    spurs_most = (0, 1, 3, 3, 3)[kl]
    narrowing_most = (0, 1, 0, 2, 3)[kl]
    while True:
        grades = {name: int(rng.integers(spurs_most + 1)) * int(rng.random() < 0.8) for name in OSTEOPHYTES}
        medial = int(rng.random() < 0.6)
        grades[NARROWINGS[medial]] = narrowing_most if kl == 4 else int(rng.integers(narrowing_most + 1))
        grades[NARROWINGS[1 - medial]] = int(rng.integers(narrowing_most + 1)) if rng.random() < 0.3 else 0
        if kl_of(grades) == kl:
            return {"KL": kl, "OA": int(kl >= OA_FROM_KL), **grades}
