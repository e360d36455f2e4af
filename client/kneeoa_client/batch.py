"""Grades folders of any size: detector, then grader, as plain models with dynamic batching; no workflow engine."""

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kneeoa.errors import KneeOaError
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa_client.journal import Journal
from kneeoa_client.rows import writer_for
from kneeoa_client.server import Server
from kneeoa_client.sources import Source, walk

LINE_SECONDS = 10  # between progress lines where no terminal shows a bar


@dataclass
class Summary:
    """What became of the films; ``graders`` counts by the weights that graded: two where a run went on with others."""

    films: int = 0
    before: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    graders: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether every film has grades."""
        return not self.statuses["error"] and not self.statuses["not_found"]

    def lines(self) -> list[str]:
        """For a person to read in the morning."""
        rate = (self.films - self.before) / self.seconds if self.seconds else 0.0
        told = [f"{self.films} films, {self.before} of them from an earlier run; {rate:.2f} films/s"]
        for kind, counted in (("", self.statuses), ("error ", self.errors), ("graded by ", self.graders)):
            told += [f"{kind}{name}: {number}" for name, number in counted.most_common()]
        return told


def run(names: Sequence[str], results: Path, server: Server, in_flight: int) -> Summary:
    """Grade what is not yet in the journal beside ``results``, then write them; also when interrupted.

    Raises
    ------
    ServerError
        If the server was away for longer than the client waits. Films already answered stay answered.
    ValueError
        If the results' ending is unknown, a name is not there, or another run writes to them.
    """
    write, started = writer_for(results), time.monotonic()
    total = sum(1 for _ in walk(names))
    with Journal(results) as journal:
        before = len(journal.done)
        try:
            _grade(walk(names), total, journal, server, in_flight)
        finally:
            write(journal.rows())
        summary = Summary(len(journal.done), before, seconds=time.monotonic() - started)
        for entry in journal.entries():
            summary.statuses[entry["status"]] += 1
            if entry["status"] == "error":
                summary.errors[entry["rows"][0]["error_code"]] += 1
            if entry["grader"]:
                summary.graders[entry["grader"]] += 1
    return summary


def _grade(films: Iterator[Source], total: int, journal: Journal, server: Server, in_flight: int) -> None:
    bar = tqdm(total=total, unit="film", smoothing=0.05, disable=not sys.stderr.isatty())
    started = told = time.monotonic()
    before, waiting = len(journal.done), dict[Future, str]()

    def keep(answered: Iterator[Future] | set[Future]) -> None:
        for future in answered:
            journal.add(waiting.pop(future), future.result())
            bar.update()

    pool = ThreadPoolExecutor(in_flight)
    try:
        for film in films:
            if film.name in journal.done:
                bar.update()
                continue
            if len(waiting) == in_flight:
                keep(wait(waiting, return_when=FIRST_COMPLETED).done)
            waiting[pool.submit(one, film, server)] = film.name
            if bar.disable and time.monotonic() - told > LINE_SECONDS:
                told = time.monotonic()
                print(
                    _line(len(journal.done), total, len(journal.done) - before, told - started),
                    file=sys.stderr,
                    flush=True,
                )
        keep(wait(waiting).done)
    finally:  # interrupted: what is under way is still answered and kept, what would be asked again is not
        server.closing.set()
        pool.shutdown(cancel_futures=True)
        keep(f for f in list(waiting) if not f.cancelled() and not f.exception())
        server.closing.clear()
        bar.close()


def _line(done: int, total: int, now: int, seconds: float) -> str:
    """Progress where there is no terminal, with this run's rate."""
    rate = now / seconds
    left = tqdm.format_interval((total - done) / rate) if rate else "?"
    return f"{done} of {total} films, {rate:.2f} films/s, {left} left"


def one(film: Source, server: Server) -> dict[str, Any]:
    """One film's reply; what cannot be read here, or not by the server, is an error reply too."""
    try:
        message = server.post_patiently(film.read(), endpoint="predictions/detector")
        return server.post_patiently(json.dumps(message).encode(), endpoint="predictions/grader")
    except KneeOaError as error:
        return envelope(REPLY_SCHEMA, error)
