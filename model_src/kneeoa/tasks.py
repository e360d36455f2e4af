"""The eight grading tasks and the side of a knee: the words everything else is written in."""

from dataclasses import dataclass
from enum import Enum


class Laterality(str, Enum):
    """Anatomical side. An enum and never 1 or 2: the field's own code bases disagree on which is which."""

    RIGHT = "R"
    LEFT = "L"
    UNKNOWN = "unknown"

    @property
    def other(self) -> "Laterality":
        """The other side; unknown stays unknown."""
        return {Laterality.RIGHT: Laterality.LEFT, Laterality.LEFT: Laterality.RIGHT}.get(self, self)


@dataclass(frozen=True)
class Task:
    """One graded finding.

    Attributes
    ----------
    name : str
        Identifier in messages, columns and weights.
    grades : int
        Number of ordinal grades, 0 … grades − 1.
    compartment : str or None
        ``lateral`` or ``medial`` where the grade belongs to one side of the joint and therefore needs a known laterality.
    title : str
        The name a reader expects.
    """

    name: str
    grades: int
    compartment: str | None
    title: str


KL = Task("KL", 5, None, "Kellgren-Lawrence grade")
OA = Task("OA", 2, None, "osteoarthritis (KL ≥ 2)")
COMPARTMENT_TASKS = (
    Task("JSN_L", 4, "lateral", "joint-space narrowing, lateral"),
    Task("JSN_M", 4, "medial", "joint-space narrowing, medial"),
    Task("FL", 4, "lateral", "osteophyte, lateral femur"),
    Task("FM", 4, "medial", "osteophyte, medial femur"),
    Task("TL", 4, "lateral", "osteophyte, lateral tibia"),
    Task("TM", 4, "medial", "osteophyte, medial tibia"),
)
TASKS = (KL, OA, *COMPARTMENT_TASKS)
OA_FROM_KL = 2  # Wang et al. 2021: a knee has OA when KL ≥ 2
