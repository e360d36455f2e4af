"""Losses and the sums they are made of."""

import torch
from torch import Tensor
from torch.nn import functional as F

from kneeoa.tasks import TASKS
from training.data.joints import UNLABELLED


def grading_loss(logits: dict[str, Tensor], labels: Tensor) -> Tensor:
    """Cross-entropy per task over the knees that carry its label, mean over the tasks present in the batch.

    Parameters
    ----------
    logits : dict of str to Tensor (n, grades)
    labels : int64 Tensor (n, 8), `UNLABELLED` where unknown
    """
    losses = [
        F.cross_entropy(logits[task.name].float(), column, ignore_index=UNLABELLED)
        for task, column in zip(TASKS, labels.T, strict=True)
        if (column != UNLABELLED).any()
    ]
    return torch.stack(losses).mean()
