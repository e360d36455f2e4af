"""The `kneeoa` command: each subcommand loads what it needs, which takes seconds, once its arguments are known to be good."""

import argparse
import glob
import os
import sys
import threading
from importlib import import_module
from pathlib import Path

from kneeoa import SAMPLE, __version__
from kneeoa.disclaimer import DISCLAIMER
from kneeoa.tasks import TASKS
from kneeoa_client.names import KINDS, printable
from kneeoa_client.words import languages

APART = ("grade", "report", "pacs")  # modules of their own, with a function run
INTERRUPTED = {  # what a command leaves that was told to stop
    "grade": "; what was graded by then is kept, and the same command starts anew",
    "report": "; what was graded by then is in the report, and the same command starts anew",
    "batch": "; the same command goes on where it stopped",
}


def tasks(text: str) -> str:
    """Names of tasks, separated by commas."""
    known = [task.name for task in TASKS]
    if unknown := {name.strip() for name in text.split(",") if name.strip()} - {*known}:
        raise argparse.ArgumentTypeError(f"no such task: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return text


def films(text: str) -> str:
    """A file, a folder or a pattern."""
    if not os.path.lexists(text) and not glob.has_magic(text):
        raise argparse.ArgumentTypeError(f"no such file or folder: {printable(text)}")
    return text


def table(text: str) -> Path:
    """A table to write."""
    if Path(text).suffix not in KINDS:
        raise argparse.ArgumentTypeError(f"a table's name ends in {', '.join(KINDS)}; {printable(text)} does not")
    return Path(text)


def share(text: str) -> float:
    """A number from 0 to 1."""
    try:
        if 0 <= (number := float(text)) <= 1:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{printable(text)} is not a number from 0 to 1")


def folder(text: str) -> Path:
    """A folder, there already or to be made."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{printable(text)} is a file; name a folder")
    return Path(text)


def batch(arguments: argparse.Namespace) -> int:
    """Grade a whole archive: 0 when every film was graded, 1 when some could not be, 2 when the server is not there."""
    from kneeoa_client.batch import run
    from kneeoa_client.server import ANY_VIEW, Server

    server = Server.find(arguments.server, arguments.key_file, arguments.proxy)
    if arguments.any_view:
        server.headers |= ANY_VIEW
    summary = run(arguments.paths, arguments.out, server, arguments.in_flight, arguments.identify)
    print("\n".join([*summary.lines(), str(arguments.out), DISCLAIMER]))
    return int(not summary.complete)


def models(arguments: argparse.Namespace) -> int:
    """What is registered; with an action, changed first."""
    from kneeoa_client.models import Management

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
    from kneeoa_client.probe import Probe, serve

    film, every = arguments.film or SAMPLE, max(1.0, arguments.every)
    watch = Probe.find(arguments.server, arguments.management, arguments.key_file, film, every)
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
    parser.add_argument("--version", action="version", version=f"kneeoa {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("grade", help="grade files, folders and globs through a running server")
    one.add_argument("paths", type=films, nargs="+", metavar="PATH")
    one.add_argument("--out", type=table, help="write one row a knee to FILE.csv, .jsonl or .parquet")
    one.add_argument(
        "--figures", type=folder, metavar="DIR", help="write a page a film: what was found, and all grades"
    )
    one.add_argument(
        "--dicom", type=folder, metavar="DIR", help="write a Structured Report and the page as Secondary Capture a film"
    )
    one.add_argument(
        "--explain",
        type=tasks,
        metavar="TASK,…",
        help="heat maps of what speaks for a finding; figures show one: KL before OA, JSN_L …",
    )
    one.add_argument("--local", action="store_true", help="grade in this process; no server is asked")
    one.add_argument("--json", type=folder, metavar="DIR", help="write each film's reply")
    page = commands.add_parser("report", help="grade files and folders, and write web pages that need no server")
    page.add_argument(
        "paths", type=films, nargs="+", metavar="STUDY", help="files, folders, globs, zip archives, DICOMDIRs"
    )
    page.add_argument(
        "--html", type=folder, required=True, metavar="DIR", help="an index that sorts and filters, a page a study"
    )
    page.add_argument("--explain", type=tasks, metavar="TASK", default="KL", help="whose heat map the figures show")
    page.add_argument("--language", choices=languages(), default="en", help="of the pages; their figures speak English")
    for command in (one, page):
        command.add_argument("--opacity", type=share, metavar="SHARE", help="of the heat map in the figure, 0 to 1")
        command.add_argument(
            "--side", choices=("R", "L"), help="the knee's side, for single-knee films that do not say"
        )
    many = commands.add_parser(
        "batch", help="grade folders of any size through the plain models; goes on where it stopped"
    )
    many.add_argument(
        "paths", type=films, nargs="+", metavar="SRC", help="files, folders, globs, zip archives, DICOMDIRs"
    )
    many.add_argument("--out", type=table, required=True, help="FILE.csv, .jsonl or .parquet, one row a knee")
    many.add_argument(
        "--in-flight", type=int, default=16, help="films under way at once; twice the batch size fills it"
    )
    for command in (one, many):
        command.add_argument(
            "--identify", action="store_true", help="rows say whose film it is: PatientID, UIDs, study date, spacing"
        )
    for command in (one, page, many):
        command.add_argument(
            "--any-view", action="store_true", help="grade films whose header names a view that is not frontal, too"
        )
    loop = commands.add_parser("pacs", help="take films from a PACS, grade them, store reports back")
    loop.add_argument("--peer", metavar="AET@HOST:PORT", help="where reports are stored, by C-STORE")
    loop.add_argument("--listen", default="127.0.0.1:11112", metavar="HOST:PORT", help="for films, by C-STORE")
    loop.add_argument("--aet", default="KNEEOA", help="our AE title")
    loop.add_argument("--accept", action="append", metavar="AET", help="who may send films; default: the peer")
    loop.add_argument("--dicomweb", metavar="URL", help="instead: look for films there, and store reports there")
    loop.add_argument("--dicomweb-auth", type=Path, metavar="FILE", help="a token or user:password for it")
    loop.add_argument("--days", type=int, default=1, help="how old a study may be that is looked for")
    loop.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="between looks")
    loop.add_argument("--spool", type=folder, default=Path(".pacs"), help="what is under way; survives a crash")
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
        "--film", type=Path, help="a radiograph with its expected reply, .json, beside it; default: our sample"
    )
    for command in (listed, watch):
        command.add_argument(
            "--management", help="management address; default: that of the server `make serve` started"
        )
    for command in (one, page, many, loop, watch):
        command.add_argument("--server", help="inference address; default: the server that `make serve` started")
    for command in (one, page, many, loop):
        command.add_argument("--proxy", metavar="URL", help="for servers elsewhere; the environment's is not used")
    for command in (one, page, many, loop, listed, watch):
        command.add_argument("--key-file", type=Path, help="TorchServe's key_file.json")
    arguments = parser.parse_args(argv)
    if arguments.command == "pacs" and not (arguments.peer or arguments.dicomweb):
        loop.error("name the PACS: --peer AET@HOST:PORT or --dicomweb URL")
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print(f"kneeoa: interrupted{INTERRUPTED.get(arguments.command, '')}", file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    """A subcommand's exit code; what stops it is told in a line."""
    from kneeoa_client.server import ServerError
    from kneeoa_client.sources import NoRadiographs

    try:
        if arguments.command in APART:
            return import_module(f"kneeoa_client.{arguments.command}").run(arguments)
        return {"batch": batch, "models": models, "probe": probe}[arguments.command](arguments)
    except ModuleNotFoundError as error:
        print(f"kneeoa: this needs {error.name}: pip install 'kneeoa[local,report,pacs,parquet]'", file=sys.stderr)
        return 2
    except (ServerError, ValueError, OSError) as error:
        print(f"kneeoa: {printable(str(error))}", file=sys.stderr)
        return 1 if isinstance(error, NoRadiographs) else 2


if __name__ == "__main__":
    sys.exit(main())
