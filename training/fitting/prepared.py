"""Everything that a grader learns from and is judged by, prepared once: real joints, held-out ones, synthetic ones."""

from pathlib import Path

from joblib import Memory

from kneeoa.detection.cascade import Cascade
from kneeoa.detection.detector import Detector
from training.data.knee_kl import read_parts
from training.fitting.joint_dataset import Source, lesion_joints, phantom_joints, real_joints
from training.synthesis.lesion_knees import substrates

Joints = tuple[Source, Source, Source]


def prepared(
    cache: Path | None,
    roots: list[Path],
    detector: Detector,
    per_knee: bool,
    weak: bool,
    phantoms: int,
    lesions: int,
    seed: int,
) -> Joints:
    """The train, val and synthetic joints of folders in the form of the public KL set.

    Parameters
    ----------
    cache : Path, optional
        A folder that keeps them for the next time. It knows the arguments, not the files: empty it when these change.
    per_knee : bool
        People may be in both parts.
    weak : bool
        See `real_joints`.
    phantoms, lesions : int
        Synthetic joints, drawn whole and drawn into real knees.

    Raises
    ------
    DataError
        As `read_parts` does.
    """
    kept = Memory(cache, verbose=0).cache(joints_of, ignore=["cascade"])
    return kept(roots, detector.cascade, detector.identity["sha256"], per_knee, weak, phantoms, lesions, seed)


def joints_of(
    roots: list[Path],
    cascade: Cascade,
    detector: str,
    per_knee: bool,
    weak: bool,
    phantoms: int,
    lesions: int,
    seed: int,
) -> Joints:
    """The train, val and synthetic joints of some folders and a config; ``detector`` names the cascade (to `Memory`)."""
    learn, judge = read_parts(roots, "val", per_knee)
    drawn_into = substrates(learn, cascade, lesions // 8, seed) if lesions else []
    drawn = lesion_joints(drawn_into, lesions, seed) if lesions else []
    real, held_out = (real_joints(part, cascade, weak=weak) for part in (learn, judge))
    return real, held_out, [*phantom_joints(phantoms, seed), *drawn]
