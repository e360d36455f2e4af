"""The networks that grade a joint: a timm backbone on two patches with adaptive gated fusion, or on the joint in one piece."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from kneeoa.tasks import tasks_of

NETWORK, BACKBONE = "siamese", "seresnext50_32x4d"  # Wang et al. 2021; where none is named
FINE = 16  # pixels a cell of the maps that heat maps are made of; the next stage's are 32


class GatedFusion(nn.Module):
    """Eq. (6): ``g = σ(W_g (f_left ⊕ f_right))``, ``f = g · f_left + (1 − g) · f_right``; no bias.

    Parameters
    ----------
    features : int
        Width of each branch's vector.
    gate : {'vector', 'scalar'}
        One gate per channel (default: only then can a channel carry a lateral finding and its neighbour a medial one),
        or one for all. The paper does not say which.
    """

    def __init__(self, features: int, gate: str = "vector") -> None:
        super().__init__()
        if gate not in ("vector", "scalar"):
            raise ValueError(f"gate must be 'vector' or 'scalar', got {gate!r}")
        self.weight = nn.Linear(2 * features, features if gate == "vector" else 1, bias=False)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Two (n, c) vectors → their mixture (n, c) and the gate (n, c or 1): the left patch's share."""
        g = torch.sigmoid(self.weight(torch.cat([left, right], dim=1)))
        return g * left + (1 - g) * right, g


class Concatenation(nn.Module):
    """No gate: both vectors side by side. The step before the gate in the paper's ablation."""

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Two (n, c) vectors → (n, 2 c), and an even share (n, 1)."""
        return torch.cat([left, right], dim=1), torch.full_like(left[:, :1], 0.5)


class JointGrader(nn.Module):
    """A backbone and a head for each task; what lies between is the subclass's, which says how many views of a joint it takes.

    Parameters
    ----------
    backbone : str
        Any of timm's names.
    channels : int
        Of the image that the backbone takes: 3 equal ones, or 1.
    dropout : float
        Before each head.
    drop_path : float
        Stochastic depth in the backbone while it trains.
    tasks : sequence of str, optional
        Names of the tasks to grade; all eight by default.
    """

    VIEWS: int

    def __init__(
        self,
        backbone: str = BACKBONE,
        channels: int = 3,
        dropout: float = 0.5,
        drop_path: float = 0.0,
        tasks: Sequence[str] | None = None,
        branches: int = 1,
    ) -> None:
        super().__init__()
        import timm  # takes seconds, which a worker whose networks were compiled need not wait

        options: dict[str, Any] = {"drop_path_rate": drop_path} if drop_path else {}  # not every backbone knows it
        self.backbone: Any = timm.create_model(backbone, num_classes=0, in_chans=channels, **options)
        self.width = int(self.backbone.num_features)  # type: ignore[arg-type]
        self.heads = nn.ModuleDict(
            {
                task.name: nn.Sequential(nn.Dropout(dropout), nn.Linear(branches * self.width, task.grades))
                for task in tasks_of(tasks)
            }
        )

    def views(self, left: Tensor, right: Tensor) -> Tensor:
        """What the backbone sees of ``n`` joints, (k n, channels, h, w): one view of each joint, then another of each, …"""
        raise NotImplementedError

    def fuse(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """The views' vectors (k n, c) → the joints' (n, features), and the left patch's share (n, c or 1)."""
        raise NotImplementedError

    def features(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """What the heads see, (n, features), and the left patch's share (n, c or 1); patches as in `forward`."""
        return self.fuse(self.backbone(self.views(left, right)))

    def forward(self, left: Tensor, right: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Left and right patch, each (n, channels, p, p), the right one already flipped → logits by task and the gate.

        Returns
        -------
        logits : dict of str to Tensor (n, grades)
        gate : Tensor (n,)
            Mean share of the left patch, 0 … 1.
        """
        return self._heads_of(*self.features(left, right))

    def with_maps(self, left: Tensor, right: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """As `forward`, and what the last stage of `FINE` cells makes of the views, (k n, c, h / 16, w / 16).

        Logits have gradients with respect to these maps, whether parameters gather any or not.
        """
        (stage,) = (i for i, info in enumerate(self.backbone.feature_info) if info["reduction"] == FINE)
        with torch.enable_grad():
            last, (maps,) = self.backbone.forward_intermediates(
                self.views(left, right).requires_grad_(), indices=[stage]
            )
            return *self._heads_of(*self.fuse(self.backbone.forward_head(last))), maps

    def _heads_of(self, fused: Tensor, gate: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        return {name: head(fused) for name, head in self.heads.items()}, gate.mean(dim=1)


class SiameseGrader(JointGrader):
    """One backbone sees both patches, a gate mixes what it says of them.

    Parameters
    ----------
    gate : {'vector', 'scalar', 'none'}
        See `GatedFusion`; ``none`` is `Concatenation`.
    **options
        See `JointGrader`.
    """

    VIEWS = 2

    def __init__(self, gate: str = "vector", **options: Any) -> None:
        super().__init__(**options, branches=2 if gate == "none" else 1)
        self.fusion = Concatenation() if gate == "none" else GatedFusion(self.width, gate)

    def views(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([left, right])

    def fuse(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        joints = vectors.shape[0] // 2  # in words that compilers follow for any number of joints
        fused, gate = self.fusion(vectors[:joints], vectors[joints:])
        return fused, gate


class WholeJointGrader(JointGrader):
    """The joint in one piece: the other half of the paper's ensemble."""

    VIEWS = 1

    def views(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([left, right.flip(-1)], dim=-1)

    def fuse(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        return vectors, torch.full_like(vectors[:, :1], 0.5)


NETWORKS: dict[str, type[JointGrader]] = {"siamese": SiameseGrader, "whole": WholeJointGrader}


def build_network(network: str = NETWORK, **options: Any) -> JointGrader:
    """By the name that configurations and weights use: one of `NETWORKS`."""
    return NETWORKS[network](**options)
