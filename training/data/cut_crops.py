"""Cuts the knees of a manifest's films out as crops: a folder in the form of the public KL set, which all training reads.

Knees are found and films prepared by the serving code. A knee that is not found is left out; ``left_out.csv`` names it and
why. ``detection.md`` says how many were found by visit, view and site, and ``not_found.png`` shows those that were not. A second
call goes on where the first one stopped.
"""

import argparse
import hashlib
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import cv2
import pandas as pd
import torch

from kneeoa.detection.detector import Detector
from kneeoa.errors import KneeOaError
from kneeoa.geometry import Box, crop
from kneeoa.imaging.prepare import correct_polarity, inverted, to_8bit
from kneeoa.pipeline import WEIGHTS
from training.data.linking import LEFT_OUT, Release, without
from training.data.make_manifest import told
from training.data.manifest import check, read_manifest
from training.data.report_detection import write_detection
from training.data.resumed import resumed, stamp
from training.data.schema import KNEE, LABELS, ManifestError
from training.data.stored import read_film

MARGIN = 1.27  # side of a crop in units of W, as in the public set
SIDE = 512  # px; films of finer pixels are reduced to it, which is still twice what a patch of 128 shows

Answer = tuple[list[str], str, bool]  # why each knee could not be cut, empty where it was; what was mended; swapped


@cache
def _detector(weights: Path) -> Detector:
    torch.set_num_threads(1)  # one process a core
    return Detector.from_file(weights)


def cut_film(film: Path, kind: str, wanted: Sequence[tuple[str, Path]], weights: Path) -> Answer:
    """Write the crops of one file's knees, each a side and the crop's file."""
    try:
        radiograph, repair = read_film(film)
        facts, knees = ({"polarity": ""}, []) if kind == "crop" else _detector(weights).detect(radiograph)
    except KneeOaError as error:
        return [error.code] * len(wanted), "", False
    pixels = correct_polarity(radiograph.pixels, radiograph.polarity)[0]
    if facts["polarity"] == "inverted_to_find_knees":
        pixels = inverted(pixels)
    found = {knee.side.value: knee for knee in knees}
    reasons = []
    for side, target in wanted:
        height, width = pixels.shape
        area, mirrored = Box(0, 0, width, height), False
        if kind == "film":
            knee = found.get(side)
            if knee is None or knee.box is None or knee.key_points is None:
                reasons.append("side_unknown" if knee is None else knee.reason or "not_found")
                continue
            mirrored = knee.mirrored
            half = MARGIN / 2 * knee.key_points.width
            x, y = knee.key_points.knee_box().centre
            area = Box(x - half, y - half, x + half, y + half)
        image = to_8bit(crop(pixels, area)[:, :: -1 if mirrored else 1])
        if max(image.shape) > SIDE:
            scale = SIDE / max(image.shape)
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        part = target.with_suffix(f".{os.getpid()}.png")
        cv2.imwrite(str(part), image)
        part.replace(target)  # never half a crop, whenever it is cut off
        reasons.append("")
    return reasons, repair, kind == "film" and radiograph.rows_run_to_right


def crop_name(row: pd.Series) -> str:
    """Says nothing about the person; the same for the same knee."""
    return hashlib.sha256("|".join(str(row[name]) for name in KNEE).encode()).hexdigest()[:20] + ".png"


def cut(frame: pd.DataFrame, root: Path, out: Path, weights: Path, workers: int | None = None) -> Release:
    """Cut all knees of a manifest and write the folder's tables; returns the knees that were cut, and the others."""
    out.mkdir(parents=True, exist_ok=True)
    frame = frame.reset_index(drop=True)
    files, detector = frame.apply(crop_name, axis=1), hashlib.sha256(weights.read_bytes()).hexdigest()[:12]
    jobs, rows = {}, {}
    for path, knees in frame.groupby("path", sort=False):
        wanted = [(knees["side"][i], out / files[i]) for i in knees.index]
        key = f"{path} {stamp(root / path)} {detector} {' '.join(target.name for _, target in wanted)}"
        jobs[key], rows[key] = (root / path, knees["kind"].iloc[0], wanted, weights), knees.index
    answers = resumed(cut_film, jobs, out / "films.journal", workers)
    reasons, repairs, swapped = (pd.Series("", frame.index), pd.Series("", frame.index), pd.Series(False, frame.index))
    for key, (why, repair, turned) in answers.items():
        reasons[rows[key]], repairs[rows[key]], swapped[rows[key]] = why, repair, turned
    notes = [f"films read although their header is wanting ({what}): {n}" for what, n in _films(frame, repairs).items()]
    notes += [
        f"films whose rows run to the patient's right, listed in swapped.csv: {n}" for n in _films(frame, swapped)
    ]
    release = without(Release(frame.assign(file=files), pd.DataFrame(columns=LEFT_OUT), notes), reasons)
    extra = ["split"] if "split" in frame else []
    release.knees[["file", *KNEE, *extra, *LABELS]].to_csv(out / "labels.csv", index=False)
    release.left_out.to_csv(out / "left_out.csv", index=False)
    frame[swapped][["path", "subject", "visit"]].drop_duplicates().to_csv(out / "swapped.csv", index=False)
    if frame["kind"].eq("film").any():
        write_detection(out, frame.assign(reason=reasons), root)
    return release


def _films(frame: pd.DataFrame, fact: pd.Series) -> pd.Series:
    """How many films there are of each fact that is not empty."""
    return fact[~frame.duplicated("path") & fact.astype(bool)].value_counts()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder that the manifest's paths start from")
    parser.add_argument("--detector", type=Path, default=WEIGHTS / "detector.safetensors")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, help="processes; one a core by default")
    given = parser.parse_args(arguments)
    try:
        frame = read_manifest(given.manifest)
        check(frame, given.data)
    except ManifestError as error:
        parser.error(str(error))
    release = cut(frame, given.data, given.out, given.detector, given.workers)
    print(f"{given.out / 'labels.csv'}: {len(release.knees)} of {len(frame)} knees")
    print(told(release, f" ({given.out / 'left_out.csv'})"))


if __name__ == "__main__":
    main()
