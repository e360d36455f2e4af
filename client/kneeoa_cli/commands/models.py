"""`kneeoa models`: what is registered; with an action, changed first."""

import argparse

from kneeoa_cli.arguments import add_key, add_management

INTERRUPTED = ""


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser("models", help="show the registered models, with workers, batch size and queue")
    told = "register both archives, scale, remove"
    parser.add_argument("action", nargs="?", choices=("up", "scale", "down"), help=told)
    parser.add_argument("--batch", type=int, default=8, help="largest batch")
    parser.add_argument("--delay", type=int, default=50, help="ms to wait for a batch to fill")
    parser.add_argument("--workers", type=int, default=1, help="of each model")
    add_management(parser)
    add_key(parser)


def run(arguments: argparse.Namespace) -> int:
    """0, or 2 when the server is not there."""
    from kneeoa_client.management import Management

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
