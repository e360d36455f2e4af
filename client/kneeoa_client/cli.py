"""The `kneeoa` command."""

import argparse
import glob
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tqdm import tqdm

from kneeoa.messages import DISCLAIMER
from kneeoa.reporting.figure import draw_film
from kneeoa_client.rows import rows_of, table, write_rows
from kneeoa_client.server import Server, ServerError

ENDINGS = {".dcm", ".dicom", ".png", ".jpg", ".jpeg", ".tif", ".tiff"}
IN_FLIGHT = 8  # 2 × the workflow's batch size: fills every batch, stays far below the engine's lost-reply race


def films(paths: list[str]) -> Iterator[Path]:
    """Files as named, globs expanded, folders searched for images; files without an ending are taken for DICOM."""
    for text in paths:
        matches = [Path(text)] if Path(text).exists() else sorted(map(Path, glob.glob(text, recursive=True)))
        if not matches:
            raise SystemExit(f"kneeoa: no such file, folder or pattern: {text}")
        for path in matches:
            if path.is_dir():
                yield from (p for p in sorted(path.rglob("*")) if p.is_file() and p.suffix.lower() in ENDINGS | {""})
            else:
                yield path


def grade(arguments: argparse.Namespace) -> int:
    """Grade films: 0 when every film was answered, 1 when some could not be graded, 2 when the server is not there."""
    paths = list(films(arguments.paths))
    server = Server.find(arguments.server, arguments.key_file)
    for folder in (arguments.figures, arguments.json):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)

    def one(path: Path) -> dict[str, Any]:
        data = path.read_bytes()
        reply = server.post(data, arguments.side)
        if arguments.json:
            (arguments.json / f"{path.stem}.json").write_text(json.dumps(reply, indent=2) + "\n")
        if arguments.figures and reply["status"] != "error":
            draw_film(data, reply).save(arguments.figures / f"{path.stem}.png")
        return reply

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        progress = tqdm(pool.map(one, paths), total=len(paths), unit="film", disable=None if len(paths) > 1 else True)
        replies = dict(zip(map(str, paths), progress, strict=True))
    rows = [row for file, reply in replies.items() for row in rows_of(file, reply)]
    if arguments.out:
        write_rows(rows, arguments.out)
    else:
        print(table(replies))
        print(DISCLAIMER)
    return int(any(reply["status"] in ("error", "not_found") for reply in replies.values()))


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kneeoa", description="Grades knee osteoarthritis. " + DISCLAIMER)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("grade", help="grade files, folders and globs through a running server")
    one.add_argument("paths", nargs="+", metavar="PATH")
    one.add_argument("--out", type=Path, help="write one row a knee to FILE.csv, .jsonl or .parquet")
    one.add_argument("--figures", type=Path, metavar="DIR", help="write each film with boxes, key points and grades")
    one.add_argument("--json", type=Path, metavar="DIR", help="write each film's reply")
    one.add_argument("--side", choices=("R", "L"), help="the knee's side, for single-knee films that do not say")
    one.add_argument("--server", help="inference address; default: the server that `make serve` started")
    one.add_argument("--key-file", type=Path, help="TorchServe's key_file.json")
    arguments = parser.parse_args(argv)
    try:
        return grade(arguments)
    except (ServerError, ValueError, OSError) as error:
        print(f"kneeoa: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
