"""`kneeoa batch`: a whole archive."""

import argparse
from typing import TYPE_CHECKING

from kneeoa.disclaimer import DISCLAIMER
from kneeoa_cli.arguments import add_any_view, add_identify, add_server, films, table

if TYPE_CHECKING:
    from kneeoa_cli.batch import Summary

INTERRUPTED = "; the same command goes on where it stopped"


def add_parser(commands: argparse._SubParsersAction) -> None:
    told = "grade folders of any size through the plain models; goes on where it stopped"
    parser = commands.add_parser("batch", help=told, fromfile_prefix_chars="@")
    told = (
        "files, folders, globs, zip archives, DICOMDIRs; @FILE has one a line; with an engine s3://, gs://, abfs:// too"
    )
    parser.add_argument("paths", type=films, nargs="+", metavar="SRC", help=told)
    told = "FILE.csv, .jsonl or .parquet, one row per knee; with an engine a folder or an address of Parquet files"
    parser.add_argument("--out", required=True, help=told)
    told = "films under way at once; twice the batch size fills it"
    parser.add_argument("--in-flight", type=int, default=16, help=told)
    told = "instead of a server: Ray Data, on all machines of a cluster"
    parser.add_argument("--engine", choices=("ray",), help=told)
    parser.add_argument("--address", metavar="HOST:PORT", help="of the Ray cluster; without it, this machine alone")
    add_identify(parser)
    add_any_view(parser)
    add_server(parser)
    parser.set_defaults(parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """0 when every film was graded, 1 when some could not be, 2 when the server or the cluster is not there."""
    summary = _with_ray(arguments) if arguments.engine else _with_server(arguments)
    print("\n".join([*summary.lines(), str(arguments.out), DISCLAIMER]))
    return int(not summary.complete)


def _with_ray(arguments: argparse.Namespace) -> "Summary":
    from kneeoa_cli.engines.ray import run

    return run(arguments.paths, arguments.out, arguments.address, arguments.identify, arguments.any_view)


def _with_server(arguments: argparse.Namespace) -> "Summary":
    try:
        out = table(arguments.out)
        if addresses := [path for path in arguments.paths if "://" in path]:
            raise argparse.ArgumentTypeError(f"{addresses[0]} needs --engine ray")
        if arguments.address:
            raise argparse.ArgumentTypeError("--address needs --engine ray")
    except argparse.ArgumentTypeError as error:
        arguments.parser.error(str(error))
    from kneeoa_cli.batch import run
    from kneeoa_client.client import ANY_VIEW, Client

    client = Client.find(arguments.server, arguments.key_file, arguments.proxy)
    if arguments.any_view:
        client.headers |= ANY_VIEW
    return run(arguments.paths, out, client, arguments.in_flight, arguments.identify)
