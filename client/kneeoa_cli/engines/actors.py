"""What Ray's actors do with a block of films: read, decode and find knees; grade them. The steps of the two handlers.

A block comes and goes as an Arrow table; films themselves never pass through Ray's object store. What a film could still do to
an actor after its decoding, which has a process of its own, ends the actor: `kneeoa_cli.engines.ray` then asks again, for fewer.
"""

import faulthandler
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import cv2
import pyarrow
import torch

from kneeoa import KneeOA
from kneeoa.detection.message import detection_of, or_error
from kneeoa.imaging.guarded import GuardedDecoder
from kneeoa.messages import Message
from kneeoa.pipeline import WEIGHTS
from kneeoa.reply import item_of, replies_of
from kneeoa.timing import Clock
from kneeoa.torchserve.metrics import Reference, Telemetry
from kneeoa_cli.engines.metrics import Exporter
from kneeoa_cli.files.identity import identity_of
from kneeoa_cli.files.inputs import Source
from kneeoa_cli.files.parts import Entry
from kneeoa_cli.files.remote import Remote, Stores
from kneeoa_cli.files.tables import rows_of

Film = Source | Remote
T = TypeVar("T")
# Of a film on its way; bytes: names may be in no encoding.
FIELDS = ("store", "path", "member", "below", "place", "stamp")
READ_AHEAD = 4  # films, of at most 64 MiB
TOGETHER = 16  # films whose knees are graded at once
LONGEST = 60.0  # s for a film, or for a batch's grades; decoding has its own 4.5


def as_block(films: Sequence[Film]) -> pyarrow.Table:
    """Films as a table of `FIELDS`."""
    rows = [
        (
            film.store if isinstance(film, Remote) else "",
            film.path,
            film.member,
            film.below if isinstance(film, Source) else None,
            film.place,
            film.stamp,
        )
        for film in films
    ]
    columns = [
        [None if value is None else os.fsencode(value) for value in column] for column in zip(*rows, strict=True)
    ]
    return pyarrow.table([pyarrow.array(column, pyarrow.binary()) for column in columns], FIELDS)


def _films(block: pyarrow.Table) -> Iterator[tuple[Film, str, str]]:
    """Films with place and stamp as they were where they were listed."""
    for row in block.to_pylist():
        store, path, place, stamp = (os.fsdecode(row[name]) for name in ("store", "path", "place", "stamp"))
        member, below = (None if row[name] is None else os.fsdecode(row[name]) for name in ("member", "below"))
        film = (
            Remote(store, path, member, stamp) if store else Source(Path(path), member, Path(below) if below else None)
        )
        yield film, place, stamp


class Detect:
    """A block of films → a block of detection messages; a film that cannot be read has one, too."""

    def __init__(
        self, stores: Stores, any_view: bool = False, identify: bool = False, longest: float = LONGEST
    ) -> None:
        one_thread()
        self.stores, self.any_view, self.identify, self.longest = stores, any_view, identify, longest
        self.decode, self.exporter = GuardedDecoder(), Exporter()
        self.detector = KneeOA().detector
        self.telemetry = Telemetry(self.exporter, "detector", self.detector.identity)

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        return _packed(self.messages(block))

    def messages(self, block: pyarrow.Table) -> Iterator[dict[str, Any]]:
        """``name``, ``place``, ``stamp``, detection ``message`` and the identity, ``whose``, of each film."""
        for (film, place, stamp), data in ahead(self._bytes, _films(block)):
            with at_most(self.longest):
                message = or_error(partial(self.message, data), self.detector)
                readable = self.identify and not data.exception()
                whose = identity_of(data.result(), message) if readable else {}
            self.telemetry.answered([message], self.exporter)
            yield {"name": film.name, "place": place, "stamp": stamp, "message": message, "whose": whose}

    def message(self, data: "Future[bytes]") -> Message:
        clock = Clock()
        with clock("decode"):
            radiograph = self.decode(data.result())
        message = detection_of(self.detector, radiograph, any_view=self.any_view, clock=clock)
        self.telemetry.stages(clock)
        return message

    def _bytes(self, item: tuple[Film, str, str]) -> bytes:
        film, *_ = item
        return self.stores.read(film) if isinstance(film, Remote) else film.read()


class Grade:
    """A block of detection messages → a block of entries and rows, one a film."""

    def __init__(self, longest: float = LONGEST) -> None:
        one_thread()
        self.longest, self.exporter = longest, Exporter()
        self.grader = KneeOA(device="cuda" if torch.cuda.is_available() else "cpu").grader
        reference = Reference.from_file(WEIGHTS / "reference.json", self.grader.identity["sha256"])
        self.telemetry = Telemetry(self.exporter, "grader", self.grader.identity, reference, self.grader.runtime)

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        return _packed(self.graded(unpacked(block)))

    def graded(self, films: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """``entry`` and ``rows`` of each film."""
        some: list[dict[str, Any]] = []
        for film in films:
            some.append(film)
            if len(some) == TOGETHER:
                yield from self._graded(some)
                some = []
        yield from self._graded(some)

    def _graded(self, films: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        items, clock = [item_of(film["message"]) for film in films], Clock()
        with at_most(self.longest):
            replies = replies_of(items, self.grader, clock)
        if films:
            self.telemetry.stages(clock)
            joints = [[image for image, *_ in found] for _, found in items]
            self.telemetry.answered(replies, self.exporter, joints)
        for film, reply in zip(films, replies, strict=True):
            rows = [row | film["whose"] for row in rows_of(film["name"], reply)]
            code = reply["error"] and reply["error"]["code"]
            grader = reply["model"]["grader"]
            told = f"{grader['version']} {grader['sha256'][:12]}"
            entry = Entry(film["place"], film["stamp"], reply["status"], code, told, len(rows))
            yield {"name": film["name"], "entry": entry, "rows": rows}


class Whole:
    """Both, in one actor: where no GPU is waiting for work, nothing is won by sending joints to another process."""

    def __init__(self, detect: type[Detect], stores: Stores, any_view: bool, identify: bool, longest: float) -> None:
        self.detect, self.grade = detect(stores, any_view, identify, longest), Grade(longest)

    def __call__(self, block: pyarrow.Table) -> pyarrow.Table:
        return _packed(self.grade.graded(self.detect.messages(block)))


def _packed(films: Iterable[dict[str, Any]]) -> pyarrow.Table:
    return pyarrow.table({"film": [json.dumps(film) for film in films]})


def unpacked(block: pyarrow.Table) -> Iterator[dict[str, Any]]:
    """What an actor said of each film."""
    return (json.loads(text) for text in block["film"].to_pylist())


def ahead(work: Callable[[T], bytes], items: Iterable[T]) -> Iterator[tuple[T, "Future[bytes]"]]:
    """Items and what ``work`` makes of them, in threads that are `READ_AHEAD` items ahead and no more."""
    waiting: deque[tuple[T, Future[bytes]]] = deque()
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > READ_AHEAD:
                yield waiting.popleft()
        yield from waiting


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Ends the process where what is inside takes longer: a thread of C does, whoever holds the interpreter."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def one_thread() -> None:
    """An actor has one core."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
