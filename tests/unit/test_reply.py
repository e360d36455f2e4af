"""What becomes of a detection and the grades of its knees."""

from types import SimpleNamespace

import numpy as np
import pytest

from kneeoa.errors import CorruptImage
from kneeoa.grading.grader import GradedKnee
from kneeoa.messages import DETECTION_SCHEMA, encode_png
from kneeoa.reply import build_reply, joints_of, replies_of
from kneeoa.tasks import TASKS, Laterality
from kneeoa.timing import Clock

CROP = np.arange(40 * 80, dtype=np.uint8).reshape(40, 80)
FOUND = {"knee": "R", "status": "found", "crop": encode_png(CROP)}
BARE = {"knee": "L", "status": "not_found", "reason": "no_knee_like_region"}


def graded(side=Laterality.RIGHT, kl=3, **heat) -> GradedKnee:
    grades = {task.name: kl if task.name == "KL" else 1 for task in TASKS}
    return GradedKnee(side, {t.name: np.eye(t.grades)[grades[t.name]] for t in TASKS}, 0.25, heat)


class FakeGrader:
    """Grades each joint with the KL that its first pixel says, and fails on any batch that holds a 99."""

    members = (SimpleNamespace(name="one", sha256="1"), SimpleNamespace(name="two", sha256="2"))
    identity = {"version": "9", "sha256": "12"}
    provenance = {"KL": "real labels"}
    runtime = "eager"

    def __init__(self) -> None:
        self.asked = []

    def grade(self, joints, sides, tasks):
        self.asked.append((len(joints), sides, tasks))
        if any(joint[0, 0] == 99 for joint in joints):
            raise RuntimeError("DOE^JOHN")
        return [graded(side, int(joint[0, 0])) for joint, side in zip(joints, sides, strict=True)]


@pytest.fixture
def fake() -> FakeGrader:
    return FakeGrader()


def item(*kls):
    """A detection message and its joints."""
    joints = [(np.full((40, 80), kl, np.uint8), Laterality.RIGHT, frozenset()) for kl in kls]
    return {"schema": DETECTION_SCHEMA, "knees": [FOUND] * len(kls)}, joints


def test_joints_are_those_of_found_knees_as_they_look():
    message = {"knees": [FOUND, BARE, FOUND | {"mirrored": True}]}

    first, second = joints_of(message, frozenset({"FM"}))

    assert (first[0] == CROP).all()
    assert [first[1], second[1]] == [Laterality.RIGHT, Laterality.LEFT]
    assert second[2] == {"FM"}


def test_replies_come_in_order_and_all_joints_are_graded_at_once(fake):
    clock = Clock()

    replies = replies_of([item(0, 4), (CorruptImage(), []), item(), item(2)], fake, clock)

    assert [[knee["grades"]["KL"]["grade"] for knee in reply["knees"]] for reply in replies] == [[0, 4], [], [], [2]]
    assert [reply["status"] for reply in replies] == ["ok", "error", "not_found", "ok"]
    assert replies[1]["error"]["code"] == "corrupt_image"
    assert fake.asked == [(3, [Laterality.RIGHT] * 3, [frozenset()] * 3)]
    assert set(clock.seconds) == {"grade", "encode"}


def test_without_joints_the_network_is_not_asked(fake):
    (reply,) = replies_of([item()], fake)

    assert reply["status"] == "not_found"
    assert not fake.asked


def test_a_joint_that_breaks_the_network_costs_its_own_film_only_and_is_not_quoted(fake, caplog):
    replies = replies_of([item(1), item(99), item(2)], fake)

    assert [reply["status"] for reply in replies] == ["ok", "error", "ok"]
    assert (replies[1]["error"]["code"], replies[1]["error"]["stage"]) == ("internal_error", "grade")
    assert replies[1]["model"]["grader"]["version"] == "9"
    assert [number for number, *_ in fake.asked] == [3, 1, 1, 1]
    assert "RuntimeError" in caplog.text
    assert "DOE" not in caplog.text


@pytest.mark.parametrize(
    ("knees", "grades", "status"),
    [
        ([FOUND, FOUND], [graded(), graded()], "ok"),
        ([FOUND, BARE], [graded()], "partial"),
        ([BARE, FOUND], [graded()], "partial"),
        ([FOUND], [graded(Laterality.UNKNOWN)], "partial"),
        ([FOUND, FOUND], [graded(), graded(Laterality.UNKNOWN)], "partial"),
        ([BARE, BARE], [], "not_found"),
        ([], [], "not_found"),
    ],
)
def test_the_status_says_whether_all_was_graded(fake, knees, grades, status):
    reply = build_reply({"knees": knees}, grades, fake)

    assert reply["status"] == status
    assert reply["error"] is None
    assert [knee["status"] for knee in reply["knees"]] == ["graded" if k is FOUND else "not_found" for k in knees]
    assert [knee["grades"] is None for knee in reply["knees"]] == [k is BARE for k in knees]


def test_grades_go_to_the_knees_that_were_found(fake):
    reply = build_reply({"knees": [BARE, FOUND, FOUND]}, [graded(kl=1), graded(kl=4)], fake)

    bare, first, second = reply["knees"]
    assert [knee["grades"]["KL"]["grade"] for knee in (first, second)] == [1, 4]
    assert bare | {"knee": "L", "reason": "no_knee_like_region", "mirrored": False, "box": None, "warnings": []} == bare
    assert not any("crop" in knee for knee in reply["knees"])
    assert FOUND["crop"]  # the message itself is left as it was


def test_the_model_is_both_nodes(fake):
    detector = {"version": "1", "sha256": "0"}

    told, by_hand = (
        build_reply({"knees": [FOUND], **more}, [graded()], fake)["model"]
        for more in ({"model": {"detector": detector}}, {"model": None})
    )

    assert told["detector"] == detector
    assert by_hand["detector"] is None
    assert told["grader"] == {
        "version": "9",
        "sha256": "12",
        "members": [{"network": "one", "sha256": "1"}, {"network": "two", "sha256": "2"}],
        "provenance": {"KL": "real labels"},
        "runtime": "eager",
    }


def test_a_detectors_error_is_handed_through(fake):
    error = {"code": "corrupt_image", "message": "damaged", "stage": "decode", "http_status": 422}

    reply = build_reply({"status": "error", "error": error, "knees": [], "film": {"width": 1}}, [], fake)

    assert (reply["status"], reply["error"], reply["film"]) == ("error", error, {"width": 1})


def test_joint_space_is_measured_in_the_crop_of_its_own_knee(fake, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "kneeoa.reply.joint_space_of", lambda knee, joint, spacing: seen.append((joint[0, 0], spacing)) or 1
    )
    message, joints = item(3, 4)
    message["knees"].insert(0, BARE)
    message["film"] = {"spacing_mm": [0.2, 0.3]}

    reply = build_reply(message, [graded(), graded()], fake, joints)

    assert seen == [(3, [0.2, 0.3]), (4, [0.2, 0.3])]
    assert [knee["joint_space"] for knee in reply["knees"]] == [None, 1, 1]
    assert build_reply({"knees": [FOUND]}, [graded()], fake)["knees"][0]["joint_space"] is None


def test_heat_maps_lie_where_the_crop_was_cut(fake):
    heat = np.zeros((16, 32), np.uint8)
    knees = [FOUND | {"main_joint": place} for place in ([10.4, 20.6, 74.4, 52.6], [5, 6, 5, 6], None, ["x", 1, 2, 3])]

    reply = build_reply({"knees": knees}, [graded(KL=heat, FM=heat)] * 4, fake)

    maps = [knee["explanations"]["to_film"] for knee in reply["knees"]]
    assert maps == [[[2.0, 0.0, 10], [0.0, 2.0, 21]], [[0.03125, 0.0, 5], [0.0, 0.0625, 6]], None, None]
    assert set(reply["knees"][0]["explanations"]["heat"]) == {"KL", "FM"}
    (withheld,) = build_reply({"knees": [FOUND]}, [graded(Laterality.UNKNOWN, KL=heat, FM=heat)], fake)["knees"]
    assert set(withheld["explanations"]["heat"]) == {"KL"}


def test_the_figure_is_drawn_from_the_preview(fake, monkeypatch):
    monkeypatch.setattr(
        "kneeoa.reporting.figure.figure_png", lambda preview, reply: (preview, reply["knees"][0]["knee"])
    )

    assert build_reply({"knees": [FOUND], "preview": "small"}, [graded()], fake)["figure"] == ("small", "R")
    assert "figure" not in build_reply({"knees": [FOUND]}, [graded()], fake)
