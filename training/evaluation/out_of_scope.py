"""Measures what the service says of what it must not grade, and how often it says so of knees that it should grade.

False alarms: every val knee as a film of its own, and films composed of val knees. Catches: val knees turned, cut and with growth
plates drawn, drawn views, films that show no knee. Writes out_of_scope.json.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kneeoa.detection.detector import Detector
from kneeoa.errors import KneeOaError
from kneeoa.imaging import decode
from kneeoa.imaging.inputs import read
from kneeoa.imaging.radiograph import Radiograph
from kneeoa.pipeline import WEIGHTS
from kneeoa.tasks import Laterality
from training.data.key_points import key_points_of
from training.data.knee_kl import read_knee_kl
from training.evaluation.evaluate_films import composed_films
from training.synthesis.composed_films import Film, compose
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.out_of_scope import EDGES, cut, single, turned, with_growth_plates
from training.synthesis.phantom import draw_film
from training.synthesis.phantom.views import VIEWS, draw_view
from training.synthesis.single_knee_images import pairs

ANGLES = (10, 20, 30, 45, 90, 180)
SHARES = (0.1, 0.3)  # of the joint, cut off
SPACING = 0.6  # mm a pixel of films that are turned and cut


def said_of(detector: Detector, film: Radiograph) -> list[str]:
    """A word a knee of a film: why it is not graded, or what it is graded with, or ``silent``."""
    try:
        facts, knees = detector.detect(film)
    except KneeOaError as error:
        return [error.code]
    remark = "growth_plates" if "growth_plates" in facts["warnings"] else "silent"
    return [knee.reason or remark for knee in knees]


def of_pixels(pixels: np.ndarray) -> Radiograph:
    return replace(read(np.ascontiguousarray(pixels)), polarity="monochrome2")


def kinds(rng: np.random.Generator, films: Sequence[Film]) -> Iterator[tuple[str, Radiograph]]:
    """Films that must not be graded silently, each with the name of its kind."""
    for at, film in enumerate(films):
        upright, sign = single(film, at % 2), (-1) ** (at // 2)
        for degrees in ANGLES:
            yield f"one knee, turned by {degrees}°", of_pixels(single(film, at % 2, sign * degrees).pixels)
        for degrees in (20, 90):
            yield f"two knees, turned by {degrees}°", of_pixels(turned(film.pixels, sign * degrees))
        for share in SHARES:
            edge = EDGES[at % len(EDGES)]
            yield f"cut at an edge, {share:.0%} lost", of_pixels(cut(upright, edge, share))
        yield "growth plates drawn on a real knee", of_pixels(with_growth_plates(rng, upright, "arched"))
        drawn = draw_film(rng, spacing_mm=SPACING, style="test", sides=[Laterality.RIGHT])
        plates = with_growth_plates(rng, single(drawn, 0), "arched")
        yield "growth plates drawn on a phantom", of_pixels(plates)
        for view in VIEWS:
            yield f"{view} view, drawn", of_pixels(draw_view(rng, view, SPACING))
        y = upright.key_points.as_array()[:, 1]
        yield "shaft alone", of_pixels(upright.pixels[: max(64, round(y.min() - 0.45 * upright.key_points.width))])


def counted(results: Iterable[tuple[str, list[str]]]) -> dict[str, dict[str, int]]:
    """How many knees of each kind had which word."""
    table: dict[str, Counter[str]] = {}
    for kind, words in results:
        table.setdefault(kind, Counter()).update(words)
    return {kind: dict(words.most_common()) for kind, words in table.items()}


def as_table(counts: dict[str, dict[str, int]]) -> str:
    """In Markdown: what was said of how many knees."""
    rows = ["| | knees | silent | said |", "|---|---|---|---|"]
    for kind, words in counts.items():
        told = ", ".join(f"`{word}` {number}" for word, number in words.items() if word != "silent")
        rows.append(f"| {kind} | {sum(words.values())} | {words.get('silent', 0)} | {told} |")
    return "\n".join(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--films", type=int, default=100, help="composed films for false alarms")
    parser.add_argument("--pairs", type=int, default=40, help="films of which each kind is made")
    parser.add_argument("--parts", nargs="*", default=["crops", "films", "kinds"], choices=["crops", "films", "kinds"])
    parser.add_argument("--negatives", type=Path, help="folder of DICOM films that show no knee")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    detector, rng = Detector.from_file(WEIGHTS / "detector.safetensors"), np.random.default_rng(given.seed)
    knees = read_knee_kl(given.data, "val")

    def sources() -> Iterator[tuple[str, Radiograph]]:
        if "kinds" in given.parts:
            chosen = pairs(rng, knees, given.pairs)
            points = key_points_of(detector.cascade, {knee.name: knee for pair in chosen for knee in pair}.values())
            yield from kinds(rng, [compose(rng, pair, points, SPACING) for pair in chosen])
        if "crops" in given.parts:
            for knee in knees:
                yield "val knees, each alone", read(knee.image())
        if "films" in given.parts:
            for film in composed_films(given.data, given.films, given.seed, detector):
                yield "composed films", decode(to_dicom(film.film, **film.stored))
        for path in sorted(given.negatives.glob("*.dcm")) if given.negatives else ():
            yield "real films of other body parts", replace(decode(path.read_bytes()), frontal=True)

    bar = tqdm(sources(), unit="film", disable=None)
    counts = counted((kind, said_of(detector, film)) for kind, film in bar)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "out_of_scope.json").write_text(json.dumps(counts, indent=2) + "\n")
    print(as_table(counts))


if __name__ == "__main__":
    main()
