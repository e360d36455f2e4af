"""Every number and formula taken from Wang et al. 2021, held to the paper."""

import pytest
import torch
from torch import nn

from kneeoa.detection.networks import Level1, Level2
from kneeoa.geometry import MAIN_JOINT_MARGIN, Box, KeyPoints, main_joint
from kneeoa.grading.network import GatedFusion, SiameseGrader
from kneeoa.grading.patches import Preprocessing, to_patches
from kneeoa.tasks import OA_FROM_KL, TASKS
from training.fitting.train_detector import ALPHA

POINTS = KeyPoints(((20, 100), (60, 84), (110, 102), (10, 112), (62, 96), (105, 110)))


def test_main_joint_is_the_box_columns_and_the_key_point_rows_widened_by_a_fifth_of_w():
    # W = 110 − 10 = 100, so 20 px above the highest point (84) and 20 px below the lowest (112).
    assert main_joint(Box(5, 0, 135, 130), POINTS) == Box(5, 64, 135, 132)
    assert MAIN_JOINT_MARGIN == 0.2


def test_gate_is_equation_6():
    fusion = GatedFusion(3)
    left, right = torch.randn(2, 3), torch.randn(2, 3)

    fused, gate = fusion(left, right)

    g = 1 / (1 + torch.exp(-torch.cat([left, right], 1) @ fusion.weight.weight.T))
    torch.testing.assert_close(gate, g)
    torch.testing.assert_close(fused, g * left + (1 - g) * right)
    assert fusion.weight.bias is None


def test_gate_width_and_size():
    assert GatedFusion(2048).weight.weight.numel() == 2048 * 4096
    assert GatedFusion(2048, "scalar").weight.weight.numel() == 4096
    with pytest.raises(ValueError, match="vector"):
        GatedFusion(8, "both")


def test_eight_heads_behind_dropout_of_a_half():
    heads = SiameseGrader().heads

    assert {name: head[1].out_features for name, head in heads.items()} == {
        "KL": 5, "OA": 2, "JSN_L": 4, "JSN_M": 4, "FL": 4, "FM": 4, "TL": 4, "TM": 4,
    }  # fmt: skip
    assert all(isinstance(head[0], nn.Dropout) and head[0].p == 0.5 for head in heads.values())
    assert OA_FROM_KL == 2
    assert len(TASKS) == 8


def test_backbone_is_se_resnext50_32x4d_shared_by_both_branches():
    network = SiameseGrader()
    blocks = [network.backbone.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)]

    assert [len(stage) for stage in blocks] == [3, 4, 6, 3]
    assert blocks[0][0].conv2.groups == 32
    assert network.backbone.num_features == 2048
    assert sum(isinstance(m, nn.Conv2d) and m.kernel_size == (7, 7) for m in network.modules()) == 1


def test_right_patch_is_flipped():
    joint = torch.arange(64, dtype=torch.uint8).expand(1, 32, 64)  # brighter from the left to the right

    left, right = (patch[0, 0, 0] for patch in to_patches(joint, Preprocessing(patch=32)))

    assert (left.diff() > 0).all()
    assert (right.diff() < 0).all()
    assert left.max() < right.min()


def test_layer_counts_of_the_cascade():
    def kinds(network: nn.Module) -> str:
        names = {nn.Conv2d: "c", nn.MaxPool2d: "p", nn.Linear: "f"}
        return "".join(names[type(m)] for m in network.trunk if type(m) in names)

    assert kinds(Level1()) == "cpcpcpcc"  # and the output convolution: three (conv + pool), three convs
    assert kinds(Level2()) == "cpcpcpcf"  # and the output layer: three (conv + pool), one conv, two FC


def test_loss_weights_of_the_cascade():
    assert ALPHA[Level1] == (1, 0.5, 0)
    assert ALPHA[Level2] == (0.8, 0.6, 1.5)
