"""Replies as rows, one a knee, and as a table a person reads."""

import csv
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

from kneeoa.geometry import KEY_POINTS
from kneeoa.tasks import OA, TASKS
from kneeoa_client.names import cell, printable
from kneeoa_client.outputs import Outputs

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
    file = printable(file)
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


@contextmanager
def results(path: Path, outputs: Outputs) -> Iterator[Callable[[Iterable[Row]], None]]:
    """A function that writes rows as they come, to ``<name>.part``, which gets its name at the end, be it too early.

    Parameters
    ----------
    path
        CSV, JSON lines or Parquet, by its ending. What will be Parquet comes as JSON lines.

    Raises
    ------
    ValueError
        As `check_results`.
    """
    check_results(path, outputs)
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with open(part, "x", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        if path.suffix == ".csv":
            table.writeheader()

        empty = True

        def add(rows: Iterable[Row]) -> None:
            nonlocal empty
            for row in rows:
                empty = False
                if path.suffix == ".csv":
                    table.writerow({k: cell(v) if isinstance(v, str) else v for k, v in row.items()})
                else:
                    file.write(json.dumps(row) + "\n")
            file.flush()

        try:
            yield add
        except BaseException:
            if empty:  # earlier results are worth more
                part.unlink()
            else:
                _finish(part, path, outputs)
            raise
        _finish(part, path, outputs)


def _finish(part: Path, path: Path, outputs: Outputs) -> None:
    outputs.check(path)  # once more: much time has passed
    if path.suffix == ".parquet":
        outputs.write(path, _as_parquet(part))
        part.unlink()
    else:
        part.replace(path)


def check_results(path: Path, outputs: Outputs) -> None:
    """Before anything is graded: raise ValueError for another ending, a folder that is not there, a file that is not ours."""
    if path.suffix not in KINDS:
        raise ValueError(f"--out must end in {', '.join(KINDS)}, not {path.suffix or 'nothing'}")
    if not path.parent.is_dir():
        raise ValueError(f"--out names a folder that is not there: {path.parent}")
    outputs.check(path)
    outputs.check(path.with_name(path.name + ".part"), KINDS[path.suffix])


def _as_parquet(lines: Path) -> bytes:
    import pyarrow
    import pyarrow.parquet

    kinds = {name: pyarrow.string() for name in TEXTS} | {task.name: pyarrow.int8() for task in TASKS}
    schema = pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in COLUMNS])
    written = BytesIO()
    with pyarrow.parquet.ParquetWriter(written, schema) as writer, open(lines, encoding="utf-8") as file:
        left = map(json.loads, file)
        while some := list(itertools.islice(left, 5000)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))
    return written.getvalue()


KINDS = {".csv": ".csv", ".jsonl": ".jsonl", ".parquet": ".jsonl"}  # of the results; of their rows while they come


def table(replies: dict[str, dict[str, Any]]) -> str:
    """The grades of some films, for a terminal."""
    names = [task.name for task in ORDER]
    lines = [f"{'film':<24} {'knee':<8} {'status':<10} " + " ".join(f"{name:>5}" for name in names)]
    for file, reply in replies.items():
        for row in rows_of(file, reply):
            grades = " ".join(f"{'–' if row[name] is None else row[name]:>5}" for name in names)
            note = f"  {row['error_code']}" if row["error_code"] else ""
            lines.append(f"{printable(Path(file).name)[:24]:<24} {row['knee']:<8} {row['status']:<10} {grades}{note}")
    return "\n".join(lines)
