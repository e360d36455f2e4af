"""What KL and joint-space width say of the six compartment grades."""

import pytest
import torch

from kneeoa.tasks import TASKS
from training.fitting.joint_dataset import UNLABELLED
from training.fitting.weak_labels import NORMAL, osteophyte_loss, weak_grades
from training.synthesis.phantom.grades import NARROWINGS, OSTEOPHYTES

COLUMN = {task.name: i for i, task in enumerate(TASKS)}


def widths(lateral: float, medial: float) -> dict[str, float]:
    """In W, from shares of the normal ones."""
    return {name: share * NORMAL[name] for name, share in zip(NARROWINGS, (lateral, medial), strict=True)}


@pytest.mark.parametrize(
    ("kl", "left", "expected"),
    [
        (0, (0.3, 1.0), (0, 0)),  # whatever the width, KL 0 has no narrowing
        (1, (1.0, 0.3), (0, 1)),  # at most doubtful
        (2, (0.6, 0.1), (1, 1)),
        (3, (1.1, 0.9), (0, 1)),  # some narrowing there is: where less is left
        (3, (0.4, 1.0), (2, 0)),
        (3, (0.1, 0.6), (2, 1)),  # a closed space would be KL 4
        (4, (0.7, 0.9), (2, 0)),
        (4, (1.3, 0.1), (0, 3)),
    ],
)
def test_narrowing_follows_the_measured_width_within_what_kl_allows(kl, left, expected):
    grades = weak_grades(kl, widths(*left))

    assert tuple(grades[name] for name in NARROWINGS) == expected
    assert {name for name in grades if name in OSTEOPHYTES} == (set(OSTEOPHYTES) if kl == 0 else set())
    assert all(grades[name] == 0 for name in OSTEOPHYTES if name in grades)


def graded(**sure: int) -> dict[str, torch.Tensor]:
    """Logits of one knee, sure of these osteophyte grades and of 0 for the others."""
    return {name: 12 * torch.eye(4)[[sure.get(name, 0)]] for name in OSTEOPHYTES}


def labels(kl: int, **known: int) -> torch.Tensor:
    row = torch.full((1, len(TASKS)), UNLABELLED)
    for name, grade in {"KL": kl, **known}.items():
        row[0, COLUMN[name]] = grade
    return row


@pytest.mark.parametrize(
    ("kl", "fits", "contradicts"),
    [(1, {"FL": 1}, {"FL": 2}), (2, {"TM": 1}, {}), (3, {"FM": 3}, {}), (4, {"FM": 2}, {"FM": 1, "FL": 1})],
)
def test_a_knee_needs_the_osteophytes_that_its_kl_is_defined_by(kl, fits, contradicts):
    assert osteophyte_loss(graded(**fits), labels(kl)) < 0.01
    assert osteophyte_loss(graded(**contradicts), labels(kl)) > 2


def test_any_site_will_do_and_the_gradient_is_finite_where_none_is_seen():
    logits = {name: value.requires_grad_() for name, value in graded().items()}

    osteophyte_loss(logits, labels(2)).backward()

    pulls = [logits[name].grad[0, 0].item() for name in OSTEOPHYTES]
    assert all(0 < pull < float("inf") for pull in pulls)
    assert max(pulls) == pytest.approx(min(pulls))


def test_kl_0_read_knees_and_networks_without_osteophytes_are_left_out():
    assert osteophyte_loss(graded(), labels(0)) is None
    assert osteophyte_loss(graded(), labels(2, FL=0)) is None
    assert osteophyte_loss({"KL": torch.zeros(1, 5)}, labels(2)) is None
