"""What a batch has answered so far, on disk: a run that was cut off goes on, no film twice, none lost.

One JSON line a film, written when its answer is complete. The result file is made from it at the end.
"""

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kneeoa_client.rows import Row, rows_of


class Journal:
    """Beside the results, ``<name>.journal``; one process at a time, else ``ValueError``.

    Attributes
    ----------
    done : set of str
        Names of the films that were answered.
    """

    def __init__(self, results: Path) -> None:
        self.path = results.with_name(results.name + ".journal")
        self.done: set[str] = set()

    def __enter__(self) -> Self:
        self._file = open(self.path, "a+b")  # noqa: SIM115  (closed in __exit__)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"another run writes to {self.path}") from None
        whole = 0
        self._file.seek(0)
        for line in self._file:
            if not line.endswith(b"\n"):
                break  # cut off while it was written: that film is done again
            self.done.add(json.loads(line)["film"])
            whole += len(line)
        self._file.truncate(whole)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def add(self, film: str, reply: dict[str, Any]) -> None:
        """Keep a film's answer; once this returns, a killed process does not lose it."""
        if film in self.done:
            raise ValueError(f"{film} was answered before")
        grader = (reply.get("model") or {}).get("grader")
        line = {
            "film": film,
            "status": reply["status"],
            "grader": grader and f"{grader['version']} {grader['sha256'][:12]}",
            "rows": rows_of(film, reply),
        }
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()
        self.done.add(film)

    def entries(self) -> Iterator[dict[str, Any]]:
        """``film``, ``status``, ``grader`` and ``rows`` of each answered film, in the order of the answers."""
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def rows(self) -> Iterator[Row]:
        """All rows, one a knee."""
        for entry in self.entries():
            yield from entry["rows"]
