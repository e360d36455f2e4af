import copy
import dataclasses

import numpy as np
import pytest
import torch

from kneeoa.grading.ensemble import mean_of
from kneeoa.grading.grader import Grader
from kneeoa.grading.network import build_network
from kneeoa.grading.patches import Preprocessing, standardise
from kneeoa.tasks import COMPARTMENT_TASKS, TASKS, Laterality
from kneeoa.weights import Weights, WeightsError, read_weights, save_weights
from training.phantom import draw_joint


@pytest.fixture(scope="module")
def joint() -> np.ndarray:
    return draw_joint(np.random.default_rng(3))[0][60:190]


def test_probabilities_of_all_tasks_sum_to_one(grader, joint):
    (graded,) = grader.grade([joint], [Laterality.RIGHT])

    assert {name: len(p) for name, p in graded.probabilities.items()} == {task.name: task.grades for task in TASKS}
    assert all(p.sum() == pytest.approx(1, abs=1e-5) for p in graded.probabilities.values())
    assert 0 < graded.left_share < 1


def test_a_left_knee_is_graded_as_its_mirror_image(grader, joint):
    (right,) = grader.grade([joint], [Laterality.RIGHT])
    (left,) = grader.grade([joint[:, ::-1]], [Laterality.LEFT])

    for name, p in right.probabilities.items():
        np.testing.assert_allclose(p, left.probabilities[name], atol=1e-6)


def test_a_knee_is_graded_the_same_in_any_batch(grader, joint):
    alone = grader.grade([joint], [Laterality.RIGHT])[0]
    among = grader.grade([joint[:80], joint, joint[::2]], [Laterality.RIGHT] * 3)[1]

    np.testing.assert_allclose(alone.probabilities["KL"], among.probabilities["KL"], atol=1e-5)


def test_unknown_side_withholds_the_compartment_grades_with_a_reason(grader, joint):
    reply = grader.grade([joint], [Laterality.UNKNOWN])[0].to_json()

    for task in COMPARTMENT_TASKS:
        assert reply["grades"][task.name] == {"grade": None, "probabilities": None, "withheld": "unknown_side"}
    assert reply["grades"]["KL"]["grade"] is not None
    assert reply["gate_lateral_share"] is None


def test_grey_values_do_not_matter_up_to_a_monotone_change(joint):
    darker = (255 * (joint / 255.0) ** 1.7).astype(np.uint8)

    a, b = (standardise(j, Preprocessing(patch=64)).astype(int) for j in (joint, darker))

    assert np.abs(a - b).mean() < 6


def test_the_ensemble_is_the_mean_of_its_members(grader, joint):
    (right,) = grader.grade([joint], [Laterality.RIGHT])
    (left,) = grader.grade([joint], [Laterality.LEFT])

    (mean,) = mean_of([[right], [left]])

    np.testing.assert_allclose(mean.probabilities["KL"], (right.probabilities["KL"] + left.probabilities["KL"]) / 2)
    assert (mean.side, mean.left_share) == (right.side, right.left_share)


def test_a_temperature_softens_and_keeps_the_grade(grader, joint):
    softer = copy.copy(grader)
    softer.temperatures = {**grader.temperatures, "KL": 3.0 * grader.temperatures.get("KL", 1.0)}

    before, after = (g.grade([joint], [Laterality.RIGHT])[0].probabilities for g in (grader, softer))

    assert after["KL"].max() < before["KL"].max()
    assert after["KL"].argmax() == before["KL"].argmax()
    np.testing.assert_array_equal(before["FM"], after["FM"])


@pytest.mark.parametrize("architecture", [{}, {"gate": "scalar"}, {"gate": "none"}, {"network": "whole"}], ids=str)
def test_every_parameter_learns(architecture):
    network = build_network(**architecture)
    logits, _ = network(torch.randn(2, 3, 64, 64), torch.randn(2, 3, 64, 64))

    sum(value.square().sum() for value in logits.values()).backward()

    # SE-ResNeXt's last norm of each block starts at zero, which stops the gradient of what lies before it only.
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_weights_say_what_they_are_and_survive_a_round_trip(tmp_path, grader):
    tensors = {"a": torch.ones(2), "n": torch.tensor(3)}
    save_weights(tmp_path / "w.safetensors", tensors, {"kind": "grader", "version": "9"})

    weights = read_weights(tmp_path / "w.safetensors", "grader")

    assert weights.tensors["a"].dtype == torch.float16
    assert weights.tensors["n"] == 3
    assert weights.identity == {"version": "9", "sha256": weights.sha256}
    assert set(grader.provenance) == {task.name for task in TASKS}
    with pytest.raises(WeightsError, match="holds a grader, expected a detector"):
        read_weights(tmp_path / "w.safetensors", "detector")


def test_weights_of_another_preprocessing_or_architecture_are_refused():
    preprocessing = dataclasses.asdict(Preprocessing())
    metadata = {"version": "0", "architecture": {"gate": "vector"}, "provenance": {}}

    with pytest.raises(WeightsError, match="differ in \\['sharpness'\\]"):
        Grader(Weights({}, {**metadata, "preprocessing": {**preprocessing, "sharpness": 1}}, ""))
    with pytest.raises(WeightsError, match="do not fit the architecture"):
        Grader(Weights({}, {**metadata, "preprocessing": preprocessing}, ""))
