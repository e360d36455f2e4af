"""What must not change the answer: the same films encoded, exposed, compressed and bordered otherwise.

Prints the share of KL grades that change; sides and the number of knees must never, and it fails where they do.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from PIL import Image
from pydicom import uid
from pydicom.encaps import encapsulate
from tqdm import tqdm

from kneeoa import KneeOA
from training.evaluation.evaluate_films import composed_films, phantom_films
from training.synthesis.composed_films import Film
from training.synthesis.dicom_writer import to_dicom

LEVELS = 1023 / 65535  # films use 10 of 16 bits: twice the exposure still fits
Variant = Callable[[Film, np.random.Generator], bytes]
Knees = list[tuple[str, str, int | None]]  # side, status, KL


def stored(film: Film, exposure: float = 1.0, **how: Any) -> bytes:
    return to_dicom(replace(film, pixels=film.pixels * np.float32(exposure * LEVELS)), bits=16, **how)


def as_syntax(data: bytes, syntax: str) -> bytes:
    ds = pydicom.dcmread(BytesIO(data))
    if uid.UID(syntax).is_encapsulated:
        ds.compress(syntax, generate_instance_uid=False)
    else:
        ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    return _saved(ds)


def as_jpeg(film: Film, quality: int) -> bytes:
    ds = pydicom.dcmread(BytesIO(to_dicom(film, bits=8)))
    frame = BytesIO()
    Image.fromarray(ds.pixel_array).save(frame, "JPEG", quality=quality)
    ds.PixelData, ds.file_meta.TransferSyntaxUID = encapsulate([frame.getvalue()]), uid.JPEGBaseline8Bit
    ds["PixelData"].VR = "OB"
    return _saved(ds)


def _saved(ds: pydicom.Dataset) -> bytes:
    file = BytesIO()
    ds.save_as(file, enforce_file_format=True, implicit_vr=ds.file_meta.TransferSyntaxUID.is_implicit_VR)
    return file.getvalue()


def noisy(film: Film, rng: np.random.Generator) -> Film:
    return replace(film, pixels=np.clip(film.pixels + rng.normal(0, 0.03, film.pixels.shape), 0, 1).astype(np.float32))


def bordered(film: Film, sides: tuple[float, float, float, float], grey: float) -> Film:
    """Top, bottom, left and right in shares of the film's sides."""
    height, width = film.pixels.shape
    top, bottom, left, right = (round(s * size) for s, size in zip(sides, (height, height, width, width), strict=True))
    return replace(film, pixels=np.pad(film.pixels, ((top, bottom), (left, right)), constant_values=np.float32(grey)))


VARIANTS: dict[str, Variant] = {
    "implicit little endian": lambda film, _: as_syntax(stored(film), uid.ImplicitVRLittleEndian),
    "RLE": lambda film, _: as_syntax(stored(film), uid.RLELossless),
    "JPEG-LS": lambda film, _: as_syntax(stored(film), uid.JPEGLSLossless),
    "JPEG 2000": lambda film, _: as_syntax(stored(film), uid.JPEG2000Lossless),
    "MONOCHROME1": lambda film, _: stored(film, monochrome1=True),
    "PNG, 16 bits": lambda film, _: cv2.imencode(".png", pydicom.dcmread(BytesIO(stored(film))).pixel_array)[
        1
    ].tobytes(),
    "8 bits": lambda film, _: to_dicom(film, bits=8),
    "exposure × 0.25": lambda film, _: stored(film, 0.25),
    "exposure × 0.5": lambda film, _: stored(film, 0.5),
    "exposure × 2": lambda film, _: stored(film, 2.0),
    "JPEG, quality 30": lambda film, _: as_jpeg(film, 30),
    "noise, 3 % of the range": lambda film, rng: stored(noisy(film, rng)),
    "black border, 10 % all round": lambda film, _: stored(bordered(film, (0.1, 0.1, 0.1, 0.1), 0)),
    "white border, 40 % at the left": lambda film, _: stored(bordered(film, (0, 0, 0.4, 0), 1)),
    "grey border, 40 % at the right": lambda film, _: stored(bordered(film, (0, 0, 0, 0.4), 0.4)),
    "noisy border, 20 % at the left": lambda film, rng: stored(noisy(bordered(film, (0, 0, 0.2, 0), 0.1), rng)),
}


def answered(data: bytes, service: KneeOA) -> Knees:
    knees = service.grade(data).message["knees"]
    return [(knee["knee"], knee["status"], knee["grades"] and knee["grades"]["KL"]["grade"]) for knee in knees]


def measured(films: list[Film], seed: int, service: KneeOA) -> dict[str, list[bool]]:
    """Whether KL changed, of each knee, by variant.

    Raises
    ------
    AssertionError
        Where a side or the number of graded knees did.
    """
    plain = [answered(stored(film), service) for film in tqdm(films, unit="film", disable=None)]
    changed: dict[str, list[bool]] = {}
    for name, variant in VARIANTS.items():
        rng = np.random.default_rng(seed)
        for at, (film, before) in enumerate(zip(films, plain, strict=True)):
            after = answered(variant(film, rng), service)
            assert [k[:2] for k in after] == [k[:2] for k in before], f"{name}, film {at}: {before} became {after}"
            changed.setdefault(name, []).extend(
                a[2] != b[2] for a, b in zip(after, before, strict=True) if b[1] == "graded"
            )
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder in the form of the public KL set; phantoms without it")
    parser.add_argument("--films", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    service = KneeOA()
    composed = (
        composed_films(given.data, given.films, given.seed, service.detector)
        if given.data
        else phantom_films(given.films, given.seed)
    )
    changed = measured([each.film for each in composed], given.seed, service)
    grader, detector = (node.identity["sha256"][:12] for node in (service.grader, service.detector))
    print(f"grader {grader}, detector {detector}, seed {given.seed}")
    print("| changed | knees | KL changed |\n|---|---|---|")
    for name, knees in changed.items():
        print(f"| {name} | {len(knees)} | {np.mean(knees):.1%} |")


if __name__ == "__main__":
    main()
