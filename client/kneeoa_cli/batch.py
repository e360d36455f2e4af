"""Grades folders of any size: detector, then grader, as plain models with dynamic batching; no workflow engine."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kneeoa_cli.files.inputs import Source, skipped_line, walk
from kneeoa_cli.files.journal import Journal
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.files.tables import Results
from kneeoa_cli.flow import Answer, Flow
from kneeoa_client.client import Client


@dataclass
class Summary:
    """What became of the films; ``graders`` counts by the weights that graded: two where a run went on with others.

    ``unread`` counts the ``records`` of an earlier run that say nothing.
    """

    films: int = 0
    before: int = 0
    unread: int = 0
    skipped: list[Source] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    graders: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    records: str = "lines of the journal"

    @property
    def complete(self) -> bool:
        """Whether every film has grades."""
        return not self.statuses["error"] and not self.statuses["not_found"]

    def lines(self) -> list[str]:
        """For a person to read in the morning."""
        rate = (self.films - self.before) / self.seconds if self.seconds else 0.0
        told = [f"{self.films} films, {self.before} of them from an earlier run; {rate:.2f} films/s"]
        told += skipped_line(self.skipped)
        if self.unread:
            told.append(f"{self.unread} {self.records} could not be used; their films were graded again")
        for kind, counted in (("", self.statuses), ("error ", self.errors), ("graded by ", self.graders)):
            told += [f"{kind}{name}: {number}" for name, number in counted.most_common()]
        return told


def run(names: Sequence[str], results: Path, client: Client, in_flight: int, identify: bool = False) -> Summary:
    """Grade what is not yet in the journal beside ``results``, then write them; also when interrupted.

    With ``identify`` rows say whose film it is.

    Raises
    ------
    ServerError
        If the server was away for longer than the client waits. Films already answered stay answered.
    ValueError
        If the results' ending is unknown, a name is not there or holds no radiograph, another run writes to them, or a
        file is there that is not ours.
    """
    started, skipped = time.monotonic(), list[Source]()
    total = sum(1 for _ in walk(names, skipped))
    outputs = Outputs.beside(walk(names))
    Results(results, outputs)  # before anything is graded
    with Journal(results, identify) as journal:

        def keep(film: Source, answer: Answer) -> None:
            journal.add(film, answer.reply, answer.film)

        try:
            Flow(lambda film: one(film, client, identify), keep, client, in_flight, journal.knows).run(
                walk(names), total
            )
        finally:
            with Results(results, outputs, identify) as written:
                written.add(journal.rows())
        summary = Summary(unread=journal.unread, skipped=skipped, seconds=time.monotonic() - started)
        for entry in journal.entries():
            summary.films += 1
            summary.statuses[entry["status"]] += 1
            if entry["status"] == "error":
                summary.errors[entry["rows"][0]["error_code"]] += 1
            if entry["grader"]:
                summary.graders[entry["grader"]] += 1
        summary.before = summary.films - journal.added
    return summary


def one(film: Source, client: Client, keep_film: bool = False) -> Answer:
    """One film's reply; with its bytes where they are wanted."""
    data = film.read()
    message = client.post_patiently(data, endpoint="predictions/detector")
    reply = client.post_patiently(json.dumps(message).encode(), endpoint="predictions/grader")
    return Answer(reply, data if keep_film else b"")
