"""`kneeoa grade`: films through a running server, and what is made of their replies."""

import argparse
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from kneeoa.errors import KneeOaError
from kneeoa.messages import DISCLAIMER, REPLY_SCHEMA, envelope
from kneeoa.reporting.dicom import NoDicomStudy, deliverables
from kneeoa.reporting.figure import DPI, displayed, draw_figure
from kneeoa_client.rows import rows_of, table, writer_for
from kneeoa_client.server import Server
from kneeoa_client.sources import Source, walk

IN_FLIGHT = 8  # 2 × the workflow's batch size: fills every batch, stays far below the engine's lost-reply race


def run(arguments: argparse.Namespace) -> int:
    """Grade films: 0 when every film was answered, 1 when some could not be graded, 2 when the server is not there."""
    films = list(walk(arguments.paths))
    write = writer_for(arguments.out) if arguments.out else None
    server = Server.find(arguments.server, arguments.key_file)
    pen = threading.Lock()  # matplotlib draws one page at a time
    explain = arguments.explain or ("KL" if arguments.figures or arguments.dicom else None)
    undelivered = []
    if explain:
        server.headers = {"X-Kneeoa-Explain": explain}
    for folder in (arguments.figures, arguments.json, arguments.dicom):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def one(film: Source) -> dict[str, Any]:
        try:
            data = film.read()
            reply = server.post_patiently(data, arguments.side)
        except KneeOaError as error:
            data, reply = b"", envelope(REPLY_SCHEMA, error)
        if arguments.json:
            (arguments.json / f"{film.stem}.json").write_text(json.dumps(reply, indent=2) + "\n")
        if arguments.figures and reply["status"] != "error":
            with pen:
                page = draw_figure(displayed(data), reply, opacity=arguments.opacity)
                page.savefig(arguments.figures / f"{film.stem}.png", dpi=DPI)
        if arguments.dicom and reply["status"] != "error":
            try:
                with pen:
                    files = deliverables(data, reply, arguments.opacity)
            except NoDicomStudy as error:
                undelivered.append(f"{film.name}: {error.code}: {error}")
                return reply
            for ending, file in files.items():
                (arguments.dicom / f"{film.stem}.{ending}").write_bytes(file)
        return reply

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        progress = tqdm(pool.map(one, films), total=len(films), unit="film", disable=None if len(films) > 1 else True)
        replies = {film.name: reply for film, reply in zip(films, progress, strict=True)}
    rows = [row for file, reply in replies.items() for row in rows_of(file, reply)]
    if write:
        write(rows)
    else:
        print(table(replies))
        print(DISCLAIMER)
    print("".join(f"kneeoa: {line}\n" for line in undelivered), end="", file=sys.stderr)
    return int(bool(undelivered) or any(reply["status"] in ("error", "not_found") for reply in replies.values()))
