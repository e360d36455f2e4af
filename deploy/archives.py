"""Builds model_store/{detector,grader}.mar and knee_oa.war: code, weights and configuration as one unit."""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from kneeoa import __version__

ROOT = Path(__file__).resolve().parent.parent
BESIDE = {"detector": "handedness.json", "grader": "reference.json"}
LEFT_OUT = ("__pycache__", "py.typed", "*.schema.json", "data", "samples")  # the last two are links to other folders
SOURCES = (ROOT / "model_src", ROOT / "handlers")
GRADER = ROOT / "model_src/weights/grader.safetensors"


def build(store: Path, configs: Path = ROOT / "handlers", grader: Path = GRADER) -> None:
    """Write the three archives into ``store``; ``configs`` holds the model configurations and the workflow spec.

    ``grader`` is the weights file served; drift is told for the shipped one only, whose reference population is known.
    """
    store.mkdir(parents=True, exist_ok=True)
    for name in ("detector", "grader"):
        with tempfile.TemporaryDirectory() as folder:
            # A clean stage: the archiver takes whatever lies in the folder, caches included.
            stage = Path(folder, "stage")
            shutil.copytree(ROOT / "model_src/kneeoa", stage / "kneeoa", ignore=shutil.ignore_patterns(*LEFT_OUT))
            weights = grader if name == "grader" else ROOT / "model_src/weights/detector.safetensors"
            shutil.copy(weights, stage / f"{name}.safetensors")
            shutil.copy(ROOT / "model_src/weights" / BESIDE[name], stage)
            _run(
                "torch-model-archiver",
                *("--model-name", name, "--version", __version__, "--force"),
                *("--handler", str(ROOT / f"handlers/{name}_handler.py"), "--extra-files", str(stage)),
                *("--config-file", str(configs / f"{name}.yaml"), "--export-path", str(store)),
                tmp=folder,
            )
    with tempfile.TemporaryDirectory() as folder:
        spec = str(configs / "workflow.yaml")
        # The archiver insists on a handler for function nodes, of which there are none.
        functions = Path(folder, "workflow_functions.py")
        functions.touch()
        _run(
            "torch-workflow-archiver",
            *("--workflow-name", "knee_oa", "--spec-file", spec, "--handler", str(functions)),
            *("--export-path", str(store), "--force"),
            tmp=folder,
        )


def stale(store: Path, grader: Path = GRADER) -> bool:
    """Whether an archive is missing, older than what goes into it, or holds another grader."""
    archives = [store / name for name in ("detector.mar", "grader.mar", "knee_oa.war")]
    if not all(archive.exists() for archive in archives):
        return True
    if zlib.crc32(grader.read_bytes()) != zipfile.ZipFile(store / "grader.mar").getinfo("grader.safetensors").CRC:
        return True
    newest = max(file.stat().st_mtime for source in SOURCES for file in source.rglob("*") if _matters(file))
    return newest > min(archive.stat().st_mtime for archive in archives)


def _matters(file: Path) -> bool:
    return file.suffix in (".py", ".yaml", ".json", ".safetensors")


def _run(tool: str, *arguments: str, tmp: str) -> None:
    # Two builds of one name collide in $TMPDIR, so each has its own.
    executable = Path(sys.executable).parent / tool
    subprocess.run([str(executable), *arguments], check=True, env={**os.environ, "TMPDIR": tmp})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", nargs="?", type=Path, default=ROOT / "model_store")
    parser.add_argument("--grader", type=Path, default=GRADER, help="weights to serve instead of the shipped ones")
    given = parser.parse_args(arguments)
    if not given.grader.is_file():
        parser.error(f"there is no {given.grader}")
    given.store.mkdir(parents=True, exist_ok=True)
    fcntl.flock(os.open(given.store, os.O_RDONLY), fcntl.LOCK_EX)  # two started at once: the second finds them built
    if stale(given.store, given.grader):
        print(f"building archives in {given.store}", flush=True)
        build(given.store, grader=given.grader)


if __name__ == "__main__":
    main()
