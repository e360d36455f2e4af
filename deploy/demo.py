"""The demo: start, grade the sample film through the workflow, write out/, stop."""

import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from deploy.processes import DeployError, stop
from deploy.server import DEMO, ROOT, SAMPLE, clean, free_port, start
from kneeoa_cli.main import main as kneeoa

OUT = ROOT / "out"
INTERRUPTED = 130  # as a shell calls it


def demo(run: Path, port: int) -> int:
    """The exit code of grading the sample in a server of its own."""
    began = time.monotonic()
    print("1/3  starting TorchServe with the workflow knee_oa", flush=True)
    try:
        start(run, port=port)
        print(f"     ready after {time.monotonic() - began:.0f} s")
        print(f"2/3  grading {SAMPLE.relative_to(ROOT)} through POST /wfpredict/knee_oa\n", flush=True)
        keys = ("--server", f"http://127.0.0.1:{port}", "--key-file", str(run / "key_file.json"))
        return kneeoa(["grade", str(SAMPLE), "--json", str(OUT), "--figures", str(OUT), *keys])
    finally:
        print("3/3  stopping the server", flush=True)
        stop(run)


def interrupt(*_: object) -> NoReturn:
    """The first Ctrl-C, or a kill, ends the demo; a second one must not end what tidies up after it."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """The exit code; the server and its folder, which holds its keys, are gone whatever happens."""
    clean()
    for ending in ("json", "png"):  # of a demo of an earlier version
        (OUT / f"{SAMPLE.stem}.{ending}").unlink(missing_ok=True)
    run = Path(tempfile.mkdtemp(prefix=DEMO))
    try:
        for name in (signal.SIGINT, signal.SIGTERM):
            signal.signal(name, interrupt)
        with ExitStack() as claim:
            return demo(run, free_port(claim))
    except KeyboardInterrupt:
        print("demo: interrupted; the server is stopped", file=sys.stderr)
        return INTERRUPTED
    except DeployError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(run)


if __name__ == "__main__":
    sys.exit(main())
