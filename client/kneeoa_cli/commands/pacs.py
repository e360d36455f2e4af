"""`kneeoa pacs`: radiographs from a PACS, reports back."""

import argparse
from pathlib import Path

from kneeoa_cli.arguments import add_server, folder

INTERRUPTED = ""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("pacs", help="fetch radiographs from a PACS, grade them and send reports back")
    parser.add_argument("--peer", metavar="AET@HOST:PORT", help="where reports are stored, by C-STORE")
    parser.add_argument("--listen", default="127.0.0.1:11112", metavar="HOST:PORT", help="for films, by C-STORE")
    parser.add_argument("--aet", default="KNEEOA", help="our AE title")
    parser.add_argument("--accept", action="append", metavar="AET", help="who may send films; default: the peer")
    told = "instead: query for films there, and store reports there"
    parser.add_argument("--dicomweb", metavar="URL", help=told)
    parser.add_argument("--dicomweb-auth", type=Path, metavar="FILE", help="a token or user:password for it")
    parser.add_argument("--days", type=int, default=1, help="how many days back to look for studies")
    parser.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help="between two queries")
    parser.add_argument(
        "--spool", type=folder, default=Path(".pacs"), help="folder for work in progress; it survives a crash"
    )
    add_server(parser)
    parser.set_defaults(parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """0 when it was told to stop."""
    if not (arguments.peer or arguments.dicomweb):
        arguments.parser.error("name the PACS: --peer AET@HOST:PORT or --dicomweb URL")
    from kneeoa_cli.pacs.router import run

    return run(arguments)
