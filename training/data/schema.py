"""The words of the manifest: its columns, what they may hold, and the one error for whatever is wrong with it."""

import pandas as pd

from kneeoa.tasks import TASKS

SCHEMA_VERSION = 2
KNEE = ["cohort", "subject", "side", "visit"]  # together they name one graded knee
LABELS = [task.name for task in TASKS]
COLUMNS = [*KNEE, "path", "kind", "view", "site", *LABELS]
KINDS = ("film", "crop")  # a bilateral film, or one knee joint cut out of it
SPLITS = ("train", "val", "test")


class ManifestError(ValueError):
    """Data that must not be trained on; the message names the fault, where it is and what would be right."""


def rows(bad: pd.Series) -> str:
    """Where a boolean mask holds, by index alone: never a value, which may come from a patient's file."""
    index = [str(i) for i in bad.index[bad.fillna(False).astype(bool)]]
    shown = ", ".join(index[:5])
    return f"row {shown}" if len(index) == 1 else f"rows {shown}{', …' if len(index) > 5 else ''} ({len(index)} in all)"
