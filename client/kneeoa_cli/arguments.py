"""What several subcommands take, and what is asked of it before anything is loaded."""

import argparse
import glob
import os
from pathlib import Path

from kneeoa.tasks import TASKS
from kneeoa_cli.files.names import KINDS, printable


def tasks(text: str) -> str:
    """Names of tasks, separated by commas."""
    known = [task.name for task in TASKS]
    if unknown := {name.strip() for name in text.split(",") if name.strip()} - {*known}:
        raise argparse.ArgumentTypeError(f"no such task: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return text


def films(text: str) -> str:
    """A file, a folder or a pattern; or an address, which only an engine can open."""
    if "://" not in text and not os.path.lexists(text) and not glob.has_magic(text):
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


def add_server(parser: argparse.ArgumentParser, proxy: bool = True) -> None:
    """Where grades are asked for."""
    parser.add_argument("--server", help="inference address; default: the server that `make serve` started")
    if proxy:
        parser.add_argument(
            "--proxy", metavar="URL", help="proxy for servers on other machines; HTTP_PROXY and the like are ignored"
        )
    add_key(parser)


def add_management(parser: argparse.ArgumentParser) -> None:
    """Where models are registered."""
    parser.add_argument("--management", help="management address; default: that of the server `make serve` started")


def add_key(parser: argparse.ArgumentParser) -> None:
    """The tokens of either."""
    parser.add_argument("--key-file", type=Path, help="TorchServe's key_file.json")


def add_any_view(parser: argparse.ArgumentParser) -> None:
    """Whether the header's view is obeyed."""
    told = "also grade films whose header names a non-frontal view"
    parser.add_argument("--any-view", action="store_true", help=told)


def add_identify(parser: argparse.ArgumentParser) -> None:
    """Whose films they are, in tables."""
    told = "add PatientID, UIDs, study date and spacing to each row"
    parser.add_argument("--identify", action="store_true", help=told)


def add_figure(parser: argparse.ArgumentParser) -> None:
    """How films are graded and drawn."""
    parser.add_argument("--opacity", type=share, metavar="SHARE", help="of the heat map in the figure, 0 to 1")
    told = "the knee's side, for single-knee films whose header does not give it"
    parser.add_argument("--side", choices=("R", "L"), help=told)
