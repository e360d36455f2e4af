"""Files that a command writes: never in the place of an input, nor of a file that kneeoa did not write."""

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kneeoa_cli.files.inputs import Source

MARKS = {  # what files of ours have near their beginning; Parquet near its end
    ".csv": b"file,knee,status,error_code,",
    ".jsonl": b'{"file": ',
    ".parquet": b"error_code",
    ".json": b'"schema": "kneeoa.',
    ".png": b"kneeoa",
    ".dcm": b"kneeoa",
    ".html": " · kneeoa</title>".encode(),
}
NEAR = 8192  # bytes


class Taken(ValueError):
    """A file is in the way; the message names it."""


@dataclass(frozen=True)
class Outputs:
    """Writes files, each whole or not at all. ``inputs``: real paths of what must stay as it is."""

    inputs: frozenset[str]

    @classmethod
    def beside(cls, films: Iterable[Source]) -> "Outputs":
        """Those of a command that reads these films."""
        return cls(frozenset(os.path.realpath(film.path) for film in films))

    def check(self, path: Path, kind: str | None = None) -> None:
        """Raise `Taken` where ``path`` must not be written; ``kind`` is its ending, where it has none that says so."""
        if os.path.realpath(path) in self.inputs:
            raise Taken(f"{path} is one of the radiographs; write somewhere else")
        if os.path.lexists(path) and not _ours(path, kind or path.suffix):
            raise Taken(f"{path} exists and was not written by kneeoa; move it, or write somewhere else")

    def write(self, path: Path, data: bytes, kind: str | None = None) -> None:
        """Write a file, in the place of one of ours; ``kind`` as in `check`.

        Raises
        ------
        Taken
            If another one is there.
        OSError
            Where it cannot be written; what was there stays.
        """
        self.check(path, kind)
        part = path.with_name(f".kneeoa-{secrets.token_hex(8)}")
        try:
            with open(part, "xb") as file:
                file.write(data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _ours(path: Path, kind: str) -> bool:
    """Whether kneeoa wrote a file, by what is in it, or nothing would be lost."""
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if kind == ".parquet":
            file.seek(max(0, size - 8 * NEAR))
        return not size or MARKS[kind] in file.read(8 * NEAR if kind == ".parquet" else NEAR)
