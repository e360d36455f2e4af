"""`make bench`: how fast grading is, as one table of ratios that are all of one run. What is below 1 is faster than its baseline.

Parts: ``stages`` of a film against 0.3.0's code and weights, ``runtimes`` of the grader against PyTorch as it is, ``growth`` with
the size of a film and the number of knees, ``service`` against the bare networks, ``start`` of server and
command line; and, where it is named, ``device``: the grader's networks on a GPU.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

import cv2
import numpy as np
import torch

from deploy.archives import fastest
from kneeoa import SAMPLE
from kneeoa.detection.detector import Detector
from kneeoa.grading.compiled import compiled_here
from kneeoa.grading.grader import Grader
from kneeoa.grading.runtime import RUNTIMES
from kneeoa.imaging import decode
from kneeoa.tasks import Laterality
from kneeoa.weights import read_weights
from tests.bench import device, runtimes, service, stages
from tests.conftest import WEIGHTS
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film

GRADER = WEIGHTS / "grader.safetensors"
USUAL = 0.2  # mm a pixel: phantoms of 2150 pixels, as films are
MEGAPIXELS = (1, 2, 4, 8, 16, 32)
KNEES = (1, 2, 4, 8, 16)
IN_FLIGHT = (1, 4, 16, 64)
STAGES = ("decode", "prepare and detect", "grade", "whole film")


@dataclass
class Row:
    """What took how many milliseconds, and how many times what its baseline took; with no baseline only what it took."""

    what: str
    value: str
    ratio: float | None = None
    baseline: str = ""

    def __str__(self) -> str:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return f"| {self.what} | {self.value} | {ratio} | {self.baseline} |"


def _row(what: str, taken: Sequence[float], baseline: Sequence[float], name: str) -> Row:
    return Row(what, f"{1000 * median(taken):.1f} ms", stages.ratio(taken, baseline), name)


def films_of(folder: Path, number: int, seed: int) -> list[Path]:
    """Phantom films of two knees, uncompressed."""
    rng, paths = np.random.default_rng(seed), [folder / f"{i}.dcm" for i in range(number)]
    for path in paths:
        path.write_bytes(to_dicom(draw_film(rng, spacing_mm=USUAL)))
    return paths


def sizes_of(folder: Path, seed: int) -> dict[int, Path]:
    """One phantom film in several sizes, by megapixels, none of which it exceeds."""
    film, paths = draw_film(np.random.default_rng(seed), spacing_mm=USUAL), {}
    for megapixels in MEGAPIXELS:
        scale = (megapixels * 1e6 / film.pixels.size) ** 0.5
        size = [int(side * scale) for side in film.pixels.shape[::-1]]
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        other = replace(
            film, pixels=cv2.resize(film.pixels, size, interpolation=how), spacing_mm=film.spacing_mm / scale
        )
        paths[megapixels] = folder / f"{megapixels}.dcm"
        paths[megapixels].write_bytes(to_dicom(other))
    return paths


def by_stage(folder: Path, given: argparse.Namespace) -> Iterator[Row]:
    """Of films as they are: 0.3.0; this version with either's grader, in PyTorch and in the archives' runtime."""
    then = stages.earlier(folder)
    now = stages.ROOT / stages.PACKAGES
    graders = {"now, 0.3.0's grader": then / "weights/grader.safetensors", "now": GRADER}
    versions = {"0.3.0": stages.Version(then, then / "weights/grader.safetensors")}
    versions |= {name: stages.Version(now, grader) for name, grader in graders.items()}
    if given.runtime != "eager":
        joints = sample_joints()
        for name, grader in graders.items():
            compiled = compiled_here(read_weights(grader, "grader"), given.runtime, joints)
            versions[f"{name}, {given.runtime}"] = stages.Version(now, grader, compiled)
    taken = stages.in_turns(versions, films_of(folder, given.films, given.seed), given.rounds)
    for version in versions.values():
        version.close()
    for name, turns in taken.items():
        for stage in STAGES:
            first = [turn[stage] for turn in taken["0.3.0"]]
            yield _row(f"{stage}: {name}", [turn[stage] for turn in turns], first, "0.3.0")


def by_runtime(folder: Path, given: argparse.Namespace) -> Iterator[Row]:
    """The grader's networks alone."""
    weights = read_weights(GRADER, "grader")
    taken = runtimes.in_turns(weights, sample_joints(), (1, 2, 8), given.rounds, given.threads, folder)
    for size, by_name in taken.items():
        for name, seconds in by_name.items():
            yield _row(f"networks, batch of {size}: {name}", seconds, by_name["eager"], "eager")


def by_batch(folder: Path, given: argparse.Namespace) -> Iterator[Row]:
    """The grader's networks on a device; seconds by the clock on the wall."""
    grader = Grader.from_file(GRADER, device=given.device)
    work, best = device.work(grader), device.best(grader.device)
    yield Row("a product of matrices in bfloat16", f"{best / 1e12:.2f} TFLOP/s")
    for size, by_way in device.in_turns(grader, sample_joints()[0], given.rounds).items():
        for way, seconds in by_way.items():
            pace = size / median(seconds)
            told = f"{pace:.0f} knees/s, {pace * work / best:.0%} of that"
            yield Row(
                f"{given.device}, batch of {size}: {way}", told, stages.ratio(seconds, by_way[device.FULL]), device.FULL
            )


def by_size(folder: Path, given: argparse.Namespace) -> Iterator[Row]:
    """Films from 1 to 32 megapixels against one of 4, and 1 to 16 knees against one of 2."""
    version = stages.Version(stages.ROOT / stages.PACKAGES, GRADER)
    films = sizes_of(folder, given.seed)
    taken: dict[int, list[dict[str, float]]] = {mp: [] for mp in films}
    for turn in range(given.rounds + 1):
        for mp, film in films.items():
            seconds = version.seconds(film)
            taken[mp] += [seconds] * bool(turn)
    version.close()
    for stage in STAGES[:2]:
        for mp, turns in taken.items():
            usual = [turn[stage] for turn in taken[4]]
            yield _row(f"{stage}: a film of {mp} megapixels", [turn[stage] for turn in turns], usual, "4 megapixels")
    grader, joint = Grader.from_file(GRADER), sample_joints()[0]
    ways = {f"grade: {n} knees": partial(grader.grade, [joint] * n, [Laterality.RIGHT] * n) for n in KNEES}
    by_knees = runtimes.turns_of(ways, given.rounds)
    for way, seconds in by_knees.items():
        yield _row(way, seconds, by_knees["grade: 2 knees"], "2 knees")


def by_way(folder: Path, given: argparse.Namespace) -> Iterator[Row]:
    """The server, with the archives in model_store; seconds by the clock on the wall."""
    films = [film.read_bytes() for film in films_of(folder, given.films, given.seed)]
    taken = service.seconds_a_film(films, given.rounds, IN_FLIGHT, given.runtime)
    for way, seconds in taken.items():
        yield _row(f"a film: {way}", seconds, taken[service.BARE], service.BARE)


def at_start(folder: Path, given: argparse.Namespace) -> Iterator[Row]:
    """What has no baseline in this run."""
    for what, value in service.starts(given.rounds).items():
        yield Row(what, f"{value:.2f}")


def sample_joints() -> list[np.ndarray]:
    """The sample's two knees."""
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    return [knee.crop for knee in detector.detect(decode(SAMPLE.read_bytes()))[1] if knee.crop is not None]


PARTS = {
    "stages": by_stage,
    "runtimes": by_runtime,
    "growth": by_size,
    "service": by_way,
    "start": at_start,
    "device": by_batch,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[part for part in PARTS if part != "device"])
    parser.add_argument("--films", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--threads", type=int, default=1, help="of the runtimes; one counts CPU seconds, more those on the wall"
    )
    parser.add_argument("--runtime", choices=RUNTIMES, default=fastest(), help="the archives'")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="of the part device")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    print("| what | time | times that of … | … |\n|---|---|---|---|", flush=True)
    for part in given.parts:
        with tempfile.TemporaryDirectory(prefix="kneeoa-bench-") as folder:
            for row in PARTS[part](Path(folder), given):
                print(row, flush=True)


if __name__ == "__main__":
    main()
