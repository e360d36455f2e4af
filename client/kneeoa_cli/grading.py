"""`kneeoa grade`: films through a running server, and what is made of their replies."""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from importlib import import_module
from io import BytesIO
from pathlib import Path

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.errors import KneeOaError
from kneeoa.messages import Message
from kneeoa.reporting.figure import DPI, OPACITY, displayed, draw_figure
from kneeoa_cli.files.inputs import Source, distinct_stems, skipped_line, walk
from kneeoa_cli.files.names import printable
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.files.tables import Results, rows_of, table
from kneeoa_cli.flow import Answer, Flow
from kneeoa_client.client import ANY_VIEW, EXPLAIN, Client

IN_FLIGHT = 8  # 2 × the workflow's batch size: fills every batch, stays far below the engine's lost-reply race
DICOM_ENDINGS = ("sr.dcm", "sc.dcm")


def grade_all(
    films: Sequence[Source], client: Client, side: str | None, use: Callable[[Source, bytes, Message], None]
) -> None:
    """Grade films through the workflow; ``use`` gets film, bytes and reply of each as it comes, one at a time."""

    def ask(film: Source) -> Answer:
        data = film.read()
        return Answer(client.post_patiently(data, side), data)

    def keep(film: Source, answer: Answer) -> None:
        use(film, answer.film, answer.reply)
        for knee in answer.reply["knees"]:
            knee.pop("explanations", None)  # of a large batch too many to hold

    Flow(ask, keep, client, IN_FLIGHT).run(films, len(films))


@dataclass
class Pages:
    """What is made from each film: reply, figure, DICOM objects, each in its folder, where one is named.

    What cannot be made or written is told in ``problems``, and keeps nothing else; ``made`` counts files by folder.
    """

    names: dict[Source, str]
    outputs: Outputs
    json: Path | None
    figures: Path | None
    dicom: Path | None
    opacity: float
    problems: list[str] = field(default_factory=list)
    made: Counter[Path] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Make the folders; raise ValueError where a file in them is in the way."""
        if self.dicom:
            import_module("kneeoa.reporting.dicom")  # what it needs may not be installed
        for folder, endings in ((self.json, ("json",)), (self.figures, ("png",)), (self.dicom, DICOM_ENDINGS)):
            if folder:
                folder.mkdir(parents=True, exist_ok=True)
                for name in self.names.values():
                    for ending in endings:
                        self.outputs.check(folder / f"{name}.{ending}")

    def add(self, film: Source, data: bytes, reply: Message) -> None:
        try:
            self._make(self.names[film], data, reply)
        except (KneeOaError, OSError, ValueError) as error:
            code = f"{error.code}: " if isinstance(error, KneeOaError) else ""
            self.problems.append(f"{film.name}: {code}{error}")

    def _make(self, name: str, data: bytes, reply: Message) -> None:
        if self.json:
            self._write(self.json, f"{name}.json", json.dumps(reply, indent=2).encode() + b"\n")
        if reply["status"] == "error" or not (self.figures or self.dicom):
            return
        shown = displayed(data, reply)
        page = draw_figure(shown, reply, opacity=self.opacity)
        if self.figures:
            picture = BytesIO()
            page.savefig(picture, format="png", dpi=DPI, metadata={"Software": "kneeoa"})
            self._write(self.figures, f"{name}.png", picture.getvalue())
        if self.dicom:
            from kneeoa.reporting.dicom import delivered_with

            for ending, file in delivered_with(data, page, reply, self.opacity).items():
                self._write(self.dicom, f"{name}.{ending}", file)

    def _write(self, folder: Path, name: str, data: bytes) -> None:
        self.outputs.write(folder / name, data)
        self.made[folder] += 1


def run(arguments: argparse.Namespace) -> int:
    """Grade films: 0 when every film was answered, 1 when some could not be graded, 2 when the server is not there."""
    skipped: list[Source] = []
    films = list(walk(arguments.paths, skipped))
    outputs = Outputs.beside(films)
    opacity = OPACITY if arguments.opacity is None else arguments.opacity
    pages = Pages(distinct_stems(films), outputs, arguments.json, arguments.figures, arguments.dicom, opacity)
    client = _local() if arguments.local else Client.find(arguments.server, arguments.key_file, arguments.proxy)
    if explain := arguments.explain or ("KL" if arguments.figures or arguments.dicom else None):
        client.headers[EXPLAIN] = explain
    if arguments.any_view:
        client.headers |= ANY_VIEW
    replies: dict[Source, Message] = {}
    ranks = {film: rank for rank, film in enumerate(films)}
    results = Results(arguments.out, outputs, arguments.identify) if arguments.out else None

    def use(film: Source, data: bytes, reply: Message) -> None:
        if results:
            results.add(rows_of(film.name, reply, data if arguments.identify else None), ranks[film])
        replies[film] = reply
        pages.add(film, data, reply)

    try:
        with results or nullcontext():
            pages.prepare()
            grade_all(films, client, arguments.side, use)
    finally:
        if replies:
            shown = [] if results else [table({film.name: replies[film] for film in films if film in replies})]
            print("\n".join([*shown, counted(replies.values(), skipped), *_written(results, pages), DISCLAIMER]))
        print("".join(f"kneeoa: {printable(line)}\n" for line in pages.problems), end="", file=sys.stderr)
    return int(bool(pages.problems) or not all_graded(replies.values()))


def _local() -> Client:
    from kneeoa_cli.local import Local  # PyTorch takes seconds to load

    return Local()


def counted(replies: Collection[Message], skipped: Sequence[Source]) -> str:
    """How many films there were, and what became of them, as a line to print."""
    statuses = Counter(reply["status"] for reply in replies).most_common()
    told = ", ".join(f"{number} {status}" for status, number in statuses)
    films = "radiograph" if len(replies) == 1 else "radiographs"
    return "; ".join([f"{len(replies)} {films}: {told}", *skipped_line(skipped)])


def _written(results: Results | None, pages: Pages) -> list[str]:
    """Where everything is now."""
    files = [str(results.path)] if results and not results.part.exists() else []
    folders = [f"{folder}/ ({number} {'file' if number == 1 else 'files'})" for folder, number in pages.made.items()]
    return [f"wrote {printable(path)}" for path in files + folders]


def all_graded(replies: Iterable[Message]) -> bool:
    """Whether every film had a knee that was graded."""
    return not any(reply["status"] in ("error", "not_found") for reply in replies)
