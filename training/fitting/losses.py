"""Losses and the sums they are made of."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from kneeoa.tasks import TASKS
from training.fitting.joint_dataset import UNLABELLED


def grading_loss(
    logits: dict[str, Tensor],
    labels: Tensor,
    neighbours: float = 0.0,
    weights: dict[str, Tensor] | None = None,
    emphasis: Mapping[str, float] = MappingProxyType({}),
) -> Tensor:
    """Cross-entropy per task over the knees that carry its label, mean over the tasks present in the batch and the network.

    Parameters
    ----------
    logits : dict of str to Tensor (n, grades)
    labels : int64 Tensor (n, 8), `UNLABELLED` where unknown
    neighbours : float
        Share of the target given to the adjacent grades of an ordinal task: readers who disagree, differ by one grade.
        0 is the paper's loss.
    weights : dict of str to Tensor (grades,), optional
        Of each grade in its task's loss, as `grade_weights` gives; all 1 is the paper's loss.
    emphasis : dict of str to float
        Weight of a task in the mean, 1 where it is not named.
    """
    losses, shares = [], []
    for task, column in zip(TASKS, labels.T, strict=True):
        known = column != UNLABELLED
        if task.name in logits and known.any():
            target = soft_target(column[known], task.grades, neighbours if task.grades > 2 else 0.0)
            weight = weights[task.name].to(labels.device) if weights else None
            shares.append(emphasis.get(task.name, 1.0))
            losses.append(shares[-1] * F.cross_entropy(logits[task.name][known].float(), target, weight))
    return torch.stack(losses).sum() / sum(shares)


def soft_target(labels: Tensor, grades: int, neighbours: float) -> Tensor:
    """int64 (n,) → float (n, grades): 1 − neighbours on the label, the rest shared by the grades next to it."""
    distance = (labels[:, None] - torch.arange(grades, device=labels.device)).abs()
    beside = (distance == 1).float()
    return (1 - neighbours) * (distance == 0).float() + neighbours * beside / beside.sum(dim=1, keepdim=True)


def grade_weights(labels: Tensor, balance: float) -> dict[str, Tensor]:
    """Frequency of each grade to the power −balance, 1 on average over the labels int64 (n, 8); tasks without any left out.

    0 weighs every knee alike, 1 every grade.
    """
    weights = {}
    for task, column in zip(TASKS, labels.T, strict=True):
        counts = torch.bincount(column[column != UNLABELLED], minlength=task.grades).float()
        if counts.sum():
            raw = counts.clamp(min=1) ** -balance
            weights[task.name] = raw * counts.sum() / (raw * counts).sum()
    return weights


def teaching_loss(
    logits: dict[str, Tensor], taught: Sequence[dict[str, Tensor]], emphasis: Mapping[str, float] = MappingProxyType({})
) -> Tensor:
    """Cross-entropy to the mean of what the teachers say, probabilities float (n, grades), mean over the tasks they know."""
    losses, shares = [], []
    for name, values in logits.items():
        said = [probabilities[name] for probabilities in taught if name in probabilities]
        if said:
            shares.append(emphasis.get(name, 1.0))
            losses.append(shares[-1] * F.cross_entropy(values.float(), torch.stack(said).mean(dim=0)))
    return torch.stack(losses).sum() / sum(shares)
