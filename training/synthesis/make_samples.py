"""Draws samples/: two phantom films as DICOM, the same bytes for the same seed."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film, kl_of

ROOT = Path(__file__).resolve().parents[2]
NORMAL = dict.fromkeys(("JSN_L", "JSN_M", "FL", "FM", "TL", "TM"), 0)
FILMS = {  # right and left knee
    "bilateral": (NORMAL, {**NORMAL, "FM": 2, "TM": 1}),
    "moderate_oa": ({**NORMAL, "JSN_M": 2, "FM": 2, "TM": 2, "FL": 1}, {**NORMAL, "JSN_M": 1, "FM": 1, "TM": 1}),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=ROOT / "samples")
    given = parser.parse_args(arguments)
    given.out.mkdir(exist_ok=True)
    for number, (name, features) in enumerate(FILMS.items()):
        grades = [{**knee, "KL": kl_of(knee), "OA": int(kl_of(knee) >= 2)} for knee in features]
        film = draw_film(np.random.default_rng((given.seed, number)), grades, spacing_mm=0.4)
        data = to_dicom(film, monochrome1=name == "moderate_oa", compress=True, seed=name)
        (given.out / f"{name}.dcm").write_bytes(data)


if __name__ == "__main__":
    main()
