"""Readings and films of a release, linked to knees; whatever is not used is named, with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from training.data.manifest import as_manifest
from training.data.schema import KNEE, LABELS, ManifestError
from training.data.stored import may_be_film

LEFT_OUT = ["path", "subject", "side", "reason", "visit", "cohort"]
FILM = ["subject", "visit", "view", "barcode", "path", "size"]
_VISIT = ["subject", "visit"]


@dataclass(frozen=True)
class Release:
    """A release as far as it can be used.

    Attributes
    ----------
    knees : DataFrame
        A manifest.
    left_out : DataFrame
        One row per knee with the columns of `LEFT_OUT`.
    notes : list of str
        What was noticed and harms no knee; counts, never who.
    """

    knees: pd.DataFrame
    left_out: pd.DataFrame
    notes: list[str] = field(default_factory=list)


def without(release: Release, reason: pd.Series) -> Release:
    """The release without the knees that have a reason (text by row, empty where there is none), which is told."""
    gone = release.knees.assign(reason=reason)[reason.ne("")][LEFT_OUT]
    left_out = together([release.left_out, gone])
    return Release(release.knees[reason.eq("")].reset_index(drop=True), left_out, release.notes)


def together(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """One table of several; empty ones would only change its types."""
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def note(notes: list[str], what: str, number: int) -> None:
    """Say it where there is something to say."""
    if number:
        notes.append(f"{what}: {number}")


def link(
    readings: pd.DataFrame,
    films: pd.DataFrame,
    cohort: str,
    root: Path,
    notes: list[str],
    unread: pd.DataFrame,
    asked: bool = False,
) -> Release:
    """Every graded knee whose film is known, and why the others are not.

    Parameters
    ----------
    readings : DataFrame
        subject, side, visit, barcode ("" where unknown), site, implant (bool) and the tasks.
    films : DataFrame
        The columns of `FILM`; barcodes "" where unknown. Of copies of one film (equal barcodes) the largest file is taken. Of
        several films of one visit, the one whose barcode was read is; where that does not decide, the knee is left out,
        for its grades may belong to the other film.
    unread : DataFrame
        subject, visit and path of what lies where films do and is none.
    asked : bool
        Whether the visits were asked for by name; else readings of visits without any film are only counted.

    Raises
    ------
    ManifestError
        No knee is left, or a visit that was asked for has no film.
    """
    knee, notes = KNEE[1:], list(notes)
    bare = sorted(set(readings["visit"]) - set(films["visit"]))
    if bare and (asked or films.empty):
        raise ManifestError(
            f"{cohort}: no film of visit {', '.join(bare)} is below {root}; add the films, or name other visits"
        )
    for visit in bare:
        note(notes, f"readings of {visit}, of which there is no film", int(readings["visit"].eq(visit).sum()))
    readings = readings[~readings["visit"].isin(bare)].drop_duplicates([*knee, *LABELS, "implant"]).copy()

    films = films.sort_values(["size", "path"], ascending=[False, True])
    copies = films["barcode"].ne("") & films.duplicated([*_VISIT, "view", "barcode"])
    note(notes, "films that are there more than once, of which one copy is used", int(copies.sum()))
    films = films[~copies]

    pairs = _paired(readings, films, unread)
    pairs = pairs.assign(cohort=cohort, kind="film").sort_values(knee)
    used, gone = pairs[pairs["reason"] == ""], pairs[pairs["reason"] != ""]
    both = used["barcode"].ne("") & used["barcode_film"].fillna("").ne("")
    other = both & used["barcode"].ne(used["barcode_film"])
    note(notes, "knees whose film has another barcode than the one that was read", int(other.sum()))
    harmless = len(unread) - int(gone.loc[gone["reason"] == "unreadable film", "path"].nunique())
    note(notes, "files among the films that are none", harmless)
    if used.empty:
        raise ManifestError(f"{cohort}: no film belongs to a graded subject; do films and tables belong together?")
    first = {"path": lambda paths: " | ".join(dict.fromkeys(paths)), "reason": "last"}
    gone = gone.groupby([*knee, "cohort"], as_index=False, sort=True).agg(first)[LEFT_OUT]
    return Release(as_manifest(used), gone, notes)


def _paired(readings: pd.DataFrame, films: pd.DataFrame, unread: pd.DataFrame) -> pd.DataFrame:
    """Each reading with its film; ``reason`` says why the knee cannot be used, and is empty where it can."""
    knee = KNEE[1:]
    pairs = readings.merge(films, on=_VISIT, how="left", suffixes=("", "_film"))
    same = pairs["barcode"].ne("") & pairs["barcode"].eq(pairs["barcode_film"])
    pairs = pairs[same | ~same.groupby([pairs[name] for name in knee]).transform("any")]
    instead = unread.drop_duplicates(_VISIT).set_index(_VISIT)["path"].to_dict()
    there = pd.Series(pd.MultiIndex.from_frame(pairs[_VISIT]).map(instead), index=pairs.index, dtype="object")
    twice = pairs.drop_duplicates([*knee, *LABELS]).duplicated(knee, keep=False).reindex(pairs.index, fill_value=False)
    twice = twice.groupby([pairs[name] for name in knee]).transform("any")
    pairs["reason"] = ""
    for why, holds in (  # the last one that holds is told
        ("several films", pairs.duplicated(knee, keep=False)),
        ("no film", pairs["path"].isna()),
        ("unreadable film", pairs["path"].isna() & there.notna()),
        ("contradictory readings", twice),
        ("no grade", pairs[LABELS].isna().all(axis=1)),
        ("implant", pairs["implant"]),
    ):
        pairs.loc[holds.to_numpy(), "reason"] = why
    pairs["path"] = pairs["path"].fillna(there).fillna("")
    return pairs


def placed(root: Path, found: list[tuple[str, str, str, str]], visits: set[str]) -> pd.DataFrame:
    """What lies at a film's place: subject, visit, view and path, without hidden files and notes; and its size."""
    frame = pd.DataFrame(found, columns=["subject", "visit", "view", "path"])
    frame = frame[frame["visit"].isin(visits) & frame["path"].map(may_be_film).astype(bool)].reset_index(drop=True)
    return frame.assign(size=[(root / path).stat().st_size for path in frame["path"]])
