"""The paper's ensemble: the whole-joint network and the Siamese one, each an equal voice."""

from collections.abc import Sequence

import numpy as np

from kneeoa.grading.grader import GradedKnee


def mean_of(members: Sequence[Sequence[GradedKnee]]) -> list[GradedKnee]:
    """Mean probabilities of several graders' answers to the same knees, over those that know the task.

    The gate's share is the first one's.
    """
    return [
        GradedKnee(
            views[0].side,
            {
                name: np.mean([v.probabilities[name] for v in views if name in v.probabilities], axis=0)
                for name in dict.fromkeys(name for v in views for name in v.probabilities)
            },
            views[0].left_share,
        )
        for views in zip(*members, strict=True)
    ]
