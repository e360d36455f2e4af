"""`kneeoa probe`: watches a server for Prometheus."""

import argparse
import threading
from pathlib import Path

from kneeoa import SAMPLE
from kneeoa_cli.arguments import add_management, add_server

INTERRUPTED = ""


def add_parser(commands: argparse._SubParsersAction) -> None:
    told = "watch a server for Prometheus: readiness, a synthetic radiograph, workers, keys"
    parser = commands.add_parser("probe", help=told)
    parser.add_argument("--once", action="store_true", help="check once; exit code 0 if ready, 1 if not")
    parser.add_argument("--listen", default="127.0.0.1:9089", metavar="HOST:PORT", help="for /metrics and /ready")
    told = "between synthetic radiographs"
    parser.add_argument("--every", type=float, default=30.0, metavar="SECONDS", help=told)
    told = "a radiograph with its expected reply, .json, beside it; default: our sample"
    parser.add_argument("--film", type=Path, help=told)
    add_management(parser)
    add_server(parser, proxy=False)


def run(arguments: argparse.Namespace) -> int:
    """With ``--once`` 0 where the server is ready and grades rightly, 1 where not."""
    from kneeoa_cli.probe import Probe, serve

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
        print(f"watching {watch.client.url}; http://{arguments.listen}/metrics and /ready", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            closing.set()
    return 0
