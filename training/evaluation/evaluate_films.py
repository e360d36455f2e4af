"""Measures the shipped weights on whole films, composed from val knees and drawn as phantoms, from DICOM bytes on.

The same knees are measured as crops beside it, so that what the workflow costs can be told from what the grader can.
Writes films.json.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from kneeoa.detection.detector import Detector
from kneeoa.geometry import KEY_POINTS, Box, KeyPoints
from kneeoa.pipeline import WEIGHTS, KneeOA
from kneeoa.tasks import KL
from training.data.key_points import key_points_of
from training.data.knee_kl import Knee, read_knee_kl
from training.evaluation.evaluate import error_in_w, grade_crops, labelled
from training.evaluation.metrics import grade_metrics
from training.synthesis.composed_films import Film, compose
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film
from training.synthesis.single_knee_images import pairs


@dataclass(frozen=True)
class ComposedFilm:
    """A film with its truth, how it is stored (polarity, bits) and what it measures.

    ``landmarked`` films have real key points but an even spread of KL; only the others, drawn at random from val, say how
    often KL is right.
    """

    film: Film
    stored: dict[str, Any]
    landmarked: bool
    knees: tuple[Knee, ...]


def composed_films(data: Path, number: int, seed: int, detector: Detector | None = None) -> list[ComposedFilm]:
    """Films from val knees: mixed polarity, 8 … 16 bits, 0.2 … 0.3 mm; a quarter of landmarked knees."""
    rng = np.random.default_rng(seed)
    knees = read_knee_kl(data, "val")
    marked = [knee for knee in knees if knee.well_marked]
    chosen = pairs(rng, marked, number // 4) + pairs(rng, knees, number - number // 4)
    # Where there are no landmarks, the truth of the box is the detector's own reading of the crop.
    cascade = (detector or Detector.from_file(WEIGHTS / "detector.safetensors")).cascade
    truth = key_points_of(cascade, {knee.name: knee for pair in chosen for knee in pair}.values())
    truth |= {knee.name: knee.key_points for knee in marked if knee.key_points}
    return [
        ComposedFilm(
            compose(rng, pair, truth),
            _storage(rng),
            i < number // 4,
            tuple(pair),
        )
        for i, pair in enumerate(chosen)
    ]


def phantom_films(number: int, seed: int) -> list[ComposedFilm]:
    """Films of phantom knees in the held-out style, stored as `composed_films` are."""
    rng = np.random.default_rng(seed)
    return [ComposedFilm(draw_film(rng, style="test"), _storage(rng), True, ()) for _ in range(number)]


def _storage(rng: np.random.Generator) -> dict[str, Any]:
    return {"monochrome1": bool(rng.integers(2)), "bits": int(rng.choice([8, 10, 12, 14, 16]))}


def grade_films(films: Sequence[ComposedFilm], replies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Found share (IoU ≥ 0.5); IoU and key-point error of landmarked films; KL metrics of the others' graded knees."""
    found, ious, errors, labels, probabilities = [], [], [], [], []
    for film, reply in zip(films, replies, strict=True):
        for truth, knee in zip(film.film.knees, reply["knees"], strict=True):
            graded = knee["status"] == "graded"
            iou = Box(*knee["box"]).iou(truth.box) if graded else 0.0
            found.append(iou >= 0.5)
            if not graded:
                continue
            if film.landmarked:
                points = KeyPoints.from_array([knee["key_points"][k] for k in KEY_POINTS])
                error = error_in_w(points, truth.key_points)
                errors.append((100 * error, error * truth.key_points.width * film.film.spacing_mm))
                ious.append(iou)
            else:
                labels.append(truth.grades["KL"])
                probabilities.append(knee["grades"]["KL"]["probabilities"])
    percent, mm = np.mean(errors, axis=0)
    result: dict[str, Any] = {
        "films": len(films),
        "knees": len(found),
        "found": round(float(np.mean(found)), 4),
        "iou": round(float(np.mean(ious)), 4),
        "key_point_error_percent_of_w": round(float(percent), 2),
        "key_point_error_mm": round(float(mm), 2),
    }
    return result | ({"KL": grade_metrics(np.array(labels), np.array(probabilities))} if labels else {})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--films", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    service = KneeOA()

    def measured(films: Sequence[ComposedFilm]) -> dict[str, Any]:
        bar = tqdm(films, unit="film", disable=None)
        replies = service.grade_many(to_dicom(film.film, **film.stored) for film in bar)
        return grade_films(films, [reply.message for reply in replies])

    films = composed_films(given.data, given.films, given.seed, service.detector)
    knees = [knee for film in films if not film.landmarked for knee in film.knees]
    result = measured(films)
    crops = grade_crops(knees, service.detector, service.grader)
    result["KL_of_the_same_knees_as_crops"] = grade_metrics(*labelled(crops, KL)[:2])
    result["phantoms"] = measured(phantom_films(given.films, given.seed))
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "films.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
