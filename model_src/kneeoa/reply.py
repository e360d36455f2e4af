"""The user's reply: the detector's message with grades in the place of crops."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from kneeoa.errors import InternalError, KneeOaError
from kneeoa.grading.grader import GradedKnee, Grader
from kneeoa.measurement.joint_space import joint_space_of
from kneeoa.messages import REPLY_SCHEMA, Message, decode_png, encode_png, envelope, shown_as
from kneeoa.tasks import Laterality
from kneeoa.timing import Clock

log = logging.getLogger(__name__)
Joint = tuple[np.ndarray, Laterality, frozenset[str]]  # the side it looks like, the tasks to explain
Item = tuple[Message | KneeOaError, list[Joint]]  # a detection message, or why there is none, and the joints it found

# What a hand-made detection need not say.
_UNSAID: Message = {
    "knee": "unknown",
    "side_source": "unknown",
    "mirrored": False,
    "status": "not_found",
} | dict.fromkeys(("reason", "score", "box", "key_points", "main_joint"))
_UNGRADED: Message = {"grades": None, "gate_lateral_share": None, "oa_kl_consistent": None, "warnings": []}


def joints_of(message: Message, tasks: frozenset[str]) -> list[Joint]:
    """The main joints of the knees that a detection message found, each with the ``tasks`` to explain.

    Raises
    ------
    CorruptImage
        If a crop is no PNG.
    """
    found = [knee for knee in message["knees"] if knee["status"] == "found"]
    return [(decode_png(knee["crop"]), shown_as(knee), tasks) for knee in found]


def item_of(message: Message, tasks: frozenset[str] = frozenset()) -> Item:
    """A detection message with the joints it found; where one of them cannot be read, the error instead."""
    try:
        return message, joints_of(message, tasks)
    except KneeOaError as error:  # a joint may be larger than a message may hold
        return error, []


def replies_of(items: Sequence[Item], grader: Grader, clock: Clock | None = None) -> list[Message]:
    """One reply each, in order; all joints go through the network together, and one by one where that fails."""
    clock, joints = clock or Clock(), [joint for _, found in items for joint in found]
    try:
        with clock("grade"):
            grades = iter(grader.grade(*map(list, zip(*joints, strict=True))) if joints else [])
    except Exception as error:  # the type only: a message may quote the input
        log.error("grader failed: %s", type(error).__name__)
        if len(items) > 1:
            return [reply for item in items for reply in replies_of([item], grader, clock)]
        return [build_reply(InternalError(stage="grade"), [], grader)]
    with clock("encode"):
        return [build_reply(message, [next(grades) for _ in found], grader, found) for message, found in items]


def build_reply(
    message: Message | KneeOaError, graded: Sequence[GradedKnee], grader: Grader, joints: Sequence[Joint] = ()
) -> Message:
    """One reply. ``graded`` holds a grade for each knee the message calls found, in its order; ``joints`` what is measured.

    The status is ``ok`` when every expected knee was graded, ``partial`` when some were or a grade is withheld,
    ``not_found`` when none was, ``error`` when the film could not be read; a detector's error is handed through untouched.
    """
    members = [{"network": member.name, "sha256": member.sha256} for member in grader.members]
    told = {"members": members, "provenance": grader.provenance, "runtime": grader.runtime}
    model: dict[str, Any] = {"grader": {**grader.identity, **told}}
    if isinstance(message, KneeOaError):
        return envelope(REPLY_SCHEMA, message, model=model)
    model = {**(message.get("model") or {}), **model}
    grades, joint, knees = iter(graded), iter(joints), []
    spacing = (message.get("film") or {}).get("spacing_mm")
    for knee in message["knees"]:
        found = knee["status"] == "found"
        grading = _grading(next(grades), knee.get("main_joint")) if found else _UNGRADED
        seen = next(joint, None) if found else None
        width = joint_space_of(knee, seen[0], spacing) if seen else None
        status = "graded" if found else knee["status"]
        knees.append({**_UNSAID, **knee, "status": status, **grading, "joint_space": width})
        knees[-1].pop("crop", None)
    reply = envelope(REPLY_SCHEMA, film=message.get("film"), knees=knees, model=model)
    if preview := message.get("preview"):
        from kneeoa.reporting.figure import figure_png  # few ask for one, and matplotlib takes 40 MB

        reply["figure"] = figure_png(preview, reply)
    if message.get("status") == "error":
        return {**reply, "status": "error", "error": message.get("error")}
    whole = [knee["status"] == "graded" and "compartment_grades_withheld" not in knee["warnings"] for knee in knees]
    any_graded = any(knee["status"] == "graded" for knee in knees)
    status = "ok" if whole and all(whole) else "partial" if any_graded else "not_found"
    return {**reply, "status": status}


def _grading(knee: GradedKnee, main_joint: Any) -> Message:
    """The grading part of one knee, with heat maps where they were asked for; a withheld grade has none."""
    grading = knee.to_json()
    if not knee.heat:
        return grading
    shown = {task: heat for task, heat in knee.heat.items() if not grading["grades"][task]["withheld"]}
    size = next(iter(knee.heat.values())).shape
    explanations = {"to_film": _to_film(main_joint, size), "heat": {t: encode_png(heat) for t, heat in shown.items()}}
    return {**grading, "explanations": explanations}


def _to_film(main_joint: Any, size: tuple[int, ...]) -> list[list[float]] | None:
    """The 2 × 3 matrix from (x, y, 1) in a map of ``size`` (h, w) to film pixels; None where the joint's place is not told."""
    try:
        x1, y1, x2, y2 = (round(float(value)) for value in main_joint)  # as `geometry.crop` cuts it
    except (TypeError, ValueError, OverflowError):
        return None
    scale = max(x2 - x1, 1) / size[1], max(y2 - y1, 1) / size[0]
    return [[round(scale[0], 6), 0.0, x1], [0.0, round(scale[1], 6), y1]]
