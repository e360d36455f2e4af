"""The `kneeoa` command."""

import argparse
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kneeoa.errors import KneeOaError
from kneeoa.messages import DISCLAIMER, REPLY_SCHEMA, envelope
from kneeoa.reporting.dicom import NoDicomStudy, deliverables
from kneeoa.reporting.figure import DPI, OPACITY, displayed, draw_figure
from kneeoa_client.batch import run
from kneeoa_client.models import Management
from kneeoa_client.probe import SAMPLE, Probe, serve
from kneeoa_client.rows import rows_of, table, writer_for
from kneeoa_client.server import Server, ServerError
from kneeoa_client.sources import Source, walk

IN_FLIGHT = 8  # 2 × the workflow's batch size: fills every batch, stays far below the engine's lost-reply race


def grade(arguments: argparse.Namespace) -> int:
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


def batch(arguments: argparse.Namespace) -> int:
    """Grade a whole archive: 0 when every film was graded, 1 when some could not be, 2 when the server is not there."""
    server = Server.find(arguments.server, arguments.key_file)
    summary = run(arguments.paths, arguments.out, server, arguments.in_flight)
    print("\n".join([*summary.lines(), str(arguments.out), DISCLAIMER]))
    return int(not summary.complete)


def models(arguments: argparse.Namespace) -> int:
    """What is registered; with an action, changed first."""
    management = Management.find(arguments.management, arguments.key_file)
    if arguments.action == "up":
        management.up(arguments.batch, arguments.delay, arguments.workers)
    elif arguments.action == "scale":
        management.scale(arguments.workers)
    elif arguments.action == "down":
        management.down()
    rows = management.table()
    for row in [dict(zip(rows[0], rows[0], strict=True)), *rows] if rows else []:
        print(f"{row['model']:<20} {row['workers']:<10} {row['batch']:<6} {row['delay_ms']:<9} {row['queued']}")
    return 0


def probe(arguments: argparse.Namespace) -> int:
    """Watch a server for Prometheus; with --once 0 where it is ready and grades rightly, 1 where not."""
    watch = Probe.find(
        arguments.server, arguments.management, arguments.key_file, arguments.film, max(1.0, arguments.every)
    )
    if arguments.once:
        watch.grade()
        reasons = watch.trouble()
        print("\n".join(reasons) if reasons else "ready")
        return int(bool(reasons))
    address, _, port = arguments.listen.rpartition(":")
    closing = threading.Event()
    threading.Thread(target=watch.run, args=(closing,), daemon=True).start()
    with serve(watch, address or "127.0.0.1", int(port)) as server:
        print(f"watching {watch.server.url}; http://{arguments.listen}/metrics and /ready", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            closing.set()
    return 0


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kneeoa", description="Grades knee osteoarthritis. " + DISCLAIMER)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("grade", help="grade files, folders and globs through a running server")
    one.add_argument("paths", nargs="+", metavar="PATH")
    one.add_argument("--out", type=Path, help="write one row a knee to FILE.csv, .jsonl or .parquet")
    one.add_argument("--figures", type=Path, metavar="DIR", help="write a page a film: what was found, and all grades")
    one.add_argument(
        "--dicom", type=Path, metavar="DIR", help="write a Structured Report and the page as Secondary Capture a film"
    )
    one.add_argument(
        "--explain", metavar="TASK,…", help="heat maps of what speaks for a finding; the figure shows the first"
    )
    one.add_argument("--opacity", type=float, default=OPACITY, help="of the heat map in the figure, 0 … 1")
    one.add_argument("--json", type=Path, metavar="DIR", help="write each film's reply")
    one.add_argument("--side", choices=("R", "L"), help="the knee's side, for single-knee films that do not say")
    one.add_argument("--server", help="inference address; default: the server that `make serve` started")
    one.add_argument("--key-file", type=Path, help="TorchServe's key_file.json")
    many = commands.add_parser(
        "batch", help="grade folders of any size through the plain models; goes on where it stopped"
    )
    many.add_argument("paths", nargs="+", metavar="SRC", help="files, folders, globs, zip archives, DICOMDIRs")
    many.add_argument("--out", type=Path, required=True, help="FILE.csv, .jsonl or .parquet, one row a knee")
    many.add_argument(
        "--in-flight", type=int, default=16, help="films under way at once; twice the batch size fills it"
    )
    listed = commands.add_parser("models", help="what is registered, with workers, batch size and queue")
    listed.add_argument(
        "action", nargs="?", choices=("up", "scale", "down"), help="register both archives, scale, remove"
    )
    listed.add_argument("--batch", type=int, default=8, help="largest batch")
    listed.add_argument("--delay", type=int, default=50, help="ms to wait for a batch to fill")
    listed.add_argument("--workers", type=int, default=1, help="of each model")
    watch = commands.add_parser("probe", help="readiness, a synthetic radiograph, workers, keys: for Prometheus")
    watch.add_argument("--once", action="store_true", help="look once; exit code 0 where ready, 1 where not")
    watch.add_argument("--listen", default="127.0.0.1:9089", metavar="HOST:PORT", help="for /metrics and /ready")
    watch.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="between synthetic radiographs")
    watch.add_argument(
        "--film", type=Path, default=SAMPLE, help="a radiograph with its expected reply, .json, beside it"
    )
    for command in (listed, watch):
        command.add_argument(
            "--management", help="management address; default: that of the server `make serve` started"
        )
    for command in (many, watch):
        command.add_argument("--server", help="inference address; default: the server that `make serve` started")
    for command in (many, listed, watch):
        command.add_argument("--key-file", type=Path, help="TorchServe's key_file.json")
    arguments = parser.parse_args(argv)
    try:
        return {"grade": grade, "batch": batch, "models": models, "probe": probe}[arguments.command](arguments)
    except (ServerError, ValueError, OSError) as error:
        print(f"kneeoa: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("kneeoa: interrupted; the same command goes on where it stopped", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
