"""`kneeoa grade`: films through a running server, and what is made of their replies."""

import argparse
import json
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from kneeoa.errors import KneeOaError
from kneeoa.messages import DISCLAIMER, REPLY_SCHEMA, Message, envelope
from kneeoa.reporting.dicom import NoDicomStudy, delivered_with
from kneeoa.reporting.figure import DPI, OPACITY, displayed, draw_figure
from kneeoa_client.rows import rows_of, table, writer_for
from kneeoa_client.server import ANY_VIEW, Server
from kneeoa_client.sources import Source, distinct_stems, walk

IN_FLIGHT = 8  # 2 × the workflow's batch size: fills every batch, stays far below the engine's lost-reply race


def grade_all(
    films: Sequence[Source], server: Server, side: str | None, use: Callable[[Source, bytes, Message], None]
) -> dict[str, Message]:
    """The reply of each film, by its name, in order; ``use`` gets film, bytes and reply of each, one at a time."""
    pen = threading.Lock()  # matplotlib draws one page at a time

    def one(film: Source) -> Message:
        try:
            data = film.read()
            reply = server.post_patiently(data, side)
        except KneeOaError as error:
            data, reply = b"", envelope(REPLY_SCHEMA, error)
        with pen:
            use(film, data, reply)
        for knee in reply["knees"]:
            knee.pop("explanations", None)  # of a large batch too many to hold
        return reply

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        progress = tqdm(pool.map(one, films), total=len(films), unit="film", disable=None if len(films) > 1 else True)
        return {film.name: reply for film, reply in zip(films, progress, strict=True)}


def run(arguments: argparse.Namespace) -> int:
    """Grade films: 0 when every film was answered, 1 when some could not be graded, 2 when the server is not there."""
    films = list(walk(arguments.paths))
    names = distinct_stems(films)
    write = writer_for(arguments.out) if arguments.out else None
    server = Server.find(arguments.server, arguments.key_file)
    explain = arguments.explain or ("KL" if arguments.figures or arguments.dicom else None)
    opacity = OPACITY if arguments.opacity is None else arguments.opacity
    undelivered = []
    if explain:
        server.headers["X-Kneeoa-Explain"] = explain
    if arguments.any_view:
        server.headers |= ANY_VIEW
    for folder in (arguments.figures, arguments.json, arguments.dicom):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def use(film: Source, data: bytes, reply: Message) -> None:
        name = names[film]
        if arguments.json:
            (arguments.json / f"{name}.json").write_text(json.dumps(reply, indent=2) + "\n")
        if reply["status"] == "error" or not (arguments.figures or arguments.dicom):
            return
        shown = displayed(data, reply)
        page = draw_figure(shown, reply, opacity=opacity)
        if arguments.figures:
            page.savefig(arguments.figures / f"{name}.png", dpi=DPI)
        if arguments.dicom:
            try:
                files = delivered_with(data, shown, page, reply, opacity)
            except NoDicomStudy as error:
                undelivered.append(f"{film.name}: {error.code}: {error}")
                return
            for ending, file in files.items():
                (arguments.dicom / f"{name}.{ending}").write_bytes(file)

    replies = grade_all(films, server, arguments.side, use)
    rows = [row for file, reply in replies.items() for row in rows_of(file, reply)]
    if write:
        write(rows)
    else:
        print(table(replies))
        print(DISCLAIMER)
    print("".join(f"kneeoa: {line}\n" for line in undelivered), end="", file=sys.stderr)
    return int(bool(undelivered) or not all_graded(replies))


def all_graded(replies: dict[str, Message]) -> bool:
    """Whether every film had a knee that was graded."""
    return not any(reply["status"] in ("error", "not_found") for reply in replies.values())
