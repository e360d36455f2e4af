"""The demo: start, grade the sample film through the workflow, write out/, stop."""

import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from deploy.server import DEMO, ROOT, SAMPLE, clean, free_port, start, stop
from kneeoa_client.cli import main as kneeoa

OUT = ROOT / "out"


def demo(run: Path, port: int) -> int:
    """The exit code of grading the sample in a server of its own."""
    began = time.monotonic()
    print("1/3  starting TorchServe with the workflow knee_oa")
    start(run, port=port)
    print(f"     ready after {time.monotonic() - began:.0f} s")
    try:
        print(f"2/3  grading {SAMPLE.relative_to(ROOT)} through POST /wfpredict/knee_oa\n")
        keys = ("--server", f"http://127.0.0.1:{port}", "--key-file", str(run / "key_file.json"))
        code = kneeoa(["grade", str(SAMPLE), "--json", str(OUT), "--figures", str(OUT), *keys])
        print(f"\n     wrote out/{SAMPLE.stem}.json and out/{SAMPLE.stem}.png")
        return code
    finally:
        print("3/3  stopping the server")
        stop(run)


if __name__ == "__main__":
    clean()
    for ending in ("json", "png"):  # of a demo of an earlier version
        (OUT / f"{SAMPLE.stem}.{ending}").unlink(missing_ok=True)
    run = Path(tempfile.mkdtemp(prefix=DEMO))
    try:
        with ExitStack() as claim:
            code = demo(run, free_port(claim))
    finally:
        shutil.rmtree(run)
    sys.exit(code)
