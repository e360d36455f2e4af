"""Splits of a manifest into train, val and test: by subject (default), by knee as in the paper, or across cohorts.

Wang et al. 2021 split 5 : 1 : 3 by knee, KL distribution kept; knees of one person then lie in several parts.
"""

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from training.data.schema import KNEE, SPLITS, ManifestError, rows

SHARES = (5, 1, 3)  # train : val : test of Wang et al. 2021
PER_KNEE = "per-knee"
_SAME_PEOPLE = {"KNEE_KL": "OAI"}  # the public crops are baseline OAI radiographs and keep OAI's subject numbers


def by_subject(frame: pd.DataFrame, seed: int, shares: Sequence[int] = SHARES) -> pd.DataFrame:
    """All knees and visits of a person in one part, stratified by the person's worst KL."""
    people = person(frame)
    worst = frame["KL"].groupby(people).max()
    return _with_split(frame, people.map(_deal(worst, seed, shares)), "by-subject", seed)


def per_knee(frame: pd.DataFrame, seed: int, shares: Sequence[int] = SHARES) -> pd.DataFrame:
    """The paper's split: each knee on its own, stratified by KL. It leaks between visits and sides of one person."""
    return _with_split(frame, _deal(frame.sort_values(KNEE)["KL"], seed, shares), PER_KNEE, seed)


def across_cohorts(frame: pd.DataFrame, train: str = "OAI", test: str = "MOST", seed: int = 0) -> pd.DataFrame:
    """Train and val (5 : 1, by subject) from one cohort, test from another; rows of further cohorts are left out.

    Raises
    ------
    ManifestError
        A cohort is absent, or both hold the same people.
    """
    if absent := sorted({train, test} - set(frame["cohort"])):
        raise ManifestError(f"the manifest has no knee of {', '.join(absent)}; it has {sorted(set(frame['cohort']))}")
    learn = by_subject(frame[frame["cohort"] == train], seed, (SHARES[0], SHARES[1], 0))
    both = pd.concat([learn, frame[frame["cohort"] == test].assign(split="test")])
    both = _with_split(both, both["split"], f"{train}-to-{test}", seed)
    check_leaks(both)
    return both


def person(frame: pd.DataFrame) -> pd.Series:
    """Who a knee belongs to; the same in every cohort that a person is part of."""
    return frame["cohort"].replace(_SAME_PEOPLE) + "|" + frame["subject"]


def leaks(frame: pd.DataFrame) -> pd.Series:
    """bool (n,): the row's person is in more than one part."""
    return frame["split"].groupby(person(frame)).transform("nunique") > 1


def check_leaks(frame: pd.DataFrame) -> None:
    """Raise ManifestError where a person is in more than one part."""
    if (bad := leaks(frame)).any():
        people = person(frame)[bad].nunique()
        raise ManifestError(f"{people} subjects are in more than one split ({rows(bad)}): keep a subject in one part")


def split_hash(frame: pd.DataFrame) -> str:
    """sha256 over the sorted cohort|subject|side|visit|split: who is where, whatever the order, paths and grades."""
    lines = sorted("|".join(row) for row in frame[[*KNEE, "split"]].astype(str).itertuples(index=False))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _with_split(frame: pd.DataFrame, split: pd.Series, method: str, seed: int) -> pd.DataFrame:
    done = frame.assign(split=split)
    done.attrs["split"] = {"method": method, "seed": seed}
    return done


def _deal(strata: pd.Series, seed: int, shares: Sequence[int]) -> pd.Series:
    """Part of each member, by its index.

    Members are shuffled, ordered by stratum and dealt like cards: every sum(shares) consecutive ones hold exactly the
    shares, so each stratum and the whole keep them but for a remainder. Strata come in an order of their own, by subject or
    by knee, so that the split does not hang on the order of the rows.
    """
    rng = np.random.default_rng(seed)
    members = strata.fillna(-1).astype(int)
    members = members.iloc[rng.permutation(len(members))].sort_values(kind="stable")
    hand = np.repeat(SPLITS, shares)
    dealt = np.concatenate([rng.permutation(hand) for _ in range(-(-len(members) // len(hand)))])[: len(members)]
    if missing := [part for part, share in zip(SPLITS, shares, strict=True) if share and part not in dealt]:
        raise ManifestError(f"too few to split ({len(members)}): {' and '.join(missing)} would be empty")
    return pd.Series(dealt, index=members.index)
