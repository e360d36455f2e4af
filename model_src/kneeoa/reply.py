"""The user's reply: the detector's message with grades in the place of crops."""

from collections.abc import Sequence
from typing import Any

from kneeoa.errors import KneeOaError
from kneeoa.grading.grader import GradedKnee, Grader
from kneeoa.messages import REPLY_SCHEMA, Message, envelope

_UNGRADED: Message = {"grades": None, "gate_lateral_share": None, "oa_kl_consistent": None, "warnings": []}


def build_reply(message: Message | KneeOaError, graded: Sequence[GradedKnee], grader: Grader) -> Message:
    """One reply. ``graded`` holds a grade for each knee the message calls found, in its order.

    The status is ``ok`` when every expected knee was graded, ``partial`` when some were or a grade is withheld,
    ``not_found`` when none was, ``error`` when the film could not be read; a detector's error is handed through untouched.
    """
    model: dict[str, Any] = {"grader": {**grader.identity, "provenance": grader.provenance}}
    if isinstance(message, KneeOaError):
        return envelope(REPLY_SCHEMA, message, model=model)
    model = {**(message.get("model") or {}), **model}
    grades, knees = iter(graded), []
    for knee in message["knees"]:
        found = knee["status"] == "found"
        grading = next(grades).to_json() if found else _UNGRADED
        knees.append({**knee, "status": "graded" if found else knee["status"], **grading})
        knees[-1].pop("crop", None)
    reply = envelope(REPLY_SCHEMA, film=message.get("film"), knees=knees, model=model)
    if message.get("status") == "error":
        return {**reply, "status": "error", "error": message.get("error")}
    whole = [knee["status"] == "graded" and "compartment_grades_withheld" not in knee["warnings"] for knee in knees]
    any_graded = any(knee["status"] == "graded" for knee in knees)
    status = "ok" if whole and all(whole) else "partial" if any_graded else "not_found"
    return {**reply, "status": status}
