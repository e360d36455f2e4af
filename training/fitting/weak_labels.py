"""What a knee's KL grade and the width of its joint spaces say of the six compartment grades, where no reader graded them.

Kellgren and Lawrence define KL by these features. KL 0 has none of them. KL 1 has doubtful ones at most. From KL 2 on there is
an osteophyte, at KL 4 a large one. KL 3 has a narrowed joint space, KL 4 a markedly narrowed one; which of the two it is, and
how much, is measured. The grades so derived are weak labels: right for KL 0, likely for the rest.
"""

import torch
from torch import Tensor

from kneeoa.tasks import KL, NARROWINGS, OSTEOPHYTES, TASKS

NORMAL = {"JSN_L": 0.068, "JSN_M": 0.055}  # narrowest joint space in W, the median of 250 knees of KL 0
NARROWED = 0.75, 0.5, 0.2  # share of the normal width that is left, below which a space is of grade 1, 2, 3


def weak_grades(kl: int, widths: dict[str, float]) -> dict[str, int]:
    """The narrowing grades of a knee, and at KL 0 its osteophytes, which are none.

    Parameters
    ----------
    kl : int
    widths : dict of str to float
        Joint-space width in W for each of `NARROWINGS`.
    """
    left = {name: widths[name] / NORMAL[name] for name in NARROWINGS}
    narrowest = min(NARROWINGS, key=left.__getitem__)
    grades = {}
    for name in NARROWINGS:
        least, most = {3: (1, 2), 4: (2, 3)}.get(kl, (0, min(kl, 1)))
        measured = sum(left[name] < limit for limit in NARROWED)
        grades[name] = min(max(measured, least if name == narrowest else 0), most)
    return grades | (dict.fromkeys(OSTEOPHYTES, 0) if kl == 0 else {})


def osteophyte_loss(logits: dict[str, Tensor], labels: Tensor) -> Tensor | None:
    """Negative log-likelihood of what KL says of the four osteophytes together, mean over the knees of KL 1 … 4.

    KL 1: each is of grade 0 or 1. KL 2, 3: at least one is of grade ≥ 1; KL 4: of grade ≥ 2 (a noisy or).

    Parameters
    ----------
    logits : dict of str to Tensor (n, grades)
    labels : int64 Tensor (n, 8)
        Knees with a reader's osteophyte grade, or without KL, are left out; None if that leaves no knee.
    """
    columns = {task.name: column for task, column in zip(TASKS, labels.T, strict=True)}
    kl = columns[KL.name]
    used = (kl > 0) & torch.stack([columns[name] < 0 for name in OSTEOPHYTES]).all(dim=0)
    if not used.any() or not all(name in logits for name in OSTEOPHYTES):
        return None
    kl, log_p = kl[used], torch.stack([logits[name][used].float().log_softmax(dim=1) for name in OSTEOPHYTES])
    below_1, below_2 = log_p[..., 0], log_p[..., :2].logsumexp(dim=-1)  # (4, n): that a site is of a lower grade
    none = torch.where(kl == 4, below_2.sum(dim=0), below_1.sum(dim=0))
    some = -torch.log(-torch.expm1(none.clamp(max=-1e-7)))
    return torch.where(kl == 1, -below_2.mean(dim=0), some).mean()
