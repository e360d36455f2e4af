"""Cuts the knees of a manifest's films out as crops: a folder in the form of the public KL set, which all training reads.

Knees are found and films prepared by the serving code. A knee that is not found is left out and counted by reason; its row
in the manifest is listed in ``left_out.csv``. A second call goes on where the first one stopped.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import pandas as pd
import torch
from tqdm import tqdm

from kneeoa.detection.detector import Detector
from kneeoa.errors import KneeOaError
from kneeoa.geometry import Box, crop
from kneeoa.imaging import decode
from kneeoa.imaging.prepare import correct_polarity, inverted, to_8bit
from kneeoa.pipeline import WEIGHTS
from training.data.manifest import check, read_manifest
from training.data.schema import KNEE, LABELS, ManifestError

MARGIN = 1.27  # side of a crop in units of W, as in the public set
SIDE = 512  # px; films of finer pixels are reduced to it, which is still twice what a patch of 128 shows


@dataclass(frozen=True)
class Wanted:
    """A knee of a film: its side, and the crop's file."""

    side: str
    target: Path


@cache
def _detector(weights: Path) -> Detector:
    torch.set_num_threads(1)  # one process a core
    return Detector.from_file(weights)


def cut_film(film: Path, kind: str, wanted: Sequence[Wanted], weights: Path) -> list[str]:
    """Write the crops of one file's knees; returns for each why it could not be, empty where it was."""
    if all(each.target.exists() for each in wanted):
        return [""] * len(wanted)
    try:
        radiograph = decode(film.read_bytes())
        facts, knees = ({"polarity": ""}, []) if kind == "crop" else _detector(weights).detect(radiograph)
    except KneeOaError as error:
        return [error.code] * len(wanted)
    pixels = correct_polarity(radiograph.pixels, radiograph.polarity)[0]
    if facts["polarity"] == "inverted_to_find_knees":
        pixels = inverted(pixels)
    found = {knee.side.value: knee for knee in knees}
    reasons = []
    for each in wanted:
        height, width = pixels.shape
        area, mirrored = Box(0, 0, width, height), False
        if kind == "film":
            knee = found.get(each.side)
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
        cv2.imwrite(str(each.target), image)
        reasons.append("")
    return reasons


def crop_name(row: pd.Series) -> str:
    """Says nothing about the person; the same for the same knee."""
    return hashlib.sha256("|".join(str(row[name]) for name in KNEE).encode()).hexdigest()[:20] + ".png"


def cut(frame: pd.DataFrame, root: Path, out: Path, weights: Path, workers: int | None = None) -> pd.Series:
    """Cut all knees of a manifest and write ``labels.csv`` and ``left_out.csv``; returns the reasons by row, or empty."""
    out.mkdir(parents=True, exist_ok=True)
    files = frame.apply(crop_name, axis=1)
    jobs = [
        (root / path, rows["kind"].iloc[0], [Wanted(rows["side"][i], out / files[i]) for i in rows.index], rows.index)
        for path, rows in frame.groupby("path", sort=False)
    ]
    reasons = pd.Series("", index=frame.index)
    with ProcessPoolExecutor(workers) as pool:
        answers = pool.map(cut_film, *zip(*(job[:3] for job in jobs), strict=True), [weights] * len(jobs), chunksize=4)
        for (*_, rows), answer in zip(jobs, tqdm(answers, total=len(jobs), unit="film", disable=None), strict=True):
            reasons[rows] = answer
    kept = frame.assign(file=files)[reasons == ""]
    extra = ["split"] if "split" in frame else []
    kept[["file", *KNEE, *extra, *LABELS]].to_csv(out / "labels.csv", index=False)
    reasons[reasons != ""].rename("reason").to_csv(out / "left_out.csv", index_label="manifest_row")
    return reasons


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
    reasons = cut(frame, given.data, given.out, given.detector, given.workers)
    left_out = Counter(reasons[reasons != ""])
    print(f"{given.out / 'labels.csv'}: {len(reasons) - left_out.total()} of {len(reasons)} knees")
    for reason, number in left_out.most_common():
        print(f"left out, {reason}: {number}")


if __name__ == "__main__":
    main()
