"""The demo: start, grade the sample film through the workflow, write out/, stop."""

import shutil
import sys
import tempfile
import time
from pathlib import Path

from server import ROOT, SAMPLE, free_port, start, stop

from kneeoa_client.cli import main as kneeoa

if __name__ == "__main__":
    run = Path(tempfile.mkdtemp(prefix="kneeoa-"))
    began = time.monotonic()
    print("1/3  starting TorchServe with the workflow knee_oa")
    port = free_port()
    start(run, port=port)
    print(f"     ready after {time.monotonic() - began:.0f} s")
    try:
        print(f"2/3  grading {SAMPLE.relative_to(ROOT)} through POST /wfpredict/knee_oa\n")
        out = str(ROOT / "out")
        keys = ("--server", f"http://127.0.0.1:{port}", "--key-file", str(run / "key_file.json"))
        code = kneeoa(["grade", str(SAMPLE), "--json", out, "--figures", out, *keys])
        print(f"\n     wrote out/{SAMPLE.stem}.json and out/{SAMPLE.stem}.png")
    finally:
        print("3/3  stopping the server")
        stop(run)
        shutil.rmtree(run)
    sys.exit(code)
