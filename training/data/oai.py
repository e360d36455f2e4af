"""OAI as released: the reading tables ``kxr_sq_bu<visit>`` and the image folders.

Films lie in ``00m/0.C.2/<subject>/<date>/<series>/001``: months of the visit (on some disks only the release, whose first
number is the visit), subject 9xxxxxx, series 0xxxxxxx for X-rays. The header tells the view and, as AccessionNumber, the
barcode that the tables repeat as BARCDBU.
"""

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd
import pydicom

from kneeoa.imaging.quiet import quiet
from kneeoa.tasks import TASKS, Laterality
from training.data.readings import codes, files_below, find_tables, grades, link, read_table
from training.data.schema import KNEE, LABELS, ManifestError, rows

_COLUMNS = {
    "KL": "XRKL",
    "JSN_L": "XRJSL",
    "JSN_M": "XRJSM",
    "FL": "XROSFL",
    "FM": "XROSFM",
    "TL": "XROSTL",
    "TM": "XROSTM",
}
_SIDES = {"1": Laterality.RIGHT.value, "2": Laterality.LEFT.value}
_PROJECTS = {"15": 0, "37": 1, "42": 1}  # by preference; 42 is 37 miscoded (OAI's notes to the readings)
_VISITS = {0: "V00", 12: "V01", 18: "V02", 24: "V03", 30: "V04", 36: "V05", 48: "V06", 72: "V08", 96: "V10"}
_FILM = re.compile(r"(?:(?P<above>.*)/)?(?P<subject>9\d{6})/\d{8}/0\d{7}/[^/]+")
_MONTHS, _RELEASE = re.compile(r"(?<![^/_])(\d\d)m(?![^/])"), re.compile(r"(?<![^/])(\d+)\.[A-Z]\.\d+(?![^/])")
_GRADED = {"V00", "V01", "V03", "V05", "V06", "V08", "V10"}  # the other visits' films were not read
_TAGS = ("SeriesDescription", "AccessionNumber")
_VIEW = "bilateral pa fixed flexion knee"


def read_oai(root: Path, visits: Collection[str] | None = None) -> pd.DataFrame:
    """Manifest of all knees that have a grade and a film.

    A knee read in several projects keeps one reading, not a mixture: project 15, which read every OARSI feature, before
    37 and 42. A feature that a visit's table does not have is NA.

    Parameters
    ----------
    root : Path
        Holds tables and films, in any arrangement above the parts named at the top.
    visits : collection of str, optional
        V00, V01, V03, V05, V06, V08, V10; default: every visit that has a table.

    Raises
    ------
    ManifestError
        Names what is missing: tables, columns, the films of a visit, or which file cannot be read.
    """
    paths = list(files_below(root))
    expected = "kxr_sq_bu00 … kxr_sq_bu10 (OAI's X-Ray Image Assessments, Semi-Quant Scoring)"
    tables = {f"V{number}": path for number, path in find_tables(paths, r"kxr_sq_bu(\d\d)", expected).items()}
    placed = [(m[0], m["subject"], _visit(m["above"] or "")) for m in map(_FILM.fullmatch, paths) if m]
    if placed and not any(visit for _, _, visit in placed):
        raise ManifestError(
            f"OAI: the folders of {placed[0][0]} name no visit; expected 00m/0.C.2/<subject>/… or alike"
        )
    wanted = set(visits or {visit for _, _, visit in placed} & _GRADED | set(tables))
    if absent := sorted(wanted - set(tables)):
        raise ManifestError(f"OAI: no reading table for {', '.join(absent)}; there are tables for {', '.join(tables)}")
    readings = [_readings(root, path, visit) for visit, path in tables.items() if visit in wanted]
    films = _films(root, [film for film in placed if film[2] in wanted])
    return link(pd.concat(readings, ignore_index=True), films, "OAI", root)


def _readings(root: Path, path: str, visit: str) -> pd.DataFrame:
    table = read_table(root, path, ["ID", "SIDE", "READPRJ", f"{visit}XRKL"])
    knees = pd.DataFrame({"subject": codes(table["ID"]), "side": codes(table["SIDE"]).map(_SIDES), "visit": visit})
    knees["barcode"] = _barcode(codes(table.get(f"{visit}BARCDBU", pd.Series("", table.index))))
    for task in TASKS:
        column = f"{visit}{_COLUMNS.get(task.name)}"
        knees[task.name] = grades(table[column], task) if column in table else pd.Series(pd.NA, table.index, "Int8")
    preference = codes(table["READPRJ"]).map(_PROJECTS)
    for name, bad in (("ID", knees["subject"] == ""), ("SIDE", knees["side"].isna()), ("READPRJ", preference.isna())):
        if bad.any():
            raise ManifestError(f"{path}: unknown {name} in {rows(bad)}, counted from 0 below the header")
    knees = knees.assign(project=preference).sort_values("project", kind="stable")
    best = knees[knees["project"] == knees.groupby(KNEE[1:])["project"].transform("min")]
    return best.drop_duplicates([*KNEE[1:], *LABELS]).drop(columns="project")


def _films(root: Path, placed: Collection[tuple[str, str, str]]) -> pd.DataFrame:
    """Those X-rays that are bilateral PA fixed-flexion films: subject, visit, barcode and path."""
    films, unread = [], []
    for path, subject, visit in placed:
        try:
            with quiet():
                header = pydicom.dcmread(root / path, stop_before_pixels=True, specific_tags=list(_TAGS))
                view, barcode = (str(header.get(tag, "")).strip() for tag in _TAGS)
        except Exception:  # a damaged header may raise anything
            unread.append(path)
            continue
        if view.lower() == _VIEW:
            films.append((subject, visit, barcode, path))
    if unread:
        raise ManifestError(f"OAI: {len(unread)} X-ray files are not readable DICOM, the first is {unread[0]}")
    frame = pd.DataFrame(films, columns=["subject", "visit", "barcode", "path"])
    return frame.assign(barcode=_barcode(frame["barcode"]))


def _visit(folders: str) -> str | None:
    if months := _MONTHS.findall(folders):
        return _VISITS.get(int(months[-1]))
    releases = _RELEASE.findall(folders)
    return f"V{int(releases[-1]):02d}" if releases else None


def _barcode(cells: pd.Series) -> pd.Series:
    """Twelve digits, of which tables that took them for numbers have lost the leading 0."""
    return cells.astype("string").str.lstrip("0")
