"""Siamese SE-ResNeXt50-32x4d with adaptive gated fusion."""

import timm
import torch
from torch import Tensor, nn

from kneeoa.tasks import TASKS

BACKBONE = "seresnext50_32x4d"


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


class SiameseGrader(nn.Module):
    """Two patches of one joint in, logits of the eight tasks out; one backbone serves both patches."""

    def __init__(self, gate: str = "vector", dropout: float = 0.5, backbone: str = BACKBONE) -> None:
        super().__init__()
        self.backbone = timm.create_model(backbone, pretrained=False, num_classes=0)
        features = int(self.backbone.num_features)  # type: ignore[arg-type]
        self.fusion = GatedFusion(features, gate)
        self.heads = nn.ModuleDict(
            {task.name: nn.Sequential(nn.Dropout(dropout), nn.Linear(features, task.grades)) for task in TASKS}
        )

    def features(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """The two patches' fused vector (n, c) and the gate (n, c or 1)."""
        f_left, f_right = self.backbone(torch.cat([left, right])).chunk(2)
        fused, gate = self.fusion(f_left, f_right)
        return fused, gate

    def forward(self, left: Tensor, right: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Left and right patch, each (n, 3, p, p), the right one already flipped → logits by task and the gate.

        Returns
        -------
        logits : dict of str to Tensor (n, grades)
        gate : Tensor (n,)
            Mean share of the left patch, 0 … 1.
        """
        fused, gate = self.features(left, right)
        return {name: head(fused) for name, head in self.heads.items()}, gate.mean(dim=1)
