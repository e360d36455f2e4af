"""Where in the joint a grade comes from: Grad-CAM on both branches of the Siamese network.

The element-wise form, HiResCAM (Draelos and Carin 2020, arXiv:2011.08891), of Grad-CAM (Selvaraju et al., ICCV 2017): gradient
times activation, summed over channels, positive part. Averaging the gradient over a patch first, as Grad-CAM does, would smear
findings that sit in a corner. Taken at the backbone's third stage, whose cells are 16 px, and not at its last, whose are 32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kneeoa.grading.network import JointGrader


def heat_maps(network: JointGrader, maps: Tensor, joints: Sequence[int], tasks: Sequence[str]) -> dict[str, Tensor]:
    """What speaks for a finding, against grade 0, in some joints of a batch.

    Parameters
    ----------
    network : JointGrader
        Its parameters gather no gradients.
    maps : Tensor (k n, c, h, w)
        `JointGrader.maps` of ``n`` joints.
    joints : sequence of int
        Which of the ``n``.
    tasks : sequence of str

    Returns
    -------
    dict of str to Tensor (len(joints), h, w) or (len(joints), h, 2 w)
        By task, in the joint as the network sees it, the right patch flipped back; ≥ 0.
    """
    with torch.inference_mode(False), torch.enable_grad():
        by_view = maps.reshape(network.VIEWS, -1, *maps.shape[1:])
        leaf = by_view[:, list(joints)].flatten(0, 1).requires_grad_()
        logits, _ = network.heads_of(leaf)
        scores = [logits[task][:, 1:].logsumexp(dim=1) - logits[task][:, 0] for task in tasks]
        gradients = [torch.autograd.grad(score.sum(), leaf, retain_graph=True)[0] for score in scores]
    found = {}
    for task, gradient in zip(tasks, gradients, strict=True):
        heat = (gradient * leaf.detach()).sum(dim=1).clamp(min=0).reshape(network.VIEWS, len(joints), *maps.shape[-2:])
        found[task] = torch.cat([heat[0], *heat[1:].flip(-1)], dim=-1)
    return found
