"""Builds model_store/{detector,grader}.mar and knee_oa.war: code, weights and configuration as one unit."""

import argparse
import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from kneeoa import KneeOaError, __version__

ROOT = Path(__file__).resolve().parent.parent
ARCHIVES = ("detector.mar", "grader.mar", "knee_oa.war")
BESIDE = {"detector": "handedness.json", "grader": "reference.json"}
LEFT_OUT = ("__pycache__", "py.typed", "*.schema.json", "data", "samples")  # the last two are links to other folders
SOURCES = (ROOT / "model_src", ROOT / "handlers")
GRADER = ROOT / "model_src/weights/grader.safetensors"
SAMPLES = sorted((ROOT / "samples").glob("*.dcm"))
COMPILED = "compiled"  # folder in the grader's archive
RUNTIMES = ("eager", "inductor", "openvino")


def fastest() -> str:
    """The runtime that is taken where none is asked for: docs/performance.md has the times."""
    return "openvino" if importlib.util.find_spec("openvino") else "eager"


def build(
    store: Path,
    configs: Path = ROOT / "handlers",
    grader: Path = GRADER,
    runtime: str = "eager",
    compare: Sequence[Path] = SAMPLES,
) -> None:
    """Write the three archives into ``store``; ``configs`` holds the model configurations and the workflow spec.

    ``grader`` is the weights file served; drift is told for the shipped one only, whose reference population is known.
    ``runtime`` runs its networks, if it says the same as PyTorch of the knees on the films ``compare``.

    Raises
    ------
    RuntimeRefused
        If it says something else, or cannot be had here.
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
            if name == "grader" and runtime != "eager":
                _compile(runtime, grader, stage / COMPILED, compare)
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


def _compile(runtime: str, grader: Path, folder: Path, films: Sequence[Path]) -> None:
    from kneeoa.detection.detector import Detector  # PyTorch and all: most builds need none of it
    from kneeoa.grading.compiled import compile_grader
    from kneeoa.imaging import decode
    from kneeoa.weights import read_weights

    detector, joints = Detector.from_file(ROOT / "model_src/weights/detector.safetensors"), []
    for film in films:
        with contextlib.suppress(KneeOaError, OSError):  # a folder may hold other files
            joints += [knee.crop for knee in detector.detect(decode(film.read_bytes()))[1] if knee.crop is not None]
    moved = compile_grader(read_weights(grader, "grader"), runtime, folder, joints)
    print(f"{runtime}: no probability of {len(joints)} knees moves by more than {moved:.4f}", flush=True)


def stale(store: Path, grader: Path = GRADER, runtime: str = "eager") -> bool:
    """Whether an archive is missing, older than what goes into it, or holds another grader or what another runtime runs."""
    archives = [store / name for name in ARCHIVES]
    if not all(archive.exists() for archive in archives):
        return True
    if zlib.crc32(grader.read_bytes()) != zipfile.ZipFile(store / "grader.mar").getinfo("grader.safetensors").CRC:
        return True
    if _runtime_of(store / "grader.mar") != runtime:
        return True
    newest = max(file.stat().st_mtime for source in SOURCES for file in source.rglob("*") if _matters(file))
    return newest > min(archive.stat().st_mtime for archive in archives)


def _runtime_of(archive: Path) -> str:
    with zipfile.ZipFile(archive) as opened:
        told = f"{COMPILED}/runtime.json"
        return json.loads(opened.read(told))["runtime"] if told in opened.namelist() else "eager"


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
    told = "what runs the grader's networks on a CPU; else openvino where it is installed, eager where it is not"
    parser.add_argument("--runtime", choices=RUNTIMES, default=fastest(), help=told)
    parser.add_argument("--compare", type=Path, help="folder of films or knees on which the runtime must say the same")
    given = parser.parse_args(arguments)
    if not given.grader.is_file():
        parser.error(f"there is no {given.grader}")
    given.store.mkdir(parents=True, exist_ok=True)
    fcntl.flock(os.open(given.store, os.O_RDONLY), fcntl.LOCK_EX)  # two started at once: the second finds them built
    if stale(given.store, given.grader, given.runtime):
        print(f"building archives in {given.store}", flush=True)
        films = sorted(path for path in given.compare.rglob("*") if path.is_file()) if given.compare else SAMPLES
        try:
            build(given.store, grader=given.grader, runtime=given.runtime, compare=films)
        except KneeOaError as refused:
            parser.exit(1, f"{refused.code}: {refused}\n")


if __name__ == "__main__":
    main()
