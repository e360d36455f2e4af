"""Flame graphs of a film's way through 0.3.0 and this version, each with its weights: ``flame-before.svg``, ``flame-after.svg``.

Functions of Python, as py-spy samples them while films go through one process, one thread; importing is left out.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from itertools import cycle
from pathlib import Path

from kneeoa import __version__
from kneeoa.grading.compiled import compiled_here
from kneeoa.weights import read_weights
from tests.bench import stages
from tests.bench.speed import GRADER, films_of, sample_joints


def record(title: str, version: stages.Version, films: list[Path], target: Path, seconds: int) -> None:
    """Sample a process that films go through for so long, and draw what it did."""
    version.seconds(films[0])  # it is up, and has done everything once
    spy = (str(Path(sys.executable).with_name("py-spy")), "record", "--function", "--pid", str(version.pid))
    sampling = subprocess.Popen([*spy, "--duration", str(seconds), "--output", str(target)])
    for film in cycle(films):
        if sampling.poll() is not None:
            break
        version.seconds(film)
    version.close()
    if sampling.returncode:
        raise SystemExit("py-spy could not look into the process; it needs the right to trace it")
    # the command, which it is named for, has paths of this machine
    drawn = re.sub(r'(id="title"[^>]*>)[^<]*', rf"\g<1>{title}", target.read_text())
    target.write_text(re.sub("<!--.*?-->", "", drawn, flags=re.DOTALL))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kneeoa-flame-") as scratch:
        then, now = stages.earlier(Path(scratch)), stages.ROOT / stages.PACKAGES
        compiled = compiled_here(read_weights(GRADER, "grader"), "openvino", sample_joints())
        # the first one's knees are not centred: it is searched three times
        _, *some = films_of(Path(scratch), 6, given.seed)
        for title, version, name in (
            ("kneeoa 0.3.0", stages.Version(then, then / "weights/grader.safetensors"), "flame-before.svg"),
            (f"kneeoa {__version__}, OpenVINO", stages.Version(now, GRADER, compiled), "flame-after.svg"),
        ):
            record(title, version, some, given.out / name, given.seconds)
