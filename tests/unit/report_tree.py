"""A report's content tree, and replies in which something is missing."""

from collections.abc import Iterator
from copy import deepcopy

import pydicom

from kneeoa.tasks import TASKS


def items_of(item: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """Of a content tree, all below the root."""
    for child in item.get("ContentSequence", ()):
        yield child
        yield from items_of(child)


def name_of(item: pydicom.Dataset) -> pydicom.Dataset:
    """Empty where an item has none."""
    return item.ConceptNameCodeSequence[0] if "ConceptNameCodeSequence" in item else pydicom.Dataset()


def spoilt(kind: str, reply: dict) -> dict:
    """The reply of a film without spacing, on which a side or a knee is not known."""
    knees = deepcopy(reply["knees"])
    for place in [place for knee in knees for space in knee["joint_space"].values() for place in space.values()]:
        place["mm"] = None
    first, second = knees
    hidden = {"grade": None, "probabilities": None, "withheld": "unknown_side"}
    compartments = {task.name: hidden for task in TASKS if task.compartment}
    lost = {
        **second,
        "status": "not_found",
        "reason": "no_knee_like_region",
        "grades": None,
        "box": None,
        "joint_space": None,
    }
    unknown = {**first, "knee": "unknown", "grades": {**first["grades"], **compartments}, "joint_space": None}
    kinds = {
        "unknown side": [unknown],
        "one lost": [first, lost],
        "both lost": [lost, lost],
        "no spacing": [first, second],
    }
    return {**reply, "knees": kinds[kind], "film": {**reply["film"], "spacing_mm": None}}
