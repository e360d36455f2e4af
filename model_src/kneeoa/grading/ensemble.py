"""The paper's ensemble: the whole-joint network and the Siamese one, each an equal voice."""

from collections.abc import Sequence

import numpy as np

from kneeoa.grading.grader import GradedKnee


def mean_of(members: Sequence[Sequence[GradedKnee]]) -> list[GradedKnee]:
    """Mean probabilities and heat maps of several graders' answers to the same knees, over those that know the task.

    The gate's share is the first one's; heat maps are of the first one's size.
    """
    return [
        GradedKnee(
            views[0].side,
            _means([view.probabilities for view in views]),
            views[0].left_share,
            {task: np.rint(heat).astype(np.uint8) for task, heat in _means([view.heat for view in views]).items()},
        )
        for views in zip(*members, strict=True)
    ]


def _means(members: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Of what each member says of a task."""
    named = {name: [m[name] for m in members if name in m] for name in dict.fromkeys(n for m in members for n in m)}
    return {name: np.mean(values, axis=0) for name, values in named.items()}
