"""Writes a manifest: python -m training manifest {oai,most,oai-most,knee-kl,table} FOLDER --out manifest.parquet.

Paths in it are relative to FOLDER (for ``table``: to the CSV's folder).
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from training.data.knee_kl import knee_kl_manifest
from training.data.manifest import check, write_manifest
from training.data.most import read_most
from training.data.oai import read_oai
from training.data.schema import LABELS, SPLITS, ManifestError
from training.data.splits import across_cohorts, by_subject, per_knee, split_hash
from training.data.table import read_table

DATA_SETS = ("oai", "most", "oai-most", "knee-kl", "table")
SPLIT_METHODS = ("by-subject", "per-knee", "across-cohorts", "as-given")


def read(data_set: str, folder: Path, visits: list[str] | None = None) -> tuple[pd.DataFrame, Path]:
    """The manifest, not yet split or checked, and the folder that its paths start from."""
    if data_set == "table":
        return read_table(folder), folder.parent
    if data_set == "knee-kl":
        return knee_kl_manifest(folder), folder
    readers = {"oai": read_oai, "most": read_most}
    # OAI's visits have two digits and MOST's one, so that one list serves both
    parts = [
        readers[name](folder, [visit for visit in visits or () if len(visit) == digits] or None)
        for name, digits in (("oai", 3), ("most", 2))
        if name in data_set.split("-")
    ]
    frame = pd.concat(parts, ignore_index=True)
    frame.attrs["dropped"] = {
        why: sum(part.attrs["dropped"][why] for part in parts) for why in parts[0].attrs["dropped"]
    }
    return frame, folder


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
    sizes = frame["split"].value_counts()
    lines = [
        f"knees     {len(frame)}",
        f"subjects  {len(frame[['cohort', 'subject']].drop_duplicates())}",
        "labelled  " + "  ".join(f"{label} {frame[label].notna().sum()}" for label in LABELS),
        "split     " + "  ".join(f"{part} {sizes.get(part, 0)}" for part in SPLITS),
        f"hash      {split_hash(frame)}",
    ]
    if dropped := frame.attrs.get("dropped"):
        lines.append("left out  " + "  ".join(f"{why} {number}" for why, number in dropped.items()))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("folder", type=Path, help="the data set's folder; for table, the CSV file")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--split", choices=SPLIT_METHODS, help="default: as given, else by subject")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--visits", nargs="+", help="only these, e.g. V00 V01 (OAI) or V0 (MOST)")
    parser.add_argument("--quick", action="store_true", help="do not decode the images, only look that they are there")
    given = parser.parse_args(arguments)
    try:
        frame, root = read(given.data_set, given.folder, given.visits)
        dropped = frame.attrs.get("dropped")
        frame = split(frame, given.split, given.seed)
        check(frame, root, decode=not given.quick)
    except ManifestError as error:
        sys.exit(f"error: {error}")
    if dropped:
        frame.attrs["dropped"] = dropped
    write_manifest(frame, given.out)
    print(summary(frame))


if __name__ == "__main__":
    main()
