"""Replies as rows, one a knee, and as a table a person reads."""

import csv
import itertools
import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Any

from kneeoa.remarks import WORDS
from kneeoa.reporting import tables
from kneeoa.reporting.tables import COLUMNS, TEXTS, Row
from kneeoa.tasks import TASKS
from kneeoa_cli.files import identity
from kneeoa_cli.files.identity import IDENTITY, identity_of
from kneeoa_cli.files.names import KINDS, cell, printable
from kneeoa_cli.files.outputs import Outputs


def rows_of(file: str, reply: dict[str, Any], film: bytes | None = None) -> list[Row]:
    """`kneeoa.reporting.tables.rows_of`, with a name that can be printed, and the identity of a ``film`` that is given."""
    whose = {} if film is None else identity_of(film, reply)
    return [row | whose for row in tables.rows_of(printable(file), reply)]


class Results:
    """Writes rows as they come, to ``<name>.part``, which gets its name at the end, be it too early.

    Parameters
    ----------
    path
        CSV, JSON lines or Parquet, by its ending. What will be Parquet comes as JSON lines.
    identify
        Whether rows have the columns of `IDENTITY`; without, what they have of them is left out.

    Raises
    ------
    ValueError
        For another ending, a folder that is not there, a file that is not ours: before anything is graded.
    """

    def __init__(self, path: Path, outputs: Outputs, identify: bool = False) -> None:
        if path.suffix not in KINDS:
            raise ValueError(f"--out must end in {', '.join(KINDS)}, not {path.suffix or 'nothing'}")
        if not path.parent.is_dir():
            raise ValueError(f"--out: there is no folder {path.parent}")
        self.path, self.outputs, self.part = path, outputs, path.with_name(path.name + ".part")
        self.columns = [*COLUMNS, *(IDENTITY if identify else ())]
        self._ranks: list[int] = []
        outputs.check(path)
        outputs.check(self.part, KINDS[path.suffix])

    def __enter__(self) -> "Results":
        self.part.unlink(missing_ok=True)
        self._file = open(self.part, "x", newline="", encoding="utf-8")  # noqa: SIM115  (closed in __exit__)
        self._table = csv.DictWriter(self._file, self.columns)
        if self.path.suffix == ".csv":
            self._table.writeheader()
        return self

    def add(self, rows: Iterable[Row], rank: int = 0) -> None:
        """Write rows; in the end they are in the order of their ranks."""
        for row in rows:
            self._ranks.append(rank)
            row = {name: row.get(name) for name in self.columns}
            if self.path.suffix == ".csv":
                self._table.writerow({k: cell(v) if isinstance(v, str) else v for k, v in row.items()})
            else:
                self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        if kind and not self._ranks:  # earlier results are worth more
            self.part.unlink()
            return
        self.outputs.check(self.path)  # once more: much time has passed
        if self._ranks != sorted(self._ranks):
            self._sort()
        if self.path.suffix == ".parquet":
            self.outputs.write(self.path, _as_parquet(self.part, self.columns))
            self.part.unlink()
        else:
            self.part.replace(self.path)

    def _sort(self) -> None:
        """No row has a line break in it: names that have are escaped."""
        lines = self.part.read_bytes().splitlines(keepends=True)
        head = lines[: len(lines) - len(self._ranks)]
        ranked = sorted(zip(self._ranks, lines[len(head) :], strict=True), key=lambda pair: pair[0])
        self.outputs.write(self.part, b"".join([*head, *(line for _, line in ranked)]), KINDS[self.path.suffix])


def schema_of(columns: list[str]) -> Any:
    """Parquet's schema of a table."""
    import pyarrow

    kinds = {name: pyarrow.string() for name in (*TEXTS, *identity.TEXTS)} | {
        task.name: pyarrow.int8() for task in TASKS
    }
    return pyarrow.schema([(name, kinds.get(name, pyarrow.float64())) for name in columns])


def _as_parquet(lines: Path, columns: list[str]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    schema, written = schema_of(columns), BytesIO()
    with pyarrow.parquet.ParquetWriter(written, schema) as writer, open(lines, encoding="utf-8") as file:
        left = map(json.loads, file)
        while some := list(itertools.islice(left, 5000)):
            writer.write_table(pyarrow.Table.from_pylist(some, schema))
    return written.getvalue()


def table(replies: dict[str, dict[str, Any]]) -> str:
    """The grades of some films, for a terminal."""
    names = [task.name for task in TASKS]
    lines = [f"{'film':<24} {'knee':<8} {'status':<10} " + " ".join(f"{name:>5}" for name in names)]
    for file, reply in replies.items():
        for row in rows_of(file, reply):
            grades = " ".join(f"{'–' if row[name] is None else row[name]:>5}" for name in names)
            told = [code for code in (row["error_code"], *(row["warnings"] or "").split("; ")) if code]
            note = f"  {'; '.join(WORDS.get(code, code) for code in told)}" if told else ""
            lines.append(f"{printable(Path(file).name)[:24]:<24} {row['knee']:<8} {row['status']:<10} {grades}{note}")
    return "\n".join(lines)
