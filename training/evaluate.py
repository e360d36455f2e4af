"""Measures the shipped weights on crops and on films composed from them; writes metrics.json.

Crops take the serving code's path from the key points on; films take all of it, from DICOM bytes.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kneeoa.detection.detector import Detector
from kneeoa.geometry import KEY_POINTS, Box, KeyPoints, crop, main_joint
from kneeoa.grading.grader import Grader
from kneeoa.imaging import decode
from kneeoa.imaging.prepare import prepare_single
from kneeoa.messages import DETECTION_SCHEMA, envelope
from kneeoa.reply import build_reply
from training.data.key_points import key_points_of, locate_in_crop
from training.data.knee_kl import Knee, read_knee_kl
from training.data.views import pairs
from training.films import Film, compose
from training.metrics import ordinal_metrics
from training.store import to_dicom

WEIGHTS = Path(__file__).resolve().parent.parent / "model_src/weights"


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
    marked = [knee for knee in knees if knee.key_points and knee.fit_score >= 2.4]
    chosen = pairs(rng, marked, number // 4) + pairs(rng, knees, number - number // 4)
    # Where there are no landmarks, the truth of the box is the detector's own reading of the crop.
    cascade = (detector or Detector.from_file(WEIGHTS / "detector.safetensors")).cascade
    truth = key_points_of(cascade, {knee.name: knee for pair in chosen for knee in pair}.values())
    truth |= {knee.name: knee.key_points for knee in marked if knee.key_points}
    return [
        ComposedFilm(
            compose(rng, pair, truth),
            {"monochrome1": bool(rng.integers(2)), "bits": int(rng.choice([8, 10, 12, 14, 16]))},
            i < number // 4,
            tuple(pair),
        )
        for i, pair in enumerate(chosen)
    ]


def grade_films(films: Sequence[ComposedFilm], replies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Found share (IoU ≥ 0.5), key-point error of landmarked films, KL metrics of the others' graded knees."""
    found, errors, labels, predicted = [], [], [], []
    for film, reply in zip(films, replies, strict=True):
        for truth, knee in zip(film.film.knees, reply["knees"], strict=True):
            graded = knee["status"] == "graded"
            found.append(graded and Box(*knee["box"]).iou(truth.box) >= 0.5)
            if not graded:
                continue
            if film.landmarked:
                points = KeyPoints.from_array([knee["key_points"][k] for k in KEY_POINTS])
                errors.append(error_in_w(points, truth.key_points))
            else:
                labels.append(truth.grades["KL"])
                predicted.append(knee["grades"]["KL"]["grade"])
    return {
        "films": len(films),
        "knees": len(found),
        "found": round(float(np.mean(found)), 4),
        "key_point_error_percent_of_w": round(100 * float(np.mean(errors)), 2),
        "KL": ordinal_metrics(np.array(labels), np.array(predicted)),
    }


def error_in_w(found: KeyPoints, truth: KeyPoints) -> float:
    """Mean distance of the six points as a share of the true W."""
    return float(np.linalg.norm(found.as_array() - truth.as_array(), axis=1).mean() / truth.width)


def grade_crops(knees: Sequence[Knee], detector: Detector, grader: Grader) -> dict[str, Any]:
    """KL metrics on the crops themselves, and the key-point error where there are landmarks."""
    predicted, errors = [], []
    for knee in knees:
        image = knee.image()
        found = locate_in_crop(detector.cascade, image)
        joint = crop(prepare_single(image.astype(np.float32)), main_joint(found.box, found.key_points))
        (graded,) = grader.grade([joint], [knee.side])
        predicted.append(int(graded.probabilities["KL"].argmax()))
        if knee.key_points and knee.fit_score >= 2.4:
            errors.append(error_in_w(found.key_points, knee.key_points))
    return {
        "KL": ordinal_metrics(np.array([knee.kl for knee in knees]), np.array(predicted)),
        "key_point_error_percent_of_w": round(100 * float(np.mean(errors)), 2) if errors else None,
    }


def reply_to(data: bytes, detector: Detector, grader: Grader) -> dict[str, Any]:
    """What the workflow would answer, in this process."""
    facts, knees = detector.detect(decode(data))
    found = [knee for knee in knees if knee.crop is not None]
    graded = grader.grade([k.crop for k in found if k.crop is not None], [k.side for k in found])
    model = {"detector": detector.identity}
    message = envelope(DETECTION_SCHEMA, film=facts, knees=[knee.to_json() for knee in knees], model=model)
    return build_reply(message, graded, grader)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder in the form of the public KL set")
    parser.add_argument("--split", default="val")
    parser.add_argument("--films", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    grader = Grader.from_file(WEIGHTS / "grader.safetensors")
    films = composed_films(arguments.data, arguments.films, arguments.seed, detector)
    replies = [reply_to(to_dicom(film.film, **film.stored), detector, grader) for film in films]
    result = {
        "crops": grade_crops(read_knee_kl(arguments.data, arguments.split), detector, grader),
        "composed_films": grade_films(films, replies),
        "crops_of_these_films": grade_crops([k for f in films if not f.landmarked for k in f.knees], detector, grader),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "metrics.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
