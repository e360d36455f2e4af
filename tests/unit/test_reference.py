"""Drift: a shifted population raises the index, the same one does not (tests/bench/drift.py tells more of it)."""

import json

import numpy as np
import pytest

from kneeoa.tasks import TASKS
from tests.bench.drift import indices
from tests.conftest import WEIGHTS
from training.evaluation.make_reference import population_stability_index


def test_the_index_is_that_of_the_books():
    assert population_stability_index([9, 1], [5, 5]) == pytest.approx(0.4 * np.log(9 / 5) + 0.4 * np.log(5))
    assert population_stability_index([0.3, 0.7], [30, 70]) == pytest.approx(0)
    assert np.isfinite(population_stability_index([1, 0], [0, 1]))


def test_a_shifted_population_raises_the_index_and_the_same_does_not(detector, grader):
    found = indices(40, 0, ("the same", "more disease"), detector, grader)

    for name in ("KL", "OA"):  # rare grades of the six features would need far more knees
        assert found["the same"][name] < 0.25
        assert found["more disease"][name] > 1


def test_the_stored_reference_is_of_the_stored_weights(detector, grader):
    stored = json.loads((WEIGHTS / "reference.json").read_text())

    assert (stored["detector"], stored["grader"]) == (detector.identity["sha256"], grader.identity["sha256"])
    assert {name: len(shares) for name, shares in stored["shares"].items()} == {
        **{task.name: task.grades for task in TASKS},
        **{name: len(edges) + 1 for name, edges in stored["edges"].items()},
    }
    assert [sum(shares) for shares in stored["shares"].values()] == pytest.approx([1] * len(stored["shares"]), abs=1e-3)
