"""What runs the networks changes no grade, or is refused; what was compiled for something else is passed over and told."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from kneeoa.grading import compiled, runtime
from kneeoa.grading.compiled import compile_grader, compiled_here, largest_difference
from kneeoa.grading.grader import Grader
from kneeoa.grading.network import build_network
from kneeoa.grading.runtime import RuntimeRefused, folded, load_graphs
from kneeoa.tasks import TASKS, Laterality
from kneeoa.weights import read_weights
from tests.conftest import openvino
from tests.tools import needs
from tests.unit.weights_factory import small_grader

INDUCTOR = pytest.param("inductor", marks=[pytest.mark.slow, needs("g++")])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    return read_weights(small_grader(tmp_path_factory.mktemp("weights") / "grader.safetensors"), "grader")


@pytest.fixture(scope="module")
def joints() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (60 + i, 130), dtype=np.uint8) for i in range(3)]


@pytest.fixture(scope="module", params=[pytest.param("openvino", marks=openvino), INDUCTOR])
def fast(request, weights, joints, tmp_path_factory):
    """A folder with what a runtime runs, and its name."""
    folder = tmp_path_factory.mktemp(request.param)
    compile_grader(weights, request.param, folder, joints)
    return request.param, folder


def trained(network: nn.Module) -> nn.Module:
    """As if its batch norms had seen something."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


@pytest.mark.parametrize("network", ["siamese", "whole"])
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet"])
def test_folded_batch_norms_say_the_same(network, backbone):
    torch.manual_seed(0)
    plain = trained(build_network(network, backbone=backbone, channels=1))
    patches = torch.randn(2, 3, 1, 64, 64)

    other = folded(plain, 1)

    left, there = (sum(isinstance(m, nn.BatchNorm2d) for m in each.modules()) for each in (other, plain))
    assert left < there / 4  # a stem of several layers may keep its last one
    for task, values in plain(*patches)[0].items():
        torch.testing.assert_close(other(*patches)[0][task], values, atol=1e-4, rtol=1e-4)


def test_a_backbone_that_runs_its_modules_in_another_order_is_left_as_it_is():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1)

        def forward(self, x):
            return self.conv(self.norm(x)).mean(dim=(2, 3))

    plain = build_network("whole", backbone="test_efficientnet", channels=1)
    plain.backbone, plain.heads = Backwards(), nn.ModuleDict({"KL": nn.Linear(1, 5)})

    assert folded(trained(plain), 1) is plain


def test_a_runtime_says_what_pytorch_says_of_any_number_of_joints(fast, weights, joints):
    name, folder = fast
    plain, other = Grader(weights), Grader(weights, compiled=folder)

    assert (plain.runtime, other.runtime) == ("eager", name)
    for number in (1, 3):
        assert largest_difference(plain, other, joints[:number]) < 2e-3
    gates = [g.grade(joints[:1], [Laterality.RIGHT])[0].left_share for g in (plain, other)]
    assert gates[0] == pytest.approx(gates[1], abs=2e-3)


def test_pytorchs_network_is_built_for_heat_maps_only_where_another_runs(fast, weights, joints):
    other = Grader(weights, compiled=fast[1])
    for tasks, built in (set(), False), ({"KL"}, True):
        other.grade(joints[:1], [Laterality.RIGHT], [tasks])
        assert [("network" in vars(member)) for member in other.members] == [built]


def test_a_worker_starts_without_the_libraries_that_take_seconds():
    heavy = "import sys; import kneeoa.detection.detector, kneeoa.grading.grader; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", heavy], check=True, capture_output=True, text=True).stdout.split()

    assert "torch" in loaded
    assert not {"timm", "torchvision", "torch._dynamo", "sympy"} & set(loaded)


def test_heat_maps_are_pytorchs_and_explained_grades_the_runtimes(fast, weights, joints):
    plain, other = Grader(weights), Grader(weights, compiled=fast[1])
    right, tasks = [Laterality.RIGHT], [{"KL", "FM"}]

    (explained,), (alone,) = other.grade(joints[:1], right, tasks), other.grade(joints[:1], right)

    for task, heat in plain.grade(joints[:1], right, tasks)[0].heat.items():
        np.testing.assert_array_equal(explained.heat[task], heat)
    for task in TASKS:
        np.testing.assert_array_equal(explained.probabilities[task.name], alone.probabilities[task.name])


def test_a_network_that_a_compiler_cannot_take_is_refused(weights, joints, tmp_path, monkeypatch):
    def unsupported(*_):
        raise ValueError("this operator")

    monkeypatch.setattr(runtime, "_openvino", unsupported)

    with pytest.raises(RuntimeRefused, match=r"^openvino cannot compile this network \(ValueError\)$"):
        compile_grader(weights, "openvino", tmp_path / "compiled", joints)


@openvino
def test_openvino_sends_nothing_about_its_use():
    runtime._ov()

    assert sys.modules["openvino_telemetry"] is None


def test_a_runtime_that_moves_probabilities_is_refused(fast, weights, joints, tmp_path, monkeypatch):
    class Other(Grader):
        def __init__(self, *weights, **how):
            super().__init__(*weights, **how)
            self.temperatures = {"KL": 0.1} if "compiled" in how else {}

    monkeypatch.setattr(compiled, "Grader", Other)
    monkeypatch.setattr(compiled, "compile_graphs", lambda *_: None)

    with pytest.raises(RuntimeRefused, match="moves a probability by 0.[0-9]+, and 0.01 is allowed") as refused:
        compile_grader(weights, fast[0], fast[1], joints)

    assert refused.value.code == "runtime_refused"


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({"grader": "0"}, "other weights"),
        ({"torch": "1.0"}, "another PyTorch"),
        ({"cpu": ["x87", "seen_nowhere"]}, "more instructions"),
        ({"runtime": "tensorrt"}, "could not be loaded"),
        ({}, "could not be loaded"),  # its files are not there
    ],
)
def test_what_was_compiled_for_something_else_is_passed_over_and_told(told, reason, weights, tmp_path, caplog):
    here = {"runtime": "inductor", "grader": weights.sha256, **runtime._machine("inductor")}
    (tmp_path / "runtime.json").write_text(json.dumps(here | told))

    with pytest.raises(RuntimeRefused, match=reason):
        load_graphs(tmp_path, weights.sha256, 1)
    assert Grader(weights, compiled=tmp_path).runtime == "eager"
    assert reason in caplog.text


def test_the_library_compiles_once_and_only_for_runtimes_there_are(weights, joints, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = []
    monkeypatch.setattr(compiled, "compile_grader", lambda *how: made.append(how[1]) or how[2].mkdir())

    folder = compiled_here(weights, "openvino", joints)

    assert made == ["openvino"]
    assert list(folder.parent.iterdir()) == [folder]
    assert folder.is_relative_to(tmp_path)
    monkeypatch.setattr(compiled, "load_graphs", lambda *_: ("openvino", []))
    assert compiled_here(weights, "openvino", joints) == folder
    assert len(made) == 1
    with pytest.raises(RuntimeRefused, match="one of inductor, openvino"):
        compile_grader(weights, "tensorrt", folder, joints)
