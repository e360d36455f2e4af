"""What OAI and MOST releases have in common: reading tables as text or SAS, and grades with codes."""

import codecs
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pandas as pd

from kneeoa.tasks import Task
from training.data.schema import ManifestError

_DELIMITERS = "|\t,"
_MR_SERIES = re.compile(r"1\d{7}")  # OAI: the folder of an MR series, with hundreds of slices; X-rays begin with 0
_PROSTHETIC = {"P", ".P"}
_KINDS = ("sas7bdat", "xpt", "csv", "txt")  # the last one wins


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


def find_tables(root: Path, paths: Collection[str], stem: str) -> dict[str, str]:
    """Paths of the tables of a name, by the stem's first group (upper case); text goes before SAS where both are there.

    Two bundles often hold the same table; copies count as one.

    Raises
    ------
    ManifestError
        Two tables of the same name and kind say different things.
    """
    found: dict[tuple[str, str], str] = {}
    for path in paths:
        if match := re.fullmatch(rf"(?:.*/)?{stem}\.({'|'.join(_KINDS)})", path, re.IGNORECASE):
            key = match[1].upper(), match[2].lower()
            if key in found and (root / path).read_bytes() != (root / found[key]).read_bytes():
                raise ManifestError(f"{found[key]} and {path} are one reading table but differ; keep one")
            found.setdefault(key, path)
    return {key[0]: found[key] for key in sorted(found, key=lambda key: (key[0], _KINDS.index(key[1])))}


def read_table(root: Path, path: str, required: Collection[str] = ()) -> pd.DataFrame:
    """A reading table with upper-case column names; cells are text, or numbers from SAS.

    NDA's text tables have a second line that explains the columns; it is left out.

    Raises
    ------
    ManifestError
        It cannot be read, a required column is missing, or one is there twice with different contents.
    """
    try:
        if path.lower().endswith((".txt", ".csv")):
            encoding = _encoding(root / path)
            with open(root / path, encoding=encoding) as file:
                header = file.readline()
            separator = max(_DELIMITERS, key=header.count)
            # Without a header, for pandas would rename a second column of a name.
            table = pd.read_csv(root / path, sep=separator, dtype=str, encoding=encoding, header=None, index_col=False)
            table.columns = table.iloc[0].fillna("").tolist()
            table = table.iloc[1:].reset_index(drop=True)
        else:
            table = pd.read_sas(root / path, encoding="latin-1")
    except (OSError, ValueError, EOFError) as error:  # pandas' parser errors are ValueErrors
        raise ManifestError(f"{path} cannot be read as a table: it is damaged or not what its name says") from error
    # OAI spells some columns differently from visit to visit.
    table.columns = pd.Index([str(name).strip().strip('"').upper() for name in table.columns])
    table = _without_twins(table, path)
    if {"SRC_SUBJECT_ID", "VISIT"} <= set(table):
        table = table[codes(table["VISIT"]).str.fullmatch(r"[Vv]\d\d").astype(bool)].rename(
            columns={"SRC_SUBJECT_ID": "ID"}
        )
    if missing := [name for name in required if name not in table]:
        raise ManifestError(f"{path} has no column {', '.join(missing)}")
    return table.reset_index(drop=True)


def _encoding(path: Path) -> str:
    start = path.open("rb").read(64)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if b"\0" in start:  # one byte of two of Latin letters
        return "utf-16-be" if start[0] == 0 else "utf-16-le"
    return "utf-8-sig" if start.startswith(codecs.BOM_UTF8) else "latin-1"


def _without_twins(table: pd.DataFrame, path: str) -> pd.DataFrame:
    """One column a name, where two of a name do not contradict each other; an unnamed one is none."""
    kept: dict[str, pd.Series] = {}
    for name, column in ((name, table.iloc[:, i]) for i, name in enumerate(table.columns)):
        if name in kept:
            both = kept[name].notna() & column.notna()
            if (kept[name][both].astype(str) != column[both].astype(str)).any():
                raise ManifestError(f"{path} has the column {name} twice, with different contents")
            column = kept[name].combine_first(column)
        kept[name] = column
    kept.pop("", None)
    return pd.DataFrame(kept)


def codes(cells: pd.Series) -> pd.Series:
    """Cells as text without their label and a SAS number's ".0": ``1: Right`` → ``1``, ``9000099.0`` → ``9000099``."""
    text = ["" if pd.isna(cell) else str(cell).partition(":")[0].strip().removesuffix(".0") for cell in cells]
    return pd.Series(text, cells.index, dtype=object)


def grades(cells: pd.Series, task: Task) -> pd.Series:
    """Int8 grades. Partial ones are rounded (OAI JSN 1.4 and 2.2, MOST KL 1.9); whatever is off the scale is NA.

    That is how OAI's ``.: Missing Form/Incomplete Workbook`` and ``.A``, and MOST's 8, 9, P, S, X and Z come out.
    ``0: 0`` counts as 0. Halves go to the even grade (numpy's rule, as in Tiulpin & Saarakkala 2020).
    """
    number = pd.to_numeric(codes(cells), errors="coerce").round().astype("Float64")
    return number.where(number.between(0, task.grades - 1).fillna(False)).astype("Int8")


def prosthetic(cells: pd.Series) -> pd.Series:
    """bool (n,): the cell is the code of a prosthetic joint, ``.P: Prosthetic`` or ``P``, instead of a grade."""
    return codes(cells).str.upper().isin(_PROSTHETIC)
