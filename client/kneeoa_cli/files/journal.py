"""What a batch has answered so far, on disk: a run that was cut off goes on, no film twice, none lost.

One JSON line a film, written when its answer is complete. The result file is made from it at the end. A film is known by where it
is, from whichever folder it was named, and by what changes when another one lies there; what says something of the server
instead of the film is no answer, and is not kept.
"""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from kneeoa.reporting.tables import COLUMNS, Row
from kneeoa_cli.files.identity import IDENTITY
from kneeoa_cli.files.inputs import Source
from kneeoa_cli.files.tables import rows_of
from kneeoa_client.client import is_failure

Entry = dict[str, Any]
FIELDS = frozenset([*COLUMNS, *IDENTITY])


class Journal:
    """Beside the results, ``<name>.journal``; one process at a time, else ``ValueError``.

    Where it is to ``identify`` films, those that were answered without are not known.

    Attributes
    ----------
    done : dict
        Stamp and line of each film that was answered, by its place.
    failed : dict
        What became of the films of this run that were not answered, by their places.
    added : int
        Films of this run.
    unread : int
        Lines that say nothing to us; their films are graded again.
    """

    def __init__(self, results: Path, identify: bool = False) -> None:
        self.identify = identify
        self.path = results.with_name(results.name + ".journal")
        self.done: dict[str, tuple[str, int]] = {}
        self.failed: dict[str, Entry] = {}
        self.anonymous: set[str] = set()
        self.added = self.unread = 0

    def __enter__(self) -> "Journal":
        self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666), "a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._lines = self._load()
        except BlockingIOError:
            self._file.close()
            raise ValueError(f"another run is writing to {self.path}") from None
        except ValueError:
            self._file.close()
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def _load(self) -> int:
        self._file.seek(0)
        number, line, ours = 0, b"\n", False
        for number, line in enumerate(self._file, 1):  # noqa: B007
            ours |= line.startswith(b'{"film": ')
            if entry := _entry(line):
                self.done[entry["place"]] = entry["stamp"], number
                named = all(IDENTITY[0] in row for row in entry["rows"])
                (self.anonymous.discard if named else self.anonymous.add)(entry["place"])
            elif line.endswith(b"\n"):
                self.unread += 1
        if number and not ours:
            raise ValueError(f"{self.path} is not a kneeoa journal; move it, or write somewhere else")
        if not line.endswith(b"\n"):  # cut off while it was written: that film is done again
            self._file.truncate(self._file.tell() - len(line))
            number -= 1
        return number

    def knows(self, film: Source) -> bool:
        """Whether this very film was answered."""
        there = film.place in self.done and self.done[film.place][0] == film.stamp
        return there and not (self.identify and film.place in self.anonymous)

    def add(self, film: Source, reply: dict[str, Any], data: bytes = b"") -> None:
        """Keep a film's answer; once this returns, a killed process does not lose it. ``data``: its bytes, to identify it."""
        if self.knows(film):
            raise ValueError(f"{film.name} was answered before")
        grader = (reply.get("model") or {}).get("grader")
        entry = {
            "film": film.name,
            "place": film.place,
            "stamp": film.stamp,
            "status": reply["status"],
            "grader": grader and f"{grader['version']} {grader['sha256'][:12]}",
            "rows": rows_of(film.name, reply, data if self.identify else None),
        }
        self.added += 1
        if is_failure(reply):
            self.failed[film.place] = entry
            return
        self._file.write(json.dumps(entry).encode() + b"\n")
        self._file.flush()
        self._lines += 1
        self.done[film.place] = film.stamp, self._lines
        self.anonymous.discard(film.place)
        self.failed.pop(film.place, None)

    def entries(self) -> Iterator[Entry]:
        """``film``, ``status``, ``grader`` and ``rows`` of each film's last answer, as they came; then failures."""
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, 1):
                entry = _entry(line)
                if entry and self.done[entry["place"]][1] == number and entry["place"] not in self.failed:
                    yield entry
        yield from self.failed.values()

    def rows(self) -> Iterator[Row]:
        """All rows, one a knee. Films that were named alike, from different folders, are told apart by their places."""
        named = Counter(entry["film"] for entry in self.entries())
        for entry in self.entries():
            alike = named[entry["film"]] > 1
            for row in entry["rows"]:
                yield {**row, "file": entry["place"]} if alike else row


def _entry(line: bytes) -> Entry | None:
    """What a line says, if it is whole and one of ours."""
    try:
        entry = json.loads(line)
        whole = all(isinstance(entry[name], str) for name in ("film", "place", "stamp", "status"))
        whole = whole and all(row.keys() <= FIELDS for row in entry["rows"]) and "grader" in entry
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return entry if whole and line.endswith(b"\n") else None
