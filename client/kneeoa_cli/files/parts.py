"""A folder, or a bucket, of Parquet files: an archive's rows, and in each file's footer which films they are of.

A file is written whole or not at all, and what the footers say is all that a run needs to go on from: no journal.
"""

import fcntl
import hashlib
import json
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pyarrow
from pyarrow import ArrowException, parquet
from pyarrow.fs import FileSelector, LocalFileSystem

import kneeoa
from kneeoa.errors import BY_CODE, KneeOaError
from kneeoa.reporting.tables import COLUMNS, Row
from kneeoa_cli.files.identity import IDENTITY
from kneeoa_cli.files.remote import bare, is_remote, opened, reason
from kneeoa_cli.files.tables import schema_of

MARK = "_kneeoa.json"  # says whose folder it is; readers of data sets pass over names that begin so
FOOTER = b"kneeoa"
TEMPORARY = ".kneeoa-"
FILE = 1024  # films in a file
EVERY = 30.0  # s; what a killed run loses at most, besides what is under way
PREFIX = 4  # letters


class Entry(NamedTuple):
    """What a footer says of a film; its ``rows`` are as many, in the order of the entries."""

    place: str
    stamp: str
    status: str
    code: str | None
    grader: str | None
    rows: int

    @property
    def again(self) -> bool:
        """Whether its error says nothing of the film, and another run tries it again."""
        return self.status == "error" and BY_CODE.get(self.code or "", KneeOaError).http_status >= 500


class Parts:
    """The output of an archive's run; one run at a time.

    Parameters
    ----------
    out
        A folder, or an address.
    identify
        Whether rows have the columns of `IDENTITY`.

    Raises
    ------
    ValueError
        If something else is there, or grades with other columns, or it cannot be opened; or another run writes there.

    Attributes
    ----------
    known : dict
        Digest of each film's place → its stamp, or empty where it is to be tried again.
    added : int
        Films of this run.
    unread : int
        Files that were cut off or are damaged: they are out of the way, and their films not known.
    """

    def __init__(self, out: str, identify: bool = False) -> None:
        self.out, self.schema = out, schema_of([*COLUMNS, *(IDENTITY if identify else ())])
        self.known: dict[bytes, str] = {}
        self.unread = self.added = self._number = 0
        self._run = f"{time.time_ns():x}-{secrets.token_hex(2)}"  # files of later runs have later names
        self._waiting: defaultdict[str, list[tuple[Entry, list[Row]]]] = defaultdict(list)
        self._flushed = time.monotonic()
        try:
            self.filesystem, self.root = opened(out) if is_remote(out) else (LocalFileSystem(), os.path.abspath(out))
            self._claim()
        except (OSError, ArrowException) as error:
            raise ValueError(f"cannot write to {bare(out)}: {reason(error)}") from None

    def load(self) -> None:
        """Read what is there."""
        self._sweep()
        for _, entries in self._footers():
            for entry in entries:
                self.known.setdefault(digest(entry.place), "" if entry.again else entry.stamp)

    def add(self, prefix: str, entry: Entry, rows: list[Row]) -> None:
        """Keep a film's rows; they are on disk after a while, or after `flush`."""
        self.added += 1
        self._waiting[prefix].append((entry, rows))
        if len(self._waiting[prefix]) >= FILE:
            self._write(prefix)
        if time.monotonic() - self._flushed > EVERY:
            self.flush()

    def flush(self) -> None:
        """Write what is kept.

        Raises
        ------
        ValueError
            If it cannot be written; what was there is as it was.
        """
        for prefix in list(self._waiting):
            self._write(prefix)
        self._flushed = time.monotonic()

    def settle(self) -> Iterator[Entry]:
        """Each film's last entry; rows that a later run has replaced are removed."""
        seen: set[bytes] = set()
        for path, entries in self._footers():
            kept = []
            for entry in entries:
                if (key := digest(entry.place)) not in seen:
                    seen.add(key)
                    kept.append(entry)
            if len(kept) < len(entries):
                self._keep_only(path, entries, set(kept))
            yield from kept

    def close(self) -> None:
        """Let others write."""
        if self._lock is not None:
            os.close(self._lock)

    def _claim(self) -> None:
        mark = f"{self.root}/{MARK}"
        listed = self.filesystem.get_file_info(FileSelector(self.root, allow_not_found=True))
        there = {info.base_name for info in listed if not info.base_name.startswith(TEMPORARY)}
        if MARK not in there:
            if there:
                raise ValueError(f"{bare(self.out)} holds files that kneeoa did not write; name another folder")
            said = {"kneeoa": kneeoa.__version__, "columns": self.schema.names}
            self._put(mark, json.dumps(said).encode())
        with self.filesystem.open_input_file(mark) as file:
            try:
                said = json.loads(file.read())
                version, columns = said["kneeoa"], said["columns"]
            except (ValueError, KeyError, TypeError):
                raise ValueError(f"{bare(self.out)}/{MARK} cannot be read; name another folder") from None
        if columns != self.schema.names:
            told = "were written with --identify, or without, unlike now" if version == kneeoa.__version__ else "differ"
            raise ValueError(
                f"{bare(self.out)} holds grades of kneeoa {version} whose columns {told}; name another folder"
            )
        self._lock = os.open(mark, os.O_RDONLY | os.O_CLOEXEC) if self._local else None
        if self._lock is not None:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._lock)
                raise ValueError(f"another run writes to {self.out}") from None

    @property
    def _local(self) -> bool:
        return isinstance(self.filesystem, LocalFileSystem)

    def _sweep(self) -> None:
        """What a killed run left half written is removed: nobody else may be writing."""
        for info in self.filesystem.get_file_info(FileSelector(self.root, recursive=True)):
            if info.is_file and info.base_name.startswith(TEMPORARY):
                self.filesystem.delete_file(info.path)
                self.unread += 1

    def _footers(self) -> Iterator[tuple[str, list[Entry]]]:
        """Files and their entries, the newest first; one that is damaged is moved out of the readers' way."""
        listed = self.filesystem.get_file_info(FileSelector(self.root, recursive=True))
        paths = [info.path for info in listed if re.fullmatch(r"part-.*\.parquet", info.base_name)]
        paths.sort(key=os.path.basename, reverse=True)
        with ThreadPoolExecutor(16) as pool:
            for start in range(0, len(paths), 256):  # not the footers of a million files at once
                some = paths[start : start + 256]
                for path, entries in zip(some, pool.map(self._footer, some), strict=True):
                    if entries is not None:
                        yield path, entries
                        continue
                    self.unread += 1
                    folder, name = os.path.split(path)
                    self.filesystem.move(path, f"{folder}/_unreadable-{name}")

    def _footer(self, path: str) -> list[Entry] | None:
        try:
            with self.filesystem.open_input_file(path) as file:
                return [Entry(*film) for film in json.loads(parquet.read_schema(file).metadata[FOOTER])]
        except (ArrowException, ValueError, KeyError, TypeError):
            return None

    def _write(self, prefix: str) -> None:
        films = self._waiting[prefix]
        self._number += 1
        name = f"part-{self._run}-{self._number:06}.parquet"
        table = pyarrow.Table.from_pylist([row for _, rows in films for row in rows], self.schema)
        self._put(f"{self.root}/prefix={prefix}/{name}", _file(table, [entry for entry, _ in films]))
        del self._waiting[prefix]  # only now: after an error they can still be written

    def _keep_only(self, path: str, entries: list[Entry], kept: set[Entry]) -> None:
        if not kept:
            self.filesystem.delete_file(path)
            return
        with self.filesystem.open_input_file(path) as file:
            table = parquet.read_table(file)
        mask = [entry in kept for entry in entries for _ in range(entry.rows)]
        self._put(path, _file(table.filter(pyarrow.array(mask)), [entry for entry in entries if entry in kept]))

    def _put(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all; an object is there only once it was sent."""
        folder = os.path.dirname(path)
        there = f"{folder}/{TEMPORARY}{secrets.token_hex(8)}" if self._local else path
        try:
            if self._local:
                self.filesystem.create_dir(folder)
            try:
                with self.filesystem.open_output_stream(there) as file:
                    file.write(data)
                if self._local:
                    self.filesystem.move(there, path)
            finally:
                if self._local:
                    Path(there).unlink(missing_ok=True)
        except (OSError, ArrowException) as error:
            raise ValueError(f"cannot write to {bare(self.out)}: {reason(error)}") from None


def digest(place: str) -> bytes:
    """A film's place in 16 bytes: ten million of them have to be known."""
    return hashlib.blake2b(place.encode(errors="surrogateescape"), digest_size=16).digest()


def prefix_of(name: str, sources: list[str]) -> str:
    """The partition of a film: the first letters of its name below the source."""
    below = next((name[len(source) :].lstrip("/!") for source in sources if name.startswith(source)), "")
    return re.sub(r"[^A-Za-z0-9_-]", "_", (below or os.path.basename(name))[:PREFIX])


def _file(table: pyarrow.Table, entries: list[Entry]) -> bytes:
    written = BytesIO()
    parquet.write_table(table.replace_schema_metadata({FOOTER: json.dumps(entries).encode()}), written)
    return written.getvalue()
