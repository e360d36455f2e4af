"""The `kneeoa` command: each subcommand loads what it needs, which takes seconds, once its arguments are known to be good."""

import argparse
import sys
from typing import Protocol

from kneeoa import __version__
from kneeoa.disclaimer import DISCLAIMER
from kneeoa_cli.commands import batch, grade, models, pacs, probe, report
from kneeoa_cli.files.names import printable


class Command(Protocol):
    """A module of `kneeoa_cli.commands`."""

    INTERRUPTED: str  # what is left where it was told to stop, for the end of a line

    def add_parser(self, commands: "argparse._SubParsersAction") -> None: ...

    def run(self, arguments: argparse.Namespace) -> int: ...


COMMANDS: dict[str, Command] = {
    "grade": grade,
    "report": report,
    "batch": batch,
    "pacs": pacs,
    "models": models,
    "probe": probe,
}


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kneeoa", description="Grades knee osteoarthritis. " + DISCLAIMER)
    parser.add_argument("--version", action="version", version=f"kneeoa {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for module in COMMANDS.values():
        module.add_parser(commands)
    arguments = parser.parse_args(argv)
    command = COMMANDS[arguments.command]
    try:
        return _run(command, arguments)
    except KeyboardInterrupt:
        print(f"kneeoa: interrupted{command.INTERRUPTED}", file=sys.stderr)
        return 2


def _run(command: Command, arguments: argparse.Namespace) -> int:
    """A subcommand's exit code; what stops it is told in a line."""
    from kneeoa_cli.files.inputs import NoRadiographs
    from kneeoa_client.client import ServerError

    try:
        return command.run(arguments)
    except ModuleNotFoundError as error:
        print(f"kneeoa: this needs {error.name}: pip install 'kneeoa[local,report,pacs,parquet,ray]'", file=sys.stderr)
        return 2
    except (ServerError, ValueError, OSError) as error:
        print(f"kneeoa: {printable(str(error))}", file=sys.stderr)
        return 1 if isinstance(error, NoRadiographs) else 2


if __name__ == "__main__":
    sys.exit(main())
