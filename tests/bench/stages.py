"""A film's stages in one process, one thread, in this version of kneeoa and in an earlier one, which take turns film by film.

Run by its path it is the process of one version: the folder of its packages and its grader's weights come first, and what was
compiled of them where there is; then a film's path a line, answered by a line of CPU seconds by stage. CPU seconds of one
thread do not count what else the machine does.
"""

import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
BASELINE = "2c760555cf29cdee752fa0821e6212e2ef6d1fd0"  # 0.3.0
PACKAGES = "model_src"


class Version:
    """A process that takes films through one version."""

    def __init__(self, packages: Path, grader: Path, compiled: Path | None = None) -> None:
        command = [sys.executable, __file__, str(packages), str(grader), *([str(compiled)] if compiled else [])]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def seconds(self, film: Path) -> dict[str, float]:
        """CPU seconds by stage of one film."""
        assert self._process.stdin
        assert self._process.stdout
        print(film, file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def earlier(folder: Path, commit: str = BASELINE) -> Path:
    """The packages of an earlier commit, with their weights, unpacked into ``folder``."""
    packed = subprocess.run(["git", "archive", commit, PACKAGES], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    return folder / PACKAGES


def in_turns(versions: dict[str, Version], films: Sequence[Path], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds by stage of each version, in the order of the films; the first film is gone through once before."""
    for version in versions.values():
        version.seconds(films[0])
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in versions}
    for film in [film for _ in range(rounds) for film in films]:
        for name, version in versions.items():
            taken[name].append(version.seconds(film))
    return taken


def ratio(taken: Sequence[float], baseline: Sequence[float]) -> float:
    """The median of what one took over what the other took in the same turn."""
    return median(a / b for a, b in zip(taken, baseline, strict=True))


def serve(packages: str, grader: str, compiled: str | None = None) -> None:
    """Answer each film of the standard input: the process of a `Version`."""
    sys.path.insert(0, packages)
    # an editable installation finds modules of this version that the earlier one has not
    sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
    import cv2
    import torch

    from kneeoa.detection.detector import Detector
    from kneeoa.grading.grader import Grader
    from kneeoa.imaging import decode

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    assert Path(sys.modules["kneeoa"].__file__ or "").is_relative_to(packages)
    how: dict[str, Any] = {"compiled": Path(compiled)} if compiled else {}
    find, rate = (
        Detector.from_file(Path(packages, "weights/detector.safetensors")),
        Grader.from_file(Path(grader), **how),
    )
    assert not compiled or rate.runtime != "eager"
    for line in sys.stdin:
        taken: dict[str, float] = {}

        def timed(stage: str, work: Callable[[], Any], taken: dict[str, float] = taken) -> Any:
            began = time.process_time()
            result = work()
            taken[stage] = time.process_time() - began
            return result

        data = Path(line.rstrip("\n")).read_bytes()
        film = timed("decode", lambda data=data: decode(data))
        _, knees = timed("prepare and detect", lambda film=film: find.detect(film))
        found = [knee for knee in knees if knee.crop is not None]
        crops, sides = [knee.crop for knee in found], [knee.side for knee in found]
        timed("grade", lambda crops=crops, sides=sides: rate.grade(crops, sides))
        taken["whole film"] = sum(taken.values())
        taken["knees"] = len(found)
        print(json.dumps(taken), flush=True)


if __name__ == "__main__":
    serve(*sys.argv[1:])
