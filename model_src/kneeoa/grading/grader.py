"""The trained network and how it is asked: joints in, eight grades each out."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from kneeoa.grading.gradcam import heat_maps
from kneeoa.grading.network import build_network
from kneeoa.grading.patches import Preprocessing, standardise, to_patches
from kneeoa.tasks import COMPARTMENT_TASKS, OA_FROM_KL, TASKS, Laterality
from kneeoa.weights import Weights, WeightsError, read_weights


@dataclass(frozen=True)
class GradedKnee:
    """What the network says of one joint.

    Attributes
    ----------
    probabilities : dict of str to ndarray (grades,)
        By task name.
    left_share : float
        The gate's mean share of the left patch (lateral where the side is known).
    heat : dict of str to ndarray (p, 2 p)
        By task, where asked for: Grad-CAM, uint8, over the joint as displayed; 255 is its own maximum.
    """

    side: Laterality
    probabilities: dict[str, np.ndarray]
    left_share: float
    heat: dict[str, np.ndarray] = field(default_factory=dict)

    def to_json(self) -> dict:
        """The grading part of a reply; the six compartment grades are withheld where the side is unknown."""
        unknown = self.side is Laterality.UNKNOWN
        grades: dict[str, dict[str, Any]] = {}
        for task in TASKS:
            p = self.probabilities[task.name]
            hidden = unknown and task in COMPARTMENT_TASKS
            grades[task.name] = {
                "grade": None if hidden else int(p.argmax()),
                "probabilities": None if hidden else [round(float(v), 4) for v in p],
                "withheld": "unknown_side" if hidden else None,
            }
        consistent = (grades["KL"]["grade"] >= OA_FROM_KL) == bool(grades["OA"]["grade"])
        warnings = [] if consistent else ["oa_kl_disagree"]
        return {
            "grades": grades,
            "gate_lateral_share": None if unknown else round(self.left_share, 4),
            "oa_kl_consistent": consistent,
            "warnings": warnings + (["compartment_grades_withheld"] if unknown else []),
        }


class Grader:
    """Grades batches of main joints on one device. Stateless after construction."""

    def __init__(self, weights: Weights, device: torch.device | str = "cpu") -> None:
        stored: dict[str, Any] = weights.metadata["preprocessing"]
        unknown = set(stored) ^ set(asdict(Preprocessing()))
        if unknown:
            raise WeightsError(f"preprocessing of these weights and of this code differ in {sorted(unknown)}")
        self.config = Preprocessing(**{**stored, "mean": tuple(stored["mean"]), "std": tuple(stored["std"])})
        self.provenance: dict[str, str] = weights.metadata["provenance"]
        self.identity = weights.identity
        self.device = torch.device(device)
        self.temperatures: dict[str, float] = weights.metadata.get("temperatures", {})
        network = build_network(**weights.metadata["architecture"]).requires_grad_(False)
        weights.load_into(network)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)

    @classmethod
    def from_file(cls, path: Path, device: torch.device | str = "cpu") -> "Grader":
        return cls(read_weights(path, "grader"), device)

    @torch.inference_mode()
    def grade(
        self, joints: Sequence[np.ndarray], sides: Sequence[Laterality], explain: Sequence[Collection[str]] = ()
    ) -> list[GradedKnee]:
        """Main joints with their sides → one `GradedKnee` each, in order.

        Parameters
        ----------
        joints : sequence of uint8 ndarray (h, w)
            As displayed, of any size.
        sides : sequence of Laterality
            What each joint looks like (`kneeoa.messages.shown_as`).
        explain : sequence of collections of str, optional
            Tasks for which each joint gets a heat map.
        """
        if not joints:
            return []
        mirrored = [self.config.mirror_left and side is Laterality.LEFT for side in sides]
        upright = [joint[:, ::-1] if mirror else joint for joint, mirror in zip(joints, mirrored, strict=True)]
        batch = np.stack([standardise(np.ascontiguousarray(joint), self.config) for joint in upright])
        patches = to_patches(torch.from_numpy(batch).to(self.device), self.config)
        maps = self.network.maps(*(p.contiguous(memory_format=torch.channels_last) for p in patches))
        logits, gate = self.network.heads_of(maps)
        probabilities = {
            name: (values.float() / self.temperatures.get(name, 1.0)).softmax(dim=1).cpu().numpy()
            for name, values in logits.items()
        }
        heat = self._heat(maps, explain or [()] * len(joints), mirrored)
        return [
            GradedKnee(side, {name: p[i] for name, p in probabilities.items()}, float(gate[i]), heat[i])
            for i, side in enumerate(sides)
        ]

    def _heat(
        self, maps: Tensor, explain: Sequence[Collection[str]], mirrored: Sequence[bool]
    ) -> list[dict[str, np.ndarray]]:
        """The heat maps of each joint, as `GradedKnee` has them."""
        asked = [i for i, tasks in enumerate(explain) if tasks]
        tasks = [task.name for task in TASKS if any(task.name in explain[i] for i in asked)]
        found: list[dict[str, np.ndarray]] = [{} for _ in explain]
        size = 2 * self.config.patch, self.config.patch
        for task, joints in heat_maps(self.network, maps, asked, tasks).items() if tasks else ():
            for i, heat in zip(asked, joints.cpu().numpy(), strict=True):
                if task in explain[i]:
                    heat = heat[:, ::-1] if mirrored[i] else heat
                    heat = cv2.resize(np.ascontiguousarray(heat), size, interpolation=cv2.INTER_LINEAR)
                    found[i][task] = np.rint(255 * heat / max(float(heat.max()), 1e-12)).astype(np.uint8)
        return found
