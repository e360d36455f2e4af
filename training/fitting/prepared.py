"""Everything that a grader learns from and is judged by, prepared once: real joints, held-out ones, synthetic ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from joblib import Memory

from kneeoa.detection.cascade import Cascade
from kneeoa.detection.detector import Detector
from training.data.knee_kl import Knee, read_parts
from training.fitting.joint_dataset import Joint, Source, each_lesion_joint, phantom_joints, real_joints
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
    real, held_out = (real_joints(part, cascade, weak=weak) for part in (learn, judge))
    return real, held_out, list(each_synthetic_joint(learn, cascade, phantoms, lesions, seed))


def each_synthetic_joint(
    learn: Sequence[Knee], cascade: Cascade, phantoms: int, lesions: int, seed: int
) -> Iterator[Joint]:
    """Phantoms, then lesions drawn into train knees, one at a time."""
    yield from phantom_joints(phantoms, seed)
    if lesions:
        yield from each_lesion_joint(substrates(learn, cascade, lesions // 8, seed), lesions, seed)
