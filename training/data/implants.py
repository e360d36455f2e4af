"""From which visit on a knee is an implant, by the outcome tables of OAI and MOST: its grades are no grades of a joint."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from kneeoa.tasks import Laterality
from training.data.linking import note
from training.data.readings import codes, find_tables, read_table

Since = dict[tuple[str, str], float]  # subject and side → number of the first visit with the implant

_KNEES = {Laterality.RIGHT.value: "RK", Laterality.LEFT.value: "LK"}
_COUNTS = ("1", "3")  # reported, and confirmed; 0 is a report that could not be confirmed
_DAYS_A_MONTH = 365.25 / 12


def oai_implants(root: Path, paths: list[str], months: Mapping[str, int], notes: list[str]) -> Since:
    """From ``outcomes99`` or NDA's ``oai_outcome01``; where there is none, that is noted.

    V99E[RL]KBLRP: there at baseline. RPCF: follow-up replacement, adjudicated; RPSN: seen on a film. VSPR and VSAF: the
    visits right before and after it; DAYS: since enrolment, against the visit's nominal month.
    """
    tables = find_tables(root, paths, r"(outcomes99|oai_outcome01)")
    if not tables:
        notes.append("there is no outcome table (outcomes99, oai_outcome01): knees with an implant are not known")
    found: Since = {}
    unknown = 0
    for path in tables.values():
        table = read_table(root, path, ["ID"])
        for side, knee in _KNEES.items():
            cells = {
                name: codes(
                    next((table[c] for c in (f"V99E{knee}{name}", f"{knee}{name}") if c in table), empty(table))
                )
                for name in ("BLRP", "RPCF", "RPSN", "VSPR", "VSAF", "DAYS")
            }
            numbers = {name: pd.to_numeric(cells[name].str.upper().str.lstrip("V"), errors="coerce") for name in cells}
            by_days = numbers["DAYS"].map(lambda days: _visit_at(days, months))
            first = (numbers["VSPR"] + 1).fillna(numbers["VSAF"]).fillna(by_days)
            counted = cells["RPCF"].isin(_COUNTS) | cells["RPSN"].eq("1")
            first = first.where(counted).mask(cells["BLRP"].eq("1"), 0.0)
            unknown += int((counted & first.isna()).sum())
            known = first.notna()
            found |= {
                (subject, side): visit for subject, visit in zip(codes(table["ID"])[known], first[known], strict=True)
            }
    note(notes, "knee replacements of an unknown date, not regarded", unknown)
    return found


def most_implants(root: Path, paths: list[str], notes: list[str]) -> Since:
    """From ``mostoutcomes``: V99E[RL]KRINDEX, the visit of a replacement, 0 or empty for none."""
    tables = find_tables(root, paths, r"(mostoutcomes)")
    if not tables:
        notes.append("there is no outcome table (mostoutcomes): knees with an implant are not known")
    found: Since = {}
    for path in tables.values():
        table = read_table(root, path, ["MOSTID"])
        for side, knee in _KNEES.items():
            visit = pd.to_numeric(codes(table.get(f"V99E{knee}RINDEX", empty(table))), errors="coerce")
            subjects = codes(table["MOSTID"]).str.upper()
            found |= {(subject, side): number for subject, number in zip(subjects, visit, strict=True) if number > 0}
    return found


def empty(table: pd.DataFrame) -> pd.Series:
    """A column of nothing."""
    return pd.Series("", table.index)


def _visit_at(days: float, months: Mapping[str, int]) -> float:
    """The first visit whose nominal date is not before the day; NaN where there is none."""
    later = [int(visit[1:]) for visit, month in months.items() if month * _DAYS_A_MONTH >= days]
    return float(min(later, default=99)) if days == days else float("nan")
