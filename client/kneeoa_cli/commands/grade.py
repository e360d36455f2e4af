"""`kneeoa grade`: files, folders and globs through a running server, or in this process."""

import argparse

from kneeoa_cli.arguments import add_any_view, add_figure, add_identify, add_server, films, folder, table, tasks

INTERRUPTED = "; what was graded so far is kept, and the same command starts over"


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("grade", help="grade files, folders and globs through a running server")
    parser.add_argument("paths", type=films, nargs="+", metavar="PATH")
    parser.add_argument("--out", type=table, help="write one row per knee to FILE.csv, .jsonl or .parquet")
    told = "write a page per radiograph: what was found, and all grades"
    parser.add_argument("--figures", type=folder, metavar="DIR", help=told)
    told = "write a Structured Report per radiograph, and the page as Secondary Capture"
    parser.add_argument("--dicom", type=folder, metavar="DIR", help=told)
    told = "Grad-CAM heat maps of these tasks; figures show one: KL before OA, JSN_L …"
    parser.add_argument("--explain", type=tasks, metavar="TASK,…", help=told)
    parser.add_argument("--local", action="store_true", help="grade in this process, without a server")
    parser.add_argument("--json", type=folder, metavar="DIR", help="write each film's reply")
    add_figure(parser)
    add_identify(parser)
    add_any_view(parser)
    add_server(parser)


def run(arguments: argparse.Namespace) -> int:
    """0 when every film was answered, 1 when some could not be graded, 2 when the server is not there."""
    from kneeoa_cli.grading import run

    return run(arguments)
