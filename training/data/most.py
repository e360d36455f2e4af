"""MOST as released: the wide table MOSTV01235XRAY (one row a subject) and the image folders.

Columns are V<visit>X<side><feature>, e.g. V0XRKL or V3XLOSFM, for visits 0, 1, 2, 3 and 5 (0, 15, 30, 60 and 84 months).
Films lie in ``M2320_HNSH/V0/14608/PA15/146082``: the MOSTID, the visit, and the beam's angle, of which most visits have one.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from kneeoa.tasks import TASKS, Laterality
from training.data.implants import empty, most_implants
from training.data.linking import FILM, Release, link, note, placed
from training.data.readings import codes, files_below, find_tables, grades, prosthetic, read_table
from training.data.schema import ManifestError
from training.data.stored import read_headers

VIEWS = ("PA10", "PA05", "PA15")  # by preference
KL_19 = {"1": "1", "2": "2", "drop": ""}  # what 1.9, KL 2 by osteophytes that are doubtful, is taken for
_FEATURES = {"KL": "KL", "JSN_L": "JSL", "JSN_M": "JSM", "FL": "OSFL", "FM": "OSFM", "TL": "OSTL", "TM": "OSTM"}
_SIDES = (Laterality.RIGHT.value, Laterality.LEFT.value)  # the table spells the side as we do
_FILM = re.compile(
    r"(?:.*/)?(?P<subject>M\d{4})(?:_[^/]*)?/(?:.*/)?(?P<visit>V\d)/(?:.*/)?(?P<view>PA\d\d)/(?:.*/)?[^/]+",
    re.IGNORECASE,
)


def read_most(
    root: Path,
    visits: Collection[str] | None = None,
    views: Sequence[str] = VIEWS,
    kl_19: str = "2",
    headers: bool = True,
) -> Release:
    """All knees that have a grade and a film, and why the others are left out.

    Parameters
    ----------
    root : Path
        Holds the table and the films, in any arrangement above the parts named at the top.
    visits : collection of str, optional
        V0, V1, V2, V3, V5; default: every visit that the table has a KL column for and that has films.
    views : sequence of str
        The beam angles to use, by preference: the first that a visit has is taken.
    kl_19 : str
        A key of `KL_19`.
    headers : bool
        Look whether the files are films.

    Raises
    ------
    ManifestError
        Names what is missing: the table, columns, or the films of a visit.
    """
    paths, notes = list(files_below(root)), list[str]()
    tables = find_tables(root, paths, r"(mostv[0-9]+xray)")
    if not tables:
        raise ManifestError(
            "no reading table below the folder: expected MOSTV01235XRAY, as .txt, .csv, .sas7bdat or .xpt"
        )
    path = list(tables.values())[-1]
    table = read_table(root, path, ["MOSTID"])
    known = sorted({name[:2] for name in table if re.fullmatch(r"V\dX[RL]KL", name)})
    if not known or (visits and set(visits) - set(known)):
        raise ManifestError(
            f"{path}: expected KL columns such as V0XRKL for {', '.join(visits or ['V0'])}; it has {known}"
        )
    subject = codes(table["MOSTID"]).str.upper()
    note(notes, f"rows of {path} without a MOSTID", int(subject.eq("").sum()))
    table, subject = table[subject != ""], subject[subject != ""]
    wanted = set(visits or known)
    parts = [_readings(table, subject, visit, side, kl_19) for visit in sorted(wanted) for side in _SIDES]
    readings = pd.concat(parts, ignore_index=True)
    since = pd.MultiIndex.from_frame(readings[["subject", "side"]]).map(most_implants(root, paths, notes))
    readings["implant"] |= readings["visit"].str[1:].astype(int) >= pd.Series(since, readings.index, dtype=float)
    films, unread = _films(root, paths, wanted, views, headers, notes)
    return link(readings, films, "MOST", root, notes, unread, asked=bool(visits))


def _films(
    root: Path, paths: Sequence[str], visits: set[str], views: Sequence[str], headers: bool, notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Each visit's films of the view that comes first, and what lies where films do and is none."""
    matches = [m for m in map(_FILM.fullmatch, paths) if m]
    found = placed(root, [(m["subject"].upper(), m["visit"].upper(), m["view"].upper(), m[0]) for m in matches], visits)
    from_visit = {m[0]: m.start("visit") for m in matches}
    read = read_headers(root, found["path"]) if headers else {}
    bad = pd.Series(
        [read[path] is None for path in found["path"]] if headers else found["size"] == 0, found.index, bool
    )
    films = found[~bad & found["view"].isin(views)]
    note(notes, f"films of other views than {', '.join(views)}", int((~bad & ~found["view"].isin(views)).sum()))
    rank = films["view"].map({view: i for i, view in enumerate(views)})
    films = films[rank == rank.groupby([films["subject"], films["visit"]]).transform("min")]
    # A film has no barcode here; copies of it lie alike in two bundles.
    films = films.assign(barcode=[path[from_visit[path] :] for path in films["path"]])[FILM]
    films = films if headers else films.drop_duplicates(["subject", "visit"])
    return films, found[bad & found["view"].isin(views)]


def _readings(table: pd.DataFrame, subject: pd.Series, visit: str, side: str, kl_19: str) -> pd.DataFrame:
    knees = pd.DataFrame(
        {"subject": subject, "side": side, "visit": visit, "barcode": "", "site": "", "implant": False}
    )
    for task in TASKS:
        cells = codes(table.get(f"{visit}X{side}{_FEATURES.get(task.name)}", empty(table)))
        knees["implant"] |= prosthetic(cells)
        knees[task.name] = grades(cells.replace({"1.9": KL_19[kl_19]}) if task.name == "KL" else cells, task)
    return knees
