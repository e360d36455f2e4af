"""Reads what `releases` wrote, and what a reader said of it."""

import pandas as pd

from tests.unit.releases import SCORING, write_text


def path_of(root, number="00"):
    return root / SCORING / f"kXR_SQ_BU{number}.txt"


def table_of(root) -> pd.DataFrame:
    """OAI's baseline readings."""
    return pd.read_csv(path_of(root), sep="|", dtype=str)


def put_back(root, table: pd.DataFrame) -> None:
    write_text(path_of(root), list(table), table.fillna("").to_numpy())


def reasons(release) -> dict:
    return release.left_out["reason"].value_counts().to_dict()


def noted(release, what: str) -> int:
    """The number of a note, 0 where it was not made."""
    return sum(int(text.rpartition(": ")[2]) for text in release.notes if what in text and ": " in text)
