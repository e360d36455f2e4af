"""Where in the joint a grade comes from: Grad-CAM on both branches of the Siamese network.

The element-wise form, HiResCAM (Draelos and Carin 2020, arXiv:2011.08891), of Grad-CAM (Selvaraju et al., ICCV 2017): gradient
times activation, summed over channels, positive part. Averaging the gradient over a patch first, as Grad-CAM does, would smear
findings that sit in a corner. Taken at the last stage of 16 px cells (SE-ResNeXt50's third),
and not at the last of all, whose are 32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def heat_maps(logits: dict[str, Tensor], maps: Tensor, views: int, tasks: Sequence[str]) -> dict[str, Tensor]:
    """What speaks for a finding, against grade 0, in each of ``n`` joints.

    Parameters
    ----------
    logits, maps
        As `JointGrader.with_maps` returns them.
    views : int
        How many views of each joint the maps are of.
    tasks : sequence of str

    Returns
    -------
    dict of str to Tensor (n, h, w) or (n, h, 2 w)
        By task, in the joint as the network sees it, the right patch flipped back; ≥ 0.
    """
    found = {}
    for task in tasks:
        with torch.enable_grad():
            score = (logits[task][:, 1:].logsumexp(dim=1) - logits[task][:, 0]).sum()
        (gradient,) = torch.autograd.grad(score, maps, retain_graph=True)
        heat = (gradient * maps.detach()).sum(dim=1).clamp(min=0).reshape(views, -1, *maps.shape[-2:])
        found[task] = torch.cat([heat[0], *heat[1:].flip(-1)], dim=-1)
    return found
