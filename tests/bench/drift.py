"""Does the drift index tell a shifted population from the same one? On phantom films, against a reference of phantom films."""

import argparse
from collections.abc import Iterator, Sequence

import numpy as np

from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader
from tests.conftest import WEIGHTS
from training.evaluation.make_reference import counts, graded_joints, population_stability_index, reference_of
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film, sample_grades

POPULATIONS = {
    "the same": {},
    "more disease": {"kl": (3, 4)},
    "less disease": {"kl": (0, 1)},
    "another machine": {"style": "test"},
}


def films(number: int, seed: int, kl: Sequence[int] = range(5), style: str = "train") -> Iterator[bytes]:
    """Bilateral phantoms with KL spread evenly over ``kl``."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        grades = [sample_grades(rng, int(rng.choice(kl))) for _ in range(2)]
        yield to_dicom(draw_film(rng, grades, spacing_mm=0.4, style=style))


def indices(
    number: int, seed: int, names: Sequence[str], detector: Detector, grader: Grader
) -> dict[str, dict[str, float]]:
    """The index of each quantity, by population; each of ``number`` films."""
    reference = reference_of(graded_joints(films(number, seed), detector, grader))
    return {
        name: {
            quantity: population_stability_index(reference.shares[quantity], seen)
            for quantity, seen in counts(
                graded_joints(films(number, seed + at, **POPULATIONS[name]), detector, grader), reference
            ).items()
        }
        for at, name in enumerate(names, 1)
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--films", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    grader = Grader.from_file(WEIGHTS / "grader.safetensors")
    found = indices(arguments.films, arguments.seed, tuple(POPULATIONS), detector, grader)
    print(f"{'':10}" + "".join(f"{name:>18}" for name in found))
    for quantity in found["the same"]:
        print(f"{quantity:10}" + "".join(f"{index[quantity]:18.2f}" for index in found.values()))
