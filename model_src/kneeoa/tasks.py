"""The eight grading tasks and the side of a knee: the words everything else is written in."""

from collections.abc import Collection, Mapping
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
NARROWINGS = ("JSN_L", "JSN_M")
OSTEOPHYTES = ("FL", "FM", "TL", "TM")
OA_FROM_KL = 2  # Wang et al. 2021: a knee has OA when KL ≥ 2


def tasks_of(names: Collection[str] | None) -> list[Task]:
    """The tasks of these names, in the order of `TASKS`; all of them for None."""
    return [task for task in TASKS if names is None or task.name in names]


def features_disagree(grades: Mapping[str, int]) -> bool:
    """Whether a knee's KL grade and its six features, by task name, contradict each other by Kellgren and Lawrence's definition.

    KL 0 has no feature: one of grade 2 or 3 is beyond doubt, and rules it out. From KL 2 on there is an osteophyte, from KL 3
    on a narrowed joint space, each of grade 1 at least. KL 1 is doubt itself, and rules nothing out.
    """
    kl, spurs, narrowings = grades[KL.name], *(max(grades[n] for n in names) for names in (OSTEOPHYTES, NARROWINGS))
    return (kl == 0 and max(spurs, narrowings) >= 2) or (kl >= 2 and spurs == 0) or (kl >= 3 and narrowings == 0)
