"""A reply as rows of a table, one a knee; the same columns in every format."""

from typing import Any

from kneeoa.geometry import KEY_POINTS
from kneeoa.messages import Message
from kneeoa.tasks import OA, TASKS

Row = dict[str, Any]

FIRST = ["file", "knee", "status", "error_code"]
TEXTS = [*FIRST, "warnings"]
WIDTHS = [f"JSW_{side}{column}" for side in "LM" for column in ("_mm", "_25_mm", "_x", "_y1", "_y2")]
COLUMNS = (
    [*FIRST, "score", "x1", "y1", "x2", "y2"]
    + [f"{point}_{axis}" for point in KEY_POINTS for axis in "xy"]
    + [
        column
        for task in TASKS
        for column in (
            task.name,
            *([f"{task.name}_p1"] if task is OA else [f"{task.name}_p{i}" for i in range(task.grades)]),
        )
    ]
    + [*WIDTHS, "warnings"]
)


def rows_of(file: str, reply: Message) -> list[Row]:
    """One row per knee, with its warnings and the film's; a film that could not be read is one row with its error code."""
    empty: Row = {**dict.fromkeys(COLUMNS), "file": file}
    if reply["status"] == "error":
        return [{**empty, "knee": "unknown", "status": "error", "error_code": reply["error"]["code"]}]
    of_film = (reply["film"] or {}).get("warnings") or []
    return [
        {**empty, **_knee(knee), "warnings": "; ".join([*of_film, *knee["warnings"]]) or None}
        for knee in reply["knees"]
    ]


def _knee(knee: Message) -> Row:
    row: Row = {"knee": knee["knee"], "status": knee["status"], "error_code": knee["reason"], "score": knee["score"]}
    for compartment, found in (knee.get("joint_space") or {}).items():
        (x, y1), (_, y2) = found["minimum"]["ends"]
        values = found["minimum"]["mm"], found["fixed"]["mm"], x, y1, y2
        names = (name for name in WIDTHS if name.startswith(f"JSW_{compartment[0].upper()}"))
        row |= dict(zip(names, values, strict=True))
    if knee["box"]:
        row |= dict(zip(("x1", "y1", "x2", "y2"), knee["box"], strict=True))
        row |= {
            f"{name}_{axis}": v for name, xy in knee["key_points"].items() for axis, v in zip("xy", xy, strict=True)
        }
    for task in TASKS:
        graded = (knee["grades"] or {}).get(task.name)
        if graded and graded["probabilities"]:
            row[task.name] = graded["grade"]
            shown = enumerate(graded["probabilities"])
            row |= {f"{task.name}_p{i}": p for i, p in shown if task is not OA or i == 1}
    return row
