"""The trained network and how it is asked: joints in, eight grades each out."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kneeoa.grading.network import build_network
from kneeoa.grading.patches import Preprocessing, standardise, to_patches
from kneeoa.tasks import COMPARTMENT_TASKS, OA_FROM_KL, TASKS, Laterality
from kneeoa.weights import Weights, WeightsError, read_weights


@dataclass(frozen=True)
class GradedKnee:
    """Probabilities by task name, and the gate's mean share of the left patch (lateral where the side is known)."""

    side: Laterality
    probabilities: dict[str, np.ndarray]
    left_share: float

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
        network = build_network(**weights.metadata["architecture"])
        weights.load_into(network)
        self.network = network.eval().to(self.device).to(memory_format=torch.channels_last)

    @classmethod
    def from_file(cls, path: Path, device: torch.device | str = "cpu") -> "Grader":
        return cls(read_weights(path, "grader"), device)

    @torch.inference_mode()
    def grade(self, joints: Sequence[np.ndarray], sides: Sequence[Laterality]) -> list[GradedKnee]:
        """Main joints as displayed, uint8 (h, w) of any size, with their sides → one `GradedKnee` each, in order."""
        if not joints:
            return []
        left = [self.config.mirror_left and side is Laterality.LEFT for side in sides]
        upright = [joint[:, ::-1] if mirror else joint for joint, mirror in zip(joints, left, strict=True)]
        batch = np.stack([standardise(np.ascontiguousarray(joint), self.config) for joint in upright])
        patches = to_patches(torch.from_numpy(batch).to(self.device), self.config)
        logits, gate = self.network(*(p.contiguous(memory_format=torch.channels_last) for p in patches))
        probabilities = {
            name: (values.float() / self.temperatures.get(name, 1.0)).softmax(dim=1).cpu().numpy()
            for name, values in logits.items()
        }
        return [
            GradedKnee(side, {name: p[i] for name, p in probabilities.items()}, float(gate[i]))
            for i, side in enumerate(sides)
        ]
