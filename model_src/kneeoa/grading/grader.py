"""The trained networks and how they are asked: joints in, eight grades each out."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kneeoa.grading.gradcam import heat_maps
from kneeoa.grading.network import BACKBONE, NETWORK, NETWORKS, JointGrader, build_network
from kneeoa.grading.patches import Preprocessing, standardise
from kneeoa.grading.runtime import Graph, Run, RuntimeRefused, folded, load_graphs
from kneeoa.tasks import COMPARTMENT_TASKS, OA_FROM_KL, TASKS, Laterality, features_disagree, tasks_of
from kneeoa.weights import Weights, read_weights

log = logging.getLogger(__name__)
Values = dict[str, Tensor]


@dataclass(frozen=True)
class GradedKnee:
    """What the networks say of one joint.

    Attributes
    ----------
    probabilities : dict of str to ndarray (grades,)
        By task name.
    left_share : float
        The gate's mean share of the left patch (lateral where the side is known); of the first member that has a gate.
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
        told = {
            "oa_kl_disagree": not consistent,
            "kl_features_disagree": not unknown and features_disagree({t: g["grade"] for t, g in grades.items()}),
            "compartment_grades_withheld": unknown,
        }
        return {
            "grades": grades,
            "gate_lateral_share": None if unknown else round(self.left_share, 4),
            "oa_kl_consistent": consistent,
            "warnings": [warning for warning, holds in told.items() if holds],
        }


class Member:
    """One trained network with its preparation and its calibration, on one device; ``run`` is its graph where it was compiled.

    PyTorch's own network is then built when somebody asks for a heat map: it takes seconds, and some 100 MB.
    """

    def __init__(self, weights: Weights, device: torch.device, run: Run | None = None) -> None:
        self.config = Preprocessing.from_metadata(weights.metadata["preprocessing"])
        self.architecture: dict[str, Any] = weights.metadata["architecture"]
        self.provenance: dict[str, str] = weights.metadata["provenance"]
        self.sha256 = weights.sha256
        self.device, self._weights = device, weights
        self.views = NETWORKS[self.architecture.get("network", NETWORK)].VIEWS
        tasks = tasks_of(self.architecture.get("tasks"))
        self.tasks, self.grades = [task.name for task in tasks], [task.grades for task in tasks]
        self.compiled, self.run = run is not None, run or self.graph

    @cached_property
    def network(self) -> JointGrader:
        network = build_network(**self.architecture, channels=self.config.channels).requires_grad_(False)
        self._weights.load_into(network)
        network = folded(network.eval(), self.config.channels)
        return network.to(self.device).to(memory_format=torch.channels_last)

    @cached_property
    def graph(self) -> Graph:
        return Graph(self.network, self.config, self._weights.metadata.get("temperatures", {}))

    @property
    def name(self) -> str:
        """Its network and backbone."""
        return f"{self.architecture['network']} {self.architecture.get('backbone', BACKBONE)}"

    def prepare(self, joints: Sequence[np.ndarray]) -> Tensor:
        """Main joints, uint8 (h, w) of any sizes → uint8 (n, p, 2 p)."""
        batch = np.stack([standardise(np.ascontiguousarray(joint), self.config) for joint in joints])
        return torch.from_numpy(batch).to(self.device)

    @torch.no_grad()
    def grade(self, joints: Tensor, explain: Sequence[str] = ()) -> tuple[Values, Tensor, Values]:
        """Prepared joints, uint8 (n, p, 2 p).

        Returns
        -------
        probabilities : dict of str to Tensor (n, grades)
            By task, calibrated.
        gate : Tensor (n,)
        heat : dict of str to Tensor (n, h, w)
            Of the tasks to ``explain``: see `heat_maps`. Gradients are PyTorch's, whatever runs the network otherwise.
        """
        heat = {}
        if explain:
            logits, gate, maps = self.network.with_maps(*self.graph.patches(joints))
            heat = heat_maps(logits, maps, self.network.VIEWS, explain)
            probabilities = [values.detach() for values in self.graph.calibrated(logits)]
        if self.compiled or not explain:  # the same grades, explained or not
            *probabilities, gates = self.run(joints).split([*self.grades, 1], dim=1)
            gate = gates[:, 0]
        return dict(zip(self.tasks, probabilities, strict=True)), gate.detach(), heat


class Grader:
    """Grades batches of main joints: one network, or the mean of several. Stateless after construction.

    Parameters
    ----------
    weights : Weights
        Of a grader; its members vote with equal weight.
    *more : Weights
        Further graders, whose members vote too.
    device : str
    compiled : path, optional
        Where `kneeoa.grading.compiled` put what runs the networks of ``weights`` on a CPU. Where it does not fit, PyTorch
        runs them as they are, which the log says; where nothing is there, that is so by choice.

    Attributes
    ----------
    runtime : str
        What runs them: one of `RUNTIMES`.
    """

    def __init__(
        self, weights: Weights, *more: Weights, device: torch.device | str = "cpu", compiled: Path | None = None
    ) -> None:
        self.device = torch.device(device)
        runs: list[Run] = []
        self.runtime = "eager"
        if compiled and compiled.exists() and self.device.type == "cpu":
            try:
                self.runtime, runs = load_graphs(compiled, weights.sha256, len(weights.members))
            except RuntimeRefused as refused:
                log.warning("PyTorch runs the grader as it is: %s", refused)
        members = [member for each in (weights, *more) for member in each.members]
        self.members = [Member(member, self.device, run) for member, run in zip_longest(members, runs)]
        # A temperature of the mean is fitted to those who are in it.
        self.temperatures: dict[str, float] = {} if more else weights.metadata.get("mean_temperatures", {})
        self.identity = weights.identity
        self.provenance = {
            task.name: "; ".join(dict.fromkeys(m.provenance[task.name] for m in self.members)) for task in TASKS
        }

    @classmethod
    def from_file(cls, *paths: Path, device: torch.device | str = "cpu", compiled: Path | None = None) -> "Grader":
        return cls(*(read_weights(path, "grader") for path in paths), device=device, compiled=compiled)

    @torch.no_grad()
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
        asked = explain or [()] * len(joints)
        tasks = [task.name for task in TASKS if any(task.name in names for names in asked)]
        mirrored = [side is Laterality.LEFT for side in sides]
        said: dict[str, list[Tensor]] = {}
        heat: dict[str, list[np.ndarray]] = {}
        gates = []
        for member in self.members:
            flips = [member.config.mirror_left and mirror for mirror in mirrored]
            prepared = member.prepare([j[:, ::-1] if flip else j for j, flip in zip(joints, flips, strict=True)])
            probabilities, gate, maps = member.grade(prepared, tasks)
            for name, values in probabilities.items():
                said.setdefault(name, []).append(values)
            for name, values in maps.items():
                heat.setdefault(name, []).append(self._on_joint(values, flips))
            gates += [gate] * (member.views > 1)
        means = {name: self._calibrated(name, torch.stack(values).mean(dim=0)) for name, values in said.items()}
        share = gates[0] if gates else torch.full((len(joints),), 0.5)
        return [
            GradedKnee(
                side,
                {name: p[i] for name, p in means.items()},
                float(share[i]),
                {
                    name: _strongest_255(np.mean([m[i] for m in heat[name]], axis=0))
                    for name in tasks
                    if name in asked[i]
                },
            )
            for i, side in enumerate(sides)
        ]

    @torch.no_grad()
    def probabilities(self, joints: Tensor) -> dict[str, Tensor]:
        """Mean calibrated probabilities, (n, grades) by task, of joints shown as right ones, uint8 (n, p, 2 p) of any p."""
        said: dict[str, list[Tensor]] = {}
        for member in self.members:
            p = member.config.patch
            resized = functional.interpolate(joints[:, None].float(), (p, 2 * p), mode="bilinear", antialias=True)[:, 0]
            for name, values in member.grade(resized)[0].items():
                said.setdefault(name, []).append(values)
        return {name: torch.stack(values).mean(dim=0) for name, values in said.items()}

    def _calibrated(self, task: str, mean: Tensor) -> np.ndarray:
        """The mean of the members' probabilities (n, grades), made to mean what it says: a mean is less sure than its members."""
        return (mean.clamp(min=1e-9).log() / self.temperatures.get(task, 1.0)).softmax(dim=1).cpu().numpy()

    def _on_joint(self, maps: Tensor, flips: Sequence[bool]) -> np.ndarray:
        """A member's heat maps (n, h, w) on the joints as displayed, float (n, p, 2 p) of the first member's p; maximum 1."""
        p = self.members[0].config.patch
        shown = [m[:, ::-1] if flip else m for m, flip in zip(maps.cpu().numpy(), flips, strict=True)]
        sized = [cv2.resize(np.ascontiguousarray(m), (2 * p, p), interpolation=cv2.INTER_LINEAR) for m in shown]
        return np.stack([m / max(float(m.max()), 1e-12) for m in sized])


def _strongest_255(heat: np.ndarray) -> np.ndarray:
    return np.rint(255 * heat / max(float(heat.max()), 1e-12)).astype(np.uint8)
