"""MOST as released: the wide table MOSTV01235XRAY (one row a subject) and the image folders.

Columns are V<visit>X<side><feature>, e.g. V0XRKL or V3XLOSFM, for visits 0, 1, 2, 3 and 5 (0, 15, 30, 60 and 84 months).
Films lie in ``<MOSTID>_xxxx/V0/…/PA10/<file>``; PA05 and PA15 are the same knees under another beam angle.
"""

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from kneeoa.tasks import TASKS, Laterality
from training.data.readings import codes, files_below, find_tables, grades, link, read_table
from training.data.schema import ManifestError, rows

_FEATURES = {"KL": "KL", "JSN_L": "JSL", "JSN_M": "JSM", "FL": "OSFL", "FM": "OSFM", "TL": "OSTL", "TM": "OSTM"}
_SIDES = (Laterality.RIGHT.value, Laterality.LEFT.value)  # the table spells the side as we do
_FILM = re.compile(
    r"(?:.*/)?(?P<subject>M[A-Z]\d{5})(?:_[^/]*)?/(?:.*/)?(?P<visit>V\d)/(?:.*/)?PA10/[^/]+", re.IGNORECASE
)


def read_most(root: Path, visits: Collection[str] | None = None) -> pd.DataFrame:
    """Manifest of all knees that have a grade and a PA10 film.

    Parameters
    ----------
    root : Path
        Holds the table and the films, in any arrangement above the parts named at the top.
    visits : collection of str, optional
        V0, V1, V2, V3, V5; default: every visit that the table has a KL column for.

    Raises
    ------
    ManifestError
        Names what is missing: the table, columns, or the films of a visit.
    """
    paths = list(files_below(root))
    tables = find_tables(paths, r"(mostv[0-9]+xray)", "MOSTV01235XRAY")
    path = list(tables.values())[-1]
    table = read_table(root, path, ["MOSTID"])
    known = sorted({name[:2] for name in table if re.fullmatch(r"V\dX[RL]KL", name)})
    if not known or (visits and set(visits) - set(known)):
        raise ManifestError(f"{path}: expected KL columns as V0XRKL for {', '.join(visits or ['V0'])}; it has {known}")
    subject = codes(table["MOSTID"]).str.upper()
    if (bad := subject.eq("") | subject.duplicated(keep=False)).any():
        raise ManifestError(f"{path}: MOSTID is empty or there twice in {rows(bad)}; the table has one row a subject")
    wanted = visits or known
    readings = [_readings(table, subject, visit, side) for visit in known if visit in wanted for side in _SIDES]
    films = [(m["subject"].upper(), m["visit"].upper(), "", m[0]) for m in map(_FILM.fullmatch, paths) if m]
    frame = pd.DataFrame(films, columns=["subject", "visit", "barcode", "path"])
    return link(pd.concat(readings, ignore_index=True), frame[frame["visit"].isin(wanted)], "MOST", root)


def _readings(table: pd.DataFrame, subject: pd.Series, visit: str, side: str) -> pd.DataFrame:
    knees = pd.DataFrame({"subject": subject, "side": side, "visit": visit, "barcode": ""})
    for task in TASKS:
        column = f"{visit}X{side}{_FEATURES.get(task.name)}"
        knees[task.name] = grades(table[column], task) if column in table else pd.Series(pd.NA, table.index, "Int8")
    return knees
