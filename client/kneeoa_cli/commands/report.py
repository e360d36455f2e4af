"""`kneeoa report`: web pages that need no server."""

import argparse

from kneeoa_cli.arguments import add_any_view, add_figure, add_server, films, folder, tasks
from kneeoa_cli.words import languages

INTERRUPTED = "; what was graded so far is in the report, and the same command starts over"


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "report", help="grade files and folders, and write web pages that open without a server"
    )
    told = "files, folders, globs, zip archives, DICOMDIRs"
    parser.add_argument("paths", type=films, nargs="+", metavar="STUDY", help=told)
    told = "folder for an index to sort and filter, and a page per study"
    parser.add_argument("--html", type=folder, required=True, metavar="DIR", help=told)
    told = "the task whose heat map the figures show"
    parser.add_argument("--explain", type=tasks, metavar="TASK", default="KL", help=told)
    told = "of the pages; the text in figures is English"
    parser.add_argument("--language", choices=languages(), default="en", help=told)
    add_figure(parser)
    add_any_view(parser)
    add_server(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 when every film was answered, 1 when some could not be graded, 2 when the server is not there."""
    from kneeoa_cli.html_report import run

    return run(arguments)
