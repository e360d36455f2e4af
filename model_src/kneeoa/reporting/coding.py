"""Our own coding scheme, 99KNEEOA: what has no code in SNOMED CT, LOINC or DICOM that is known to us (docs/99KNEEOA.csv)."""

from functools import cache

from pydicom import Dataset
from pydicom.sr.coding import Code

import kneeoa
from kneeoa.remarks import REASONS
from kneeoa.tasks import KL, OA, TASKS, Task

SCHEME = "99KNEEOA"


@cache
def meanings() -> dict[str, str]:
    """Every code of the scheme with its meaning."""
    graded = [task for task in TASKS if task is not OA]
    return (
        {task.name: _title(task) for task in graded}
        | {f"GRADE_{grade}": f"Grade {grade}" for grade in range(KL.grades)}
        | {f"P_{task.name}_{grade}": _probability(task, grade) for task in TASKS for grade in range(task.grades)}
        | {f"JSW_{side[0].upper()}": f"Minimum joint-space width, {side}" for side in ("lateral", "medial")}
        | {"KEY_POINTS": "Key points", "NOT_GRADED": "Not graded"}
        | {reason.upper(): meaning for reason, meaning in REASONS.items()}
        | {"DISCLAIMER": "Disclaimer", "WARNING": "Warning", "PROVENANCE": "What a head learned from"}
    )


def ours(value: str) -> Code:
    """A code of the scheme; KeyError where it has none of that value."""
    return Code(value, SCHEME, meanings()[value])


def identification() -> Dataset:
    """The scheme, as an item of the Coding Scheme Identification Sequence."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = SCHEME, "kneeoa: knee osteoarthritis grades"
    scheme.CodingSchemeVersion, scheme.CodingSchemeResponsibleOrganization = kneeoa.__version__, "kneeoa"
    return scheme


def _title(task: Task) -> str:
    return task.title[:1].upper() + task.title[1:]


def _probability(task: Task, grade: int) -> str:
    if task is OA:
        return f"Osteoarthritis {('absent', 'present')[grade]}, probability"
    return f"{_title(task)}{'' if task is KL else ', grade'} {grade}, probability"
