"""`kneeoa batch`: a whole archive."""

import argparse

from kneeoa.disclaimer import DISCLAIMER
from kneeoa_cli.arguments import add_any_view, add_identify, add_server, films, table

INTERRUPTED = "; the same command goes on where it stopped"


def add_parser(commands: argparse._SubParsersAction) -> None:
    told = "grade folders of any size through the plain models; goes on where it stopped"
    parser = commands.add_parser("batch", help=told)
    told = "files, folders, globs, zip archives, DICOMDIRs"
    parser.add_argument("paths", type=films, nargs="+", metavar="SRC", help=told)
    parser.add_argument("--out", type=table, required=True, help="FILE.csv, .jsonl or .parquet, one row per knee")
    told = "films under way at once; twice the batch size fills it"
    parser.add_argument("--in-flight", type=int, default=16, help=told)
    add_identify(parser)
    add_any_view(parser)
    add_server(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 when every film was graded, 1 when some could not be, 2 when the server is not there."""
    from kneeoa_cli.batch import run
    from kneeoa_client.client import ANY_VIEW, Client

    client = Client.find(arguments.server, arguments.key_file, arguments.proxy)
    if arguments.any_view:
        client.headers |= ANY_VIEW
    summary = run(arguments.paths, arguments.out, client, arguments.in_flight, arguments.identify)
    print("\n".join([*summary.lines(), str(arguments.out), DISCLAIMER]))
    return int(not summary.complete)
