"""The manifest: a table with one row per knee radiograph, checked before any training starts.

Columns: ``cohort``, ``subject``, ``side`` (R, L), ``visit``, ``path`` (below a root folder, so that the manifest can
move), ``kind`` (film: bilateral; crop: one joint), ``view`` and ``site`` ("" where unknown), the eight tasks (Int8, NA where
unknown), optionally ``split``.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from kneeoa.tasks import OA_FROM_KL, TASKS, Laterality
from training.data.schema import COLUMNS, KINDS, KNEE, LABELS, SCHEMA_VERSION, SPLITS, ManifestError, rows
from training.data.splits import PER_KNEE, leaks, split_hash
from training.data.stored import why_unreadable

_META = b"kneeoa_manifest"
_SIDES = (Laterality.RIGHT.value, Laterality.LEFT.value)


def as_manifest(knees: pd.DataFrame) -> pd.DataFrame:
    """Order the columns, add absent labels as NA and derive OA wherever KL is known; the rows' order is kept."""
    frame = knees.reset_index(drop=True)
    for name in ("view", "site"):
        frame[name] = frame[name].fillna("") if name in frame else ""
    for label in LABELS:
        known = frame[label] if label in frame else pd.Series(pd.NA, index=frame.index)
        frame[label] = known.astype("Int8")
    frame["OA"] = (frame["KL"] >= OA_FROM_KL).astype("Int8").fillna(frame["OA"])
    return frame[[*COLUMNS, *(["split"] if "split" in frame else [])]]


def check(frame: pd.DataFrame, root: Path, decode: bool = False) -> None:
    """Raise one ManifestError that lists every fault: its column, the first rows by index, and what would be right.

    Parameters
    ----------
    frame : DataFrame
        With ``split``, nobody may be in two parts unless the split was made per knee.
    root : Path
        Folder that ``path`` is relative to.
    decode : bool
        Decode every image as serving does (about 0.2 s a film), instead of only looking that the file is there.
    """
    faults = list(_column_faults(frame))
    if not faults:
        faults = [*_value_faults(frame), *_split_faults(frame), *_file_faults(frame, root, decode)]
    if faults:
        raise ManifestError("\n".join(["the manifest cannot be used:", *faults]))


def write_manifest(frame: pd.DataFrame, path: Path) -> None:
    """Parquet, with the schema version and, for a split manifest, the split's method, seed and hash in its metadata."""
    meta: dict = {"schema": SCHEMA_VERSION}
    if "split" in frame:
        made = frame.attrs.get("split", {"method": "as-given", "seed": None})
        meta["split"] = {**made, "hash": split_hash(frame)}
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, _META: json.dumps(meta).encode()}), path)


def read_manifest(path: Path) -> pd.DataFrame:
    """What `write_manifest` wrote; ``attrs["split"]`` holds the split's method, seed and hash.

    Raises
    ------
    ManifestError
        Not a manifest, of another schema version, or its split is not the one that was hashed.
    """
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ManifestError(f"cannot read {Path(path).name}: write it with python -m training manifest") from error
    meta = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
    if meta.get("schema") != SCHEMA_VERSION:
        raise ManifestError(f"{Path(path).name} is not a manifest of schema {SCHEMA_VERSION}: make it again")
    frame = table.to_pandas()
    if "split" in meta:
        if split_hash(frame) != meta["split"]["hash"]:
            raise ManifestError(f"{Path(path).name}: the split is not the one that was saved; make the manifest again")
        frame.attrs["split"] = meta["split"]
    return frame


def _column_faults(frame: pd.DataFrame) -> Iterator[str]:
    if missing := [name for name in COLUMNS if name not in frame]:
        yield f"columns are missing: {', '.join(missing)}"
    if unknown := [str(name) for name in frame if name not in [*COLUMNS, "split"]]:
        yield f"unknown columns: {', '.join(unknown)}; known are {', '.join(COLUMNS)}, split"


def _value_faults(frame: pd.DataFrame) -> Iterator[str]:
    if frame.empty:
        yield "it has no rows"
    for name in ("cohort", "subject", "path"):
        if (bad := frame[name].isna() | (frame[name] == "")).any():
            yield f"{name} is empty: {rows(bad)}"
    for name, allowed in (("side", _SIDES), ("kind", KINDS)):
        if (bad := ~frame[name].isin(allowed)).any():
            yield f"unknown {name}: {rows(bad)}; use {' or '.join(allowed)}"
    for task in TASKS:
        given = frame[task.name]
        if (bad := given.notna() & ~pd.to_numeric(given, errors="coerce").isin(range(task.grades))).any():
            yield f"{task.name} is off its scale: {rows(bad)}; use 0 … {task.grades - 1} or leave it empty"
    kl, oa = (pd.to_numeric(frame[name], errors="coerce").astype("Float64") for name in ("KL", "OA"))
    if (bad := (oa != (kl >= OA_FROM_KL).astype("Float64")).fillna(kl.notna())).any():
        yield f"OA does not follow from KL: {rows(bad)}; it is 1 for KL ≥ {OA_FROM_KL}, else 0"
    if (bad := frame.duplicated(KNEE, keep=False)).any():
        yield f"a knee is there twice: {rows(bad)}; {', '.join(KNEE)} must be unique together"
    if (bad := frame["kind"].eq("crop") & frame.duplicated("path", keep=False)).any():
        yield f"several knees share one crop: {rows(bad)}; a crop shows one knee"


def _split_faults(frame: pd.DataFrame) -> Iterator[str]:
    if "split" not in frame:
        return
    if (bad := ~frame["split"].isin(SPLITS)).any():
        yield f"unknown split: {rows(bad)}; use {', '.join(SPLITS)}"
    elif frame.attrs.get("split", {}).get("method") != PER_KNEE and (bad := leaks(frame)).any():
        yield f"a subject is in two splits: {rows(bad)}; split by subject"


def _file_faults(frame: pd.DataFrame, root: Path, decode: bool) -> Iterator[str]:
    paths = frame["path"].fillna("").astype(str)
    found = {path: _file_fault(Path(root) / path, decode) for path in paths.unique() if path}
    fault = paths.map(found)
    for what in sorted({text for text in found.values() if text}):
        yield f"{what}: {rows(fault == what)}"


def _file_fault(path: Path, decode: bool) -> str | None:
    try:
        with path.open("rb") as file:
            if not file.read(1):
                return "the file is empty"
    except OSError:
        return "the file is missing or cannot be opened"
    code = why_unreadable(path)[0] if decode else ""
    return f"the image cannot be read ({code})" if code else None
