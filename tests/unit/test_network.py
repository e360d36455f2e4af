"""The grading networks on a backbone of a fifth of a million parameters."""

import pytest
import torch
from timm.layers import DropPath

from kneeoa.grading.network import FINE, Concatenation, GatedFusion, build_network
from kneeoa.tasks import TASKS

SMALL = {"backbone": "test_efficientnet", "channels": 1}


@pytest.fixture(scope="module")
def patches() -> tuple[torch.Tensor, torch.Tensor]:
    left, right = torch.randn(2, 3, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    return left, right


def built(**options):
    torch.manual_seed(0)
    return build_network(**SMALL, **options).eval()


def test_both_branches_share_a_backbone_and_the_gate_mixes_them(patches):
    network = built()

    fused, gate = network.features(*patches)

    torch.testing.assert_close(network.backbone(torch.cat(patches)).chunk(2), tuple(map(network.backbone, patches)))
    torch.testing.assert_close((fused, gate), network.fusion(*map(network.backbone, patches)))
    assert fused.shape == gate.shape == (3, network.width)


def test_the_gate_that_is_told_is_the_mean_share_of_the_left_patch(patches):
    network = built()

    _, gate = network(*patches)
    _, swapped = network(*patches[::-1])

    torch.testing.assert_close(gate, network.features(*patches)[1].mean(dim=1))
    assert not torch.allclose(gate, swapped)
    torch.nn.init.zeros_(network.fusion.weight.weight)
    assert network(*patches)[1].tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("options", "features", "share"),
    [({"gate": "scalar"}, 1, 1), ({"gate": "none"}, 2, 1), ({"network": "whole"}, 1, 1)],
)
def test_the_other_ways_to_see_a_joint(options, features, share, patches):
    network = built(**options)

    fused, gate = network.features(*patches)

    assert fused.shape == (3, features * network.width)
    assert gate.shape == (3, share)
    assert isinstance(
        getattr(network, "fusion", None),
        {"scalar": GatedFusion, "none": Concatenation}.get(options.get("gate"), type(None)),
    )
    if "gate" not in options or options["gate"] == "none":
        assert gate.unique().tolist() == [0.5]
    if options.get("gate") == "none":
        torch.testing.assert_close(fused, torch.cat([*map(network.backbone, patches)], dim=1))
    assert {task: values.shape for task, values in network(*patches)[0].items()} == {
        t.name: (3, t.grades) for t in TASKS
    }


def test_the_whole_joint_is_the_left_patch_beside_the_right_one_turned_back(patches):
    left, right = patches

    joint = built(network="whole").views(left, right)

    assert joint.shape == (3, 1, 64, 128)
    torch.testing.assert_close(joint[..., :64], left)
    torch.testing.assert_close(joint[..., 64:].flip(-1), right)


def test_heads_are_those_asked_for(patches):
    logits, _ = built()(*patches)
    few = built(tasks=["FM", "KL"], dropout=0.25)

    assert {name: tuple(value.shape) for name, value in logits.items()} == {t.name: (3, t.grades) for t in TASKS}
    assert set(few(*patches)[0]) == {"KL", "FM"}
    assert [head[0].p for head in few.heads.values()] == [0.25, 0.25]


def test_stochastic_depth_is_off_unless_asked_for():
    rates = [{m.drop_prob for m in built(**o).modules() if isinstance(m, DropPath)} for o in ({}, {"drop_path": 0.3})]

    assert rates[0] == set()
    assert rates[1]
    assert max(rates[1]) <= 0.3


@pytest.mark.parametrize("network", ["siamese", "whole"])
def test_maps_come_with_the_same_logits_and_carry_their_gradients(network, patches):
    network = built(network=network).requires_grad_(False)

    with torch.no_grad():
        logits, gate, maps = network.with_maps(*patches)

    expected, same = network(*patches)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(gate, same)
    views = network.views(*patches)
    assert maps.shape[0] == views.shape[0] == 3 * network.VIEWS
    assert maps.shape[2:] == (views.shape[2] // FINE, views.shape[3] // FINE)
    (gradient,) = torch.autograd.grad(logits["KL"][:, 2].sum(), maps)
    assert gradient.abs().sum() > 0


def test_no_other_network_is_built():
    with pytest.raises(KeyError):
        build_network("triplet", **SMALL)
