"""Writes a manifest: python -m training manifest {oai,most,oai-most,knee-kl,table} FOLDER --out manifest.parquet.

Paths in it are relative to FOLDER (for ``table``: to the CSV's folder). What is left out is listed beside it, in
manifest.left_out.csv. Every film is decoded, which takes long; a second call goes on where the first one stopped. See
docs/cohorts.md.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from training.data.knee_kl import knee_kl_manifest
from training.data.linking import LEFT_OUT, Release, together, without
from training.data.manifest import check, write_manifest
from training.data.most import KL_19, VIEWS, read_most
from training.data.oai import PROJECTS, read_oai
from training.data.resumed import resumed, stamp
from training.data.schema import LABELS, SPLITS, ManifestError
from training.data.splits import across_cohorts, by_subject, per_knee, split_hash
from training.data.stored import why_unreadable
from training.data.table import read_table

DATA_SETS = ("oai", "most", "oai-most", "knee-kl", "table")
SPLIT_METHODS = ("by-subject", "per-knee", "across-cohorts", "as-given")


def read(
    data_set: str,
    folder: Path,
    visits: Sequence[str] | None = None,
    projects: Sequence[str] = PROJECTS,
    views: Sequence[str] = VIEWS,
    kl_19: str = "2",
    headers: bool = True,
) -> tuple[Release, Path]:
    """The manifest, not yet split or checked, with what is left out; and the folder that its paths start from."""
    none = pd.DataFrame(columns=LEFT_OUT)
    if data_set == "table":
        return Release(read_table(folder), none), folder.parent
    if data_set == "knee-kl":
        return Release(knee_kl_manifest(folder), none), folder
    parts, named = [], [visit.upper() for visit in visits or ()]
    # OAI's visits have two digits and MOST's one, so that one list serves both
    if "oai" in data_set.split("-"):
        parts.append(read_oai(folder, [v for v in named if len(v) == 3] or None, projects, headers))
    if "most" in data_set.split("-"):
        parts.append(read_most(folder, [v for v in named if len(v) == 2] or None, views, kl_19, headers))
    knees, left_out = (together([getattr(part, name) for part in parts]) for name in ("knees", "left_out"))
    return Release(knees, left_out, [text for part in parts for text in part.notes]), folder


def decoded(release: Release, root: Path, journal: Path, workers: int | None = None) -> Release:
    """The release without the knees whose films cannot be read; what is missing altogether is left to `check`."""
    paths = [path for path in release.knees["path"].dropna().unique() if (root / path).exists()]
    jobs = {f"{path} {stamp(root / path)}": (root / path,) for path in paths}
    answers = resumed(why_unreadable, jobs, journal, workers)
    found = {path: answers[key] for key, path in zip(jobs, paths, strict=True)}
    faults = release.knees["path"].map(lambda path: found.get(path, ("", ""))[0])
    mended = pd.Series([repair for _, repair in found.values() if repair], dtype=str).value_counts()
    done = without(release, faults.where(faults == "", "unreadable film (" + faults + ")"))
    done.notes.extend(f"films read although their header is wanting ({repair}): {n}" for repair, n in mended.items())
    return done


def split(frame: pd.DataFrame, method: str | None, seed: int) -> pd.DataFrame:
    """Split as asked; where nothing is asked, keep the given split, else split by subject."""
    if method == "as-given" and "split" not in frame:
        raise ManifestError("there is no split to keep: give a split column, or choose --split by-subject")
    if method == "as-given" or (method is None and "split" in frame):
        return frame
    if method == "across-cohorts":
        return across_cohorts(frame, seed=seed)
    return per_knee(frame, seed) if method == "per-knee" else by_subject(frame, seed)


def summary(frame: pd.DataFrame) -> str:
    """Counts only, no subject and no path."""
    lines = [
        f"knees     {len(frame)}",
        f"subjects  {len(frame[['cohort', 'subject']].drop_duplicates())}",
        "labelled  " + "  ".join(f"{label} {frame[label].notna().sum()}" for label in LABELS),
    ]
    for name, column in (("visits", "visit"), ("views", "view"), ("sites", "site")):
        if frame[column].ne("").any():
            sizes = frame.groupby([frame["cohort"], frame[column].replace("", "unknown")]).size()
            shown = (f"{cohort} {value} {number}" for (cohort, value), number in sizes.items())
            lines.append(f"{name:<10}" + "  ".join(shown))
    if "split" in frame:
        sizes = frame["split"].value_counts()
        lines.append("split     " + "  ".join(f"{part} {sizes.get(part, 0)}" for part in SPLITS))
        lines.append(f"hash      {split_hash(frame)}")
    return "\n".join(lines)


def told(release: Release, where: str = "") -> str:
    """What was noticed, a line each, and in the last line why knees were left out."""
    lines = [f"note      {text}" for text in release.notes]
    reasons = release.left_out["reason"].value_counts()
    why = ", ".join(f"{reason} {number}" for reason, number in reasons.items())
    return "\n".join([*lines, f"left out  {len(release.left_out)}" + (f": {why}{where}" if why else "")])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("folder", type=Path, help="the data set's folder; for table, the CSV file")
    parser.add_argument("--out", type=Path, help="the manifest, Parquet")
    parser.add_argument("--split", choices=SPLIT_METHODS, help="default: as given, else by subject")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--visits", nargs="+", help="only these, e.g. V00 V01 (OAI) or V0 (MOST); default: all with films"
    )
    parser.add_argument("--projects", nargs="+", default=PROJECTS, help="OAI's reading projects, by preference")
    parser.add_argument("--views", nargs="+", default=VIEWS, help="MOST's beam angles to use, by preference")
    parser.add_argument("--kl-19", choices=KL_19, default="2", help="what MOST's KL 1.9 is taken for")
    parser.add_argument("--quick", action="store_true", help="do not decode the images, only look that they are there")
    parser.add_argument(
        "--check", action="store_true", help="only read tables and list folders, and say what would be used"
    )
    parser.add_argument("--workers", type=int, help="processes; one a core by default")
    given = parser.parse_args(arguments)
    if not (given.out or given.check):
        parser.error("--out: say where to write the manifest")
    options = given.visits, given.projects, given.views, given.kl_19, not given.check
    try:
        release, root = read(given.data_set, given.folder, *options)
        if given.check:
            print(f"{summary(release.knees)}\n{told(release)}\nnothing was written: --check looks into no film")
            return
        given.out.parent.mkdir(parents=True, exist_ok=True)
        if not given.quick:
            release = decoded(release, root, given.out.with_suffix(".decoded"), given.workers)
        frame = split(release.knees, given.split, given.seed)
        check(frame, root)
    except ManifestError as error:
        sys.exit(f"error: {error}")
    left_out = given.out.with_suffix(".left_out.csv")
    release.left_out.to_csv(left_out, index=False)
    write_manifest(frame, given.out)
    print(summary(frame))
    print(told(release, f" ({left_out})"))


if __name__ == "__main__":
    main()
