"""Any data set as a CSV table: path, side, any subset of the eight labels; optionally subject, visit, kind and split."""

from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from kneeoa.tasks import OA_FROM_KL, TASKS, Laterality
from training.data.manifest import as_manifest
from training.data.schema import KINDS, LABELS, SPLITS, ManifestError

_SIDES = (Laterality.RIGHT.value, Laterality.LEFT.value)
_OPTIONAL = ("subject", "visit", "kind", "split")


def read_table(
    path: Path,
    cohort: str = "TABLE",
    kind: str = "crop",
    visit: str = "",
    rename: Mapping[str, str] | None = None,
    ignore: Collection[str] = (),
) -> pd.DataFrame:
    """Manifest of a comma-separated table; images are sought relative to its folder. Labels may be in either case.

    Without ``subject`` every image counts as its own subject: give the column wherever a person has several.

    Parameters
    ----------
    path : Path
    cohort, kind, visit : str
        For all rows; the columns ``kind`` and ``visit`` go first.
    rename : mapping, optional
        The table's names of our columns.
    ignore : collection of str
        Columns that are no part of a manifest.

    Raises
    ------
    ManifestError
        Names every fault by column and by line, the header being line 1.
    """
    try:  # blank lines are kept, so that the lines we name are those an editor shows
        table = pd.read_csv(path, dtype=str, skip_blank_lines=False, skipinitialspace=True)
    except (OSError, ValueError) as error:  # pandas' parser errors are ValueErrors
        raise ManifestError(f"cannot read {Path(path).name} as a comma-separated table") from error
    table = table.drop(columns=[name for name in table if name in ignore]).rename(columns=dict(rename or {}))
    table.columns = [name.upper() if name.upper() in LABELS else name.lower() for name in table.columns.str.strip()]
    faults = _name_faults(table)
    if not faults:
        defaults = {"subject": table["path"], "visit": visit, "kind": kind}
        table = table.assign(cohort=cohort, **{name: fill for name, fill in defaults.items() if name not in table})
        table["side"] = table["side"].str.strip().str.upper()
        table["visit"] = table["visit"].fillna(visit)
        faults = _cell_faults(table)
    if faults:
        raise ManifestError("\n".join([f"{Path(path).name} cannot be used:", *faults]))
    return as_manifest(table)


def _name_faults(table: pd.DataFrame) -> list[str]:
    known = ["path", "side", *LABELS, *_OPTIONAL]
    faults = [f"the column {name} is missing" for name in ("path", "side") if name not in table]
    faults += [f"unknown column {name}; known are {', '.join(known)}" for name in table if name not in known]
    faults += [f"the column {name} is there twice" for name in table.columns[table.columns.duplicated()]]
    if not set(LABELS) & set(table):
        faults.append(f"no label: give at least one of {', '.join(LABELS)}")
    return faults


def _cell_faults(table: pd.DataFrame) -> list[str]:
    """Turns the labels into numbers on the way."""
    faults = [(table[name].isna(), name, "is empty") for name in ("path", "subject")]
    for name, allowed in (("side", _SIDES), ("kind", KINDS), ("split", SPLITS)):
        if name in table:
            faults.append((~table[name].isin(allowed), name, f"must be one of {', '.join(allowed)}"))
    for task in TASKS:
        if task.name in table:
            number = pd.to_numeric(table[task.name], errors="coerce").astype("Float64")
            bad = table[task.name].notna() & ~number.isin(range(task.grades))
            faults.append((bad, task.name, f"must be 0 … {task.grades - 1}, or empty where unknown"))
            table[task.name] = number.mask(bad)
    if {"KL", "OA"} <= set(table):
        bad = (table["OA"] != (table["KL"] >= OA_FROM_KL).astype("Float64")).fillna(False)
        faults.append((bad, "OA", f"must be 1 where KL ≥ {OA_FROM_KL}, else 0"))
    return [f"column {name}, {_lines(bad)}: {what}" for bad, name, what in faults if bad.any()]


def _lines(bad: pd.Series) -> str:
    lines = [str(i + 2) for i in bad.index[bad.astype(bool)]]
    return f"line {', '.join(lines[:5])}" + (f", … ({len(lines)} in all)" if len(lines) > 5 else "")
