"""What OAI and MOST releases have in common: reading tables as text or SAS, grades with codes, films to be linked."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd

from kneeoa.tasks import Task
from training.data.manifest import as_manifest
from training.data.schema import KNEE, LABELS, ManifestError, rows

_DELIMITERS = "|\t,"
_MR_SERIES = re.compile(r"1\d{7}")  # OAI: the folder of an MR series, with hundreds of slices; X-rays begin with 0


def files_below(root: Path) -> Iterator[str]:
    """Paths of all files relative to the root, with /; in a fixed order, MR series left out.

    Raises
    ------
    ManifestError
        The root is no folder.
    """
    if not Path(root).is_dir():
        raise ManifestError(f"there is no folder {root}")
    for folder, inner, names in os.walk(root, followlinks=True):  # visits are often linked in from other disks
        inner[:] = sorted(name for name in inner if not _MR_SERIES.fullmatch(name))
        for name in sorted(names):
            yield (Path(folder) / name).relative_to(root).as_posix()


def find_tables(paths: Collection[str], stem: str, expected: str) -> dict[str, str]:
    """Paths of the reading tables by the stem's first group (upper case); text goes before SAS where both are there.

    Raises
    ------
    ManifestError
        None is there (``expected`` says what was looked for), or one is there twice.
    """
    found: dict[tuple[str, str], str] = {}
    for path in paths:
        if match := re.fullmatch(rf"(?:.*/)?{stem}\.(txt|csv|xpt|sas7bdat)", path, re.IGNORECASE):
            key = match[1].upper(), match[2].lower()
            if key in found:
                raise ManifestError(f"the same reading table twice: {found[key]} and {path}; keep one")
            found[key] = path
    if not found:
        raise ManifestError(f"no reading table below the folder: expected {expected}, as .txt, .sas7bdat or .xpt")
    kinds = ("sas7bdat", "xpt", "csv", "txt")  # the last one wins
    return {key[0]: found[key] for key in sorted(found, key=lambda key: (key[0], kinds.index(key[1])))}


def read_table(root: Path, path: str, required: Collection[str]) -> pd.DataFrame:
    """A reading table with upper-case column names; cells are text, or numbers from SAS.

    Raises
    ------
    ManifestError
        It cannot be read, or a required column is missing.
    """
    try:
        if path.lower().endswith((".txt", ".csv")):
            with open(root / path, encoding="latin-1") as file:
                header = file.readline()
            table = pd.read_csv(root / path, sep=max(_DELIMITERS, key=header.count), dtype=str, encoding="latin-1")
        else:
            table = pd.read_sas(root / path, encoding="latin-1")
    except (OSError, ValueError, EOFError) as error:  # pandas' parser errors are ValueErrors
        raise ManifestError(f"{path} cannot be read as a table: it is damaged or not what its name says") from error
    table.columns = table.columns.str.strip().str.upper()  # OAI spells some columns differently from visit to visit
    if missing := [name for name in required if name not in table]:
        raise ManifestError(f"{path} has no column {', '.join(missing)}")
    return table


def codes(cells: pd.Series) -> pd.Series:
    """Cells as text without their label and a SAS number's ".0": ``1: Right`` → ``1``, ``9000099.0`` → ``9000099``."""
    text = cells.astype("string").str.partition(":")[0].str.strip()
    return text.str.replace(r"\.0$", "", regex=True).fillna("")


def grades(cells: pd.Series, task: Task) -> pd.Series:
    """Int8 grades. Partial ones are rounded (OAI JSN 1.4 and 2.2, MOST KL 1.9); whatever is off the scale is NA.

    That is how OAI's ``.: Missing Form/Incomplete Workbook`` and ``.A``, and MOST's 8, 9, P, S, X and Z come out.
    ``0: 0`` counts as 0. Halves go to the even grade (numpy's rule, as in Tiulpin & Saarakkala 2020).
    """
    number = pd.to_numeric(codes(cells), errors="coerce").round().astype("Float64")
    return number.where(number.between(0, task.grades - 1).fillna(False)).astype("Int8")


def link(readings: pd.DataFrame, films: pd.DataFrame, cohort: str, root: Path) -> pd.DataFrame:
    """The manifest of every graded knee whose film is known.

    Parameters
    ----------
    readings : DataFrame
        subject, side, visit, barcode ("" where unknown) and the tasks.
    films : DataFrame
        subject, visit, barcode ("" where unknown) and path. Of several films of one visit, the one whose barcode was
        read is taken; where that does not decide, the knee is left out, for its grades may belong to the other film.

    Returns
    -------
    DataFrame
        ``attrs["dropped"]`` counts the readings left out: no grade, no film, several films.

    Raises
    ------
    ManifestError
        A knee was read twice, or a whole visit has no film.
    """
    knee = KNEE[1:]
    if (twice := readings.duplicated(knee, keep=False)).any():
        raise ManifestError(f"{cohort}: a knee was read twice with different grades: {rows(twice)} of the readings")
    without = sorted(set(readings["visit"]) - set(films["visit"]))
    if without:
        raise ManifestError(
            f"{cohort}: no film of visit {', '.join(without)} is below {root}; add the films, or name the visits to use"
        )
    graded = readings[readings[LABELS].notna().any(axis=1)]
    pairs = graded.merge(films, on=["subject", "visit"], how="left", suffixes=("", "_film"))
    same = pairs["barcode"].ne("") & pairs["barcode"].eq(pairs["barcode_film"])
    pairs = pairs[same | ~same.groupby([pairs[name] for name in knee]).transform("any")]
    no_film, several = pairs["path"].isna(), pairs.duplicated(knee, keep=False)
    frame = as_manifest(pairs[~no_film & ~several].assign(cohort=cohort, kind="film").sort_values(knee))
    frame.attrs["dropped"] = {
        "no grade": len(readings) - len(graded),
        "no film": int(no_film.sum()),
        "several films": len(pairs[several].drop_duplicates(knee)),
    }
    if frame.empty:
        raise ManifestError(f"{cohort}: no film belongs to a graded subject; do the films and tables fit together?")
    return frame
