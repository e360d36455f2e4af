"""Replies as rows, one a knee, and as a table a person reads."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from kneeoa.geometry import KEY_POINTS
from kneeoa.tasks import OA, TASKS

Row = dict[str, Any]
ORDER = (TASKS[0], OA, *TASKS[2:])

TEXTS = ["file", "knee", "status", "error_code"]
COLUMNS = (
    [*TEXTS, "score", "x1", "y1", "x2", "y2"]
    + [f"{point}_{axis}" for point in KEY_POINTS for axis in "xy"]
    + [
        column
        for task in ORDER
        for column in (
            task.name,
            *([f"{task.name}_p1"] if task is OA else [f"{task.name}_p{i}" for i in range(task.grades)]),
        )
    ]
)


def rows_of(file: str, reply: dict[str, Any]) -> list[Row]:
    """One row a knee; a film that could not be read is one row with its error code."""
    if reply["status"] == "error":
        return [{**dict.fromkeys(COLUMNS), "file": file, "knee": "unknown", "status": "error",
                 "error_code": reply["error"]["code"]}]  # fmt: skip
    return [{**dict.fromkeys(COLUMNS), "file": file, **_knee(knee)} for knee in reply["knees"]]


def _knee(knee: dict[str, Any]) -> Row:
    row: Row = {"knee": knee["knee"], "status": knee["status"], "error_code": knee["reason"], "score": knee["score"]}
    if knee["box"]:
        row |= dict(zip(("x1", "y1", "x2", "y2"), knee["box"], strict=True))
        row |= {
            f"{name}_{axis}": v for name, xy in knee["key_points"].items() for axis, v in zip("xy", xy, strict=True)
        }
    for task in ORDER:
        graded = (knee["grades"] or {}).get(task.name)
        if graded and graded["probabilities"]:
            row[task.name] = graded["grade"]
            shown = enumerate(graded["probabilities"])
            row |= {f"{task.name}_p{i}": p for i, p in shown if task is not OA or i == 1}
    return row


def writer_for(path: Path) -> Callable[[Iterable[Row]], None]:
    """Writes CSV, JSON lines or Parquet, by the file's ending; row by row, under its own name only when it is whole.

    Raises
    ------
    ValueError
        For any other ending, or where its folder is not there: before anything is graded.
    """
    if path.suffix not in WRITERS:
        raise ValueError(f"--out must end in {', '.join(WRITERS)}, not {path.suffix or 'nothing'}")
    if not path.parent.is_dir():
        raise ValueError(f"--out names a folder that is not there: {path.parent}")
    part = path.with_name(path.name + ".part")

    def write(rows: Iterable[Row]) -> None:
        WRITERS[path.suffix](rows, part)
        part.replace(path)

    return write


def _write_csv(rows: Iterable[Row], path: Path) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def _write_lines(rows: Iterable[Row], path: Path) -> None:
    with open(path, "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def _write_parquet(rows: Iterable[Row], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = {name: pyarrow.string() for name in TEXTS} | {task.name: pyarrow.int8() for task in TASKS}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in COLUMNS])
    left = iter(rows)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while some := list(itertools.islice(left, 5000)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))


WRITERS = {".csv": _write_csv, ".jsonl": _write_lines, ".parquet": _write_parquet}


def table(replies: dict[str, dict[str, Any]]) -> str:
    """The grades of some films for a terminal."""
    names = [task.name for task in ORDER]
    lines = [f"{'film':<24} {'knee':<8} {'status':<10} " + " ".join(f"{name:>5}" for name in names)]
    for file, reply in replies.items():
        for row in rows_of(file, reply):
            grades = " ".join(f"{'–' if row[name] is None else row[name]:>5}" for name in names)
            note = f"  {row['error_code']}" if row["error_code"] else ""
            lines.append(f"{Path(file).name[:24]:<24} {row['knee']:<8} {row['status']:<10} {grades}{note}")
    return "\n".join(lines)
