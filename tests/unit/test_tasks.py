import pytest

from kneeoa.tasks import (
    COMPARTMENT_TASKS,
    KL,
    NARROWINGS,
    OA,
    OA_FROM_KL,
    OSTEOPHYTES,
    TASKS,
    Laterality,
    features_disagree,
)


def test_the_eight_tasks_their_grades_and_compartments():
    assert {task.name: task.grades for task in TASKS} == dict.fromkeys((*NARROWINGS, *OSTEOPHYTES), 4) | {
        "KL": 5,
        "OA": 2,
    }
    assert [task.name for task in COMPARTMENT_TASKS] == [*NARROWINGS, *OSTEOPHYTES]
    assert [task.compartment[0].upper() for task in COMPARTMENT_TASKS] == [t.name[-1] for t in COMPARTMENT_TASKS]
    assert (KL.compartment, OA.compartment, OA_FROM_KL) == (None, None, 2)


def test_the_other_side():
    assert [side.other for side in Laterality] == [Laterality.LEFT, Laterality.RIGHT, Laterality.UNKNOWN]


@pytest.mark.parametrize("kl", range(5))
@pytest.mark.parametrize("spur", range(4))
@pytest.mark.parametrize("narrowing", range(4))
def test_kellgren_and_lawrences_definition(kl, spur, narrowing):
    grades = dict.fromkeys((task.name for task in TASKS), 0) | {"KL": kl, "TM": spur, "JSN_L": narrowing}

    impossible = {
        0: spur > 1 or narrowing > 1,  # no definite feature
        1: False,
        2: spur < 1,  # an osteophyte
        3: spur < 1 or narrowing < 1,  # and a narrowed joint space
        4: spur < 1 or narrowing < 1,
    }
    assert features_disagree(grades) == impossible[kl]
