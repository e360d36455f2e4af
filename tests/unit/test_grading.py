import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from kneeoa.grading.grader import GradedKnee, Grader
from kneeoa.grading.network import build_network
from kneeoa.grading.patches import Preprocessing, standardise
from kneeoa.tasks import COMPARTMENT_TASKS, TASKS, Laterality
from kneeoa.weights import Weights, WeightsError, read_weights, save_weights
from tests.unit.weights_factory import small_grader
from training.fitting.calibrate import combined, scaled
from training.synthesis.phantom import draw_joint


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


@pytest.mark.parametrize(
    ("kl", "features", "disagree"),
    [
        (0, {}, False),
        (0, {"FM": 1, "JSN_M": 1}, False),
        (0, {"TL": 2}, True),
        (0, {"JSN_L": 2}, True),
        (1, {"TM": 2}, False),
        (2, {"JSN_M": 1}, True),
        (2, {"FL": 1}, False),
        (3, {"FL": 3}, True),
        (3, {"FL": 1, "JSN_L": 1}, False),
        (4, {"JSN_M": 3}, True),
        (4, {"JSN_M": 1, "TM": 1}, False),
    ],
)
def test_features_that_kl_rules_out_are_warned_of(kl, features, disagree):
    grades = {task.name: 0 for task in TASKS} | features | {"KL": kl, "OA": int(kl >= 2)}
    one_hot = {task.name: np.eye(task.grades)[grades[task.name]] for task in TASKS}

    assert ("kl_features_disagree" in GradedKnee(Laterality.LEFT, one_hot, 0.5).to_json()["warnings"]) == disagree
    assert GradedKnee(Laterality.UNKNOWN, one_hot, 0.5).to_json()["warnings"] == ["compartment_grades_withheld"]


def test_grey_values_do_not_matter_up_to_a_monotone_change(joint):
    darker = (255 * (joint / 255.0) ** 1.7).astype(np.uint8)

    a, b = (standardise(j, Preprocessing(patch=64)).astype(int) for j in (joint, darker))

    assert np.abs(a - b).mean() < 6


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> list[Path]:
    """Two graders of other networks, sizes and sources."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("graders")
    return [
        small_grader(folder / "siamese.safetensors", learned="real labels"),
        small_grader(folder / "whole.safetensors", patch=48, network="whole", learned="weak labels"),
    ]


def test_the_ensemble_is_the_mean_of_its_members(pair, joint):
    one, other, both = (Grader.from_file(*p).grade([joint], [Laterality.LEFT])[0] for p in (pair[:1], pair[1:], pair))

    for name, p in both.probabilities.items():
        np.testing.assert_allclose(p, (one.probabilities[name] + other.probabilities[name]) / 2, atol=1e-6)
    assert both.left_share == one.left_share  # the other has no gate
    assert other.left_share == 0.5


def test_a_file_holds_an_ensemble_with_what_each_member_is(pair, joint, tmp_path):
    members = [read_weights(path, "grader") for path in pair]
    tensors, metadata = combined(members)
    save_weights(tmp_path / "both.safetensors", tensors, metadata | {"mean_temperatures": {"KL": 2.0}})

    grader = Grader.from_file(tmp_path / "both.safetensors")

    assert [m.name for m in grader.members] == ["siamese test_efficientnet", "whole test_efficientnet"]
    assert [m.sha256 for m in grader.members] == [m.sha256 for m in members]
    assert set(grader.provenance.values()) == {"real labels; weak labels"}
    apart = Grader.from_file(*pair).grade([joint], [Laterality.RIGHT])[0].probabilities
    found = grader.grade([joint], [Laterality.RIGHT])[0].probabilities
    np.testing.assert_allclose(found["KL"], scaled(apart["KL"][None], 2.0)[0], atol=1e-6)
    np.testing.assert_allclose(found["FM"], apart["FM"], atol=1e-6)
    assert combined(members[:1])[1] == members[0].metadata


def test_a_temperature_softens_and_keeps_the_grade(grader, joint):
    softer = copy.deepcopy(grader)
    for member in softer.members:
        member.graph.temperatures[member.tasks.index("KL")] *= 3.0

    before, after = (g.grade([joint], [Laterality.RIGHT])[0].probabilities for g in (grader, softer))

    assert after["KL"].max() < before["KL"].max()
    assert after["KL"].argmax() == before["KL"].argmax()
    np.testing.assert_array_equal(before["FM"], after["FM"])


LITE = {"backbone": "tf_efficientnet_lite0", "channels": 1}


@pytest.mark.parametrize(
    "architecture",
    [{}, {"gate": "scalar"}, {"gate": "none"}, {"network": "whole"}, LITE, {"network": "whole", **LITE}],
    ids=str,
)
def test_every_parameter_learns(architecture):
    network = build_network(**architecture)
    left, right = torch.randn(2, 2, architecture.get("channels", 3), 64, 64)
    logits, _ = network(left, right)

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
    provenance = {task.name: "nothing" for task in TASKS}
    metadata = {"version": "0", "architecture": {"gate": "vector"}, "provenance": provenance}

    with pytest.raises(WeightsError, match="differ in \\['sharpness'\\]"):
        Grader(Weights({}, {**metadata, "preprocessing": {**preprocessing, "sharpness": 1}}, ""))
    with pytest.raises(WeightsError, match="do not fit the architecture"):
        Grader(Weights({}, {**metadata, "preprocessing": preprocessing}, ""))
