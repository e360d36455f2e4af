"""OAI as released: the reading tables ``kxr_sq_bu<visit>`` (NDA: ``oai_kxrsemiquant01``) and the image folders.

Films lie in ``00m/0.C.2/<subject>/<date>/<series>/001``: months of the visit (on some disks only the release, whose first
number is the visit), subject 9xxxxxx, series 0xxxxxxx for X-rays. NDA packs each series as ``<series>.tar.gz``, and what was
unpacked may lie one folder deeper. The header tells the view and, as AccessionNumber, the barcode that the tables repeat.
"""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import pandas as pd

from kneeoa.tasks import TASKS, Laterality
from training.data.implants import empty, oai_implants
from training.data.linking import FILM, Release, link, note, placed
from training.data.readings import codes, files_below, find_tables, grades, prosthetic, read_table
from training.data.schema import KNEE, LABELS, ManifestError
from training.data.stored import read_headers

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
PROJECTS = ("15", "37", "42")  # by preference; 42 is 37 miscoded (OAI's notes to the readings)
MONTHS = {0: "V00", 12: "V01", 18: "V02", 24: "V03", 30: "V04", 36: "V05", 48: "V06", 72: "V08", 96: "V10"}
_FILM = re.compile(
    r"(?:(?P<above>.*)/)?(?P<subject>9\d{6})/(?:.*/)?(?P<series>0\d{7})(?:\.tar\.gz|\.tgz|/(?:.*/)?[^/]+)",
    re.IGNORECASE,
)
_MONTHS, _RELEASE = re.compile(r"(?<![^/_])(\d\d)m(?![^/])"), re.compile(r"(?<![^/])(\d+)\.[A-Z]\.\d+(?![^/])")
_VIEW = "Bilateral PA Fixed Flexion Knee"
_EXPECTED = "kxr_sq_bu00 … kxr_sq_bu10 (OAI's X-Ray Image Assessments, Semi-Quant Scoring) or NDA's oai_kxrsemiquant01"


def read_oai(
    root: Path, visits: Collection[str] | None = None, projects: Sequence[str] = PROJECTS, headers: bool = True
) -> Release:
    """All knees that have a grade and a film, and why the others are left out.

    A knee read in several projects keeps one reading, not a mixture: the first project's that gave it a grade. A feature
    that a visit's table does not have is NA.

    Parameters
    ----------
    root : Path
        Holds tables and films, in any arrangement above the parts named at the top.
    visits : collection of str, optional
        V00, V01, V03, V05, V06, V08, V10; default: every visit that has a table and films.
    projects : sequence of str
        READPRJ, by preference; readings of others are counted.
    headers : bool
        Look into the films for view and barcode; without, any X-ray counts as the visit's film.

    Raises
    ------
    ManifestError
        Names what is missing: tables, columns, the films of a visit.
    """
    paths, notes = list(files_below(root)), list[str]()
    tables = _tables(root, paths, notes)
    matches = [m for m in map(_FILM.fullmatch, paths) if m]
    if matches and not any(_visit(m["above"] or "") for m in matches):
        raise ManifestError(
            f"OAI: the folders of {matches[0][0]} name no visit; expected 00m/0.C.2/<subject>/… or alike"
        )
    found = [(m["subject"], _visit(m["above"] or "") or "", m["series"], m[0]) for m in matches]
    read, shown = set(tables), {visit for _, visit, _, _ in found}
    if absent := sorted(set(visits or ()) - read):
        raise ManifestError(
            f"OAI: no reading table for {', '.join(absent)}; there are tables for {', '.join(sorted(read))}"
        )
    wanted = set(visits or (read & shown) or read)
    note(notes, "X-ray files of visits without readings", sum(visit not in read for _, visit, _, _ in found))
    for visit in () if visits else sorted(read - wanted):
        note(notes, f"readings of {visit}, of which there is no film", len(tables[visit][1]))
    readings = pd.concat([_readings(tables[visit][1], visit, tables[visit][0], notes) for visit in sorted(wanted)])
    readings = _best(readings.reset_index(drop=True), projects, notes)
    readings["site"] = _sites(root, paths, readings["subject"])
    first = oai_implants(root, paths, {visit: months for months, visit in MONTHS.items()}, notes)
    since = pd.Series(
        pd.MultiIndex.from_frame(readings[["subject", "side"]]).map(first), index=readings.index, dtype=float
    )
    readings["implant"] |= readings["visit"].str[1:].astype(int) >= since
    films, unread = _films(root, placed(root, found, wanted), headers)
    return link(readings, films, "OAI", root, notes, unread, asked=bool(visits))


def _tables(root: Path, paths: list[str], notes: list[str]) -> dict[str, tuple[str, pd.DataFrame]]:
    """By visit: the table's path and its rows."""
    found: dict[str, tuple[str, pd.DataFrame]] = {}
    for number, path in find_tables(root, paths, r"kxr_sq_bu(\d\d)").items():
        if f"V{number}" in MONTHS.values():
            found[f"V{number}"] = path, read_table(root, path, ["ID", "SIDE", "READPRJ"])
        else:
            notes.append(f"{path} is of no visit that was filmed, and not read")
    for path in () if found else find_tables(root, paths, r"(oai_kxrsemiquant01)").values():
        table = read_table(root, path, ["ID", "SIDE", "READPRJ", "VISIT"])
        found |= {visit: (path, rows) for visit, rows in table.groupby(codes(table["VISIT"]).str.upper())}
    if not found:
        raise ManifestError(
            f"no reading table below the folder: expected {_EXPECTED}, as .txt, .csv, .sas7bdat or .xpt"
        )
    return found


def _readings(table: pd.DataFrame, visit: str, path: str, notes: list[str]) -> pd.DataFrame:
    """One visit's, with columns as OAI (V00XRKL) or NDA (XRKL) names them."""
    prefix = "" if "VISIT" in table else visit
    if f"{prefix}XRKL" not in table:
        raise ManifestError(f"{path} has no column {prefix}XRKL")
    knees = pd.DataFrame({"subject": codes(table["ID"]), "side": codes(table["SIDE"]).map(_SIDES), "visit": visit})
    barcode = next(
        (table[name] for name in (f"{prefix}BARCDBU", "BARCODE") if name in table), pd.Series("", table.index)
    )
    knees["barcode"], knees["implant"] = _barcode(codes(barcode)), False
    for task in TASKS:
        cells = codes(table.get(f"{prefix}{_COLUMNS.get(task.name)}", empty(table)))
        knees[task.name] = grades(cells, task)
        knees["implant"] |= prosthetic(cells)
    knees["project"] = codes(table["READPRJ"])
    bad = knees["subject"].eq("") | knees["side"].isna()
    if bad.all():
        raise ManifestError(f"{path}: no row has an ID and a SIDE of 1 (right) or 2 (left)")
    note(notes, f"rows of {path} without an ID or a SIDE of 1 or 2", int(bad.sum()))
    return knees[~bad]


def _best(readings: pd.DataFrame, projects: Sequence[str], notes: list[str]) -> pd.DataFrame:
    """Of each knee the readings of the first project that gave it a grade; an empty one hides no other."""
    rank = readings["project"].map({name: i for i, name in enumerate(projects)})
    note(notes, f"readings of other projects than {', '.join(projects)}", int(rank.isna().sum()))
    empty = readings[LABELS].isna().all(axis=1)
    readings = readings.assign(rank=rank + len(projects) * empty)[rank.notna()]
    best = readings["rank"] == readings.groupby(KNEE[1:])["rank"].transform("min")
    return readings[best].drop_duplicates([*KNEE[1:], *LABELS]).drop(columns=["rank", "project"])


def _sites(root: Path, paths: list[str], subjects: pd.Series) -> pd.Series:
    """The clinic that recruited each subject, empty where no table of enrollees tells."""
    for path in find_tables(root, paths, r"(enrollees|oai_enrollee01)").values():
        table = read_table(root, path, ["ID"])
        if column := next((name for name in ("V00SITE", "SITE") if name in table), None):
            sites = pd.Series(codes(table[column]).to_numpy(), codes(table["ID"]))
            return subjects.map(sites[~sites.index.duplicated()]).fillna("")
    return pd.Series("", subjects.index)


def _films(root: Path, found: pd.DataFrame, headers: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The bilateral PA fixed-flexion films, and what cannot be read; ``view`` of what was found is its series."""
    if not headers:
        return found.drop_duplicates(["subject", "visit"]).assign(view="", barcode="")[FILM], found.head(0)
    read = read_headers(root, found["path"])
    seen = [read[path] for path in found["path"]]
    right = pd.Series(
        [header is not None and header.view.lower() == _VIEW.lower() for header in seen], found.index, bool
    )
    barcodes = _barcode(pd.Series([header.barcode if header else "" for header in seen], found.index, "string"))
    # A series' number is the barcode's end; it tells copies of a film whose header has none.
    films = found.assign(barcode=barcodes.where(barcodes != "", "166" + found["view"]), view="fixed flexion")
    return films[right][FILM], found[pd.Series([header is None for header in seen], found.index, bool)]


def _visit(folders: str) -> str | None:
    if months := _MONTHS.findall(folders):
        return MONTHS.get(int(months[-1]))
    releases = _RELEASE.findall(folders)
    return f"V{int(releases[-1]):02d}" if releases else None


def _barcode(cells: pd.Series) -> pd.Series:
    """Twelve digits, of which tables that took them for numbers have lost the leading 0."""
    return cells.astype("string").str.lstrip("0").fillna("")
