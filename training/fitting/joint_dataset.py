"""Main joints with labels, augmented on the fly: what the grader learns from."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Dataset

from kneeoa.detection.cascade import Cascade
from kneeoa.geometry import Box, KeyPoints, main_joint
from kneeoa.grading.patches import Preprocessing, standardise
from kneeoa.imaging.prepare import prepare_single
from kneeoa.measurement.joint_space import joint_spaces
from kneeoa.tasks import COMPARTMENT_TASKS, NARROWINGS, TASKS, Laterality
from training.data.key_points import locate_in_crop
from training.data.knee_kl import Knee
from training.fitting.augment import photometric, warp
from training.fitting.weak_labels import weak_grades
from training.synthesis.lesion_knees import drawn_knees
from training.synthesis.phantom import draw_joint

UNLABELLED = -1  # masked out of the loss


@dataclass(frozen=True)
class Joint:
    """A crop with the knee shown as a right one, its main joint in crop pixels and its grades by task name."""

    image: np.ndarray
    box: Box
    grades: dict[str, int]

    def labels(self) -> np.ndarray:
        """int64 (8,) in the order of TASKS."""
        return np.array([self.grades.get(task.name, UNLABELLED) for task in TASKS])


Source = Sequence[Joint]


def real_joints(knees: Sequence[Knee], cascade: Cascade, mirror_left: bool = True, weak: bool = False) -> Source:
    """Knee crops with the grades they have, prepared and cut as serving does; ``weak`` adds `weak_grades` to those with KL."""
    return list(each_real_joint(knees, cascade, mirror_left, weak))


def each_real_joint(
    knees: Sequence[Knee], cascade: Cascade, mirror_left: bool = True, weak: bool = False
) -> Iterator[Joint]:
    """`real_joints`, one at a time."""
    for knee in knees:
        raw = knee.image()
        found, image = locate_in_crop(cascade, raw), prepare_single(raw.astype(np.float32))
        box, grades = main_joint(found.box, found.key_points), dict(knee.grades)
        if weak and "KL" in grades and knee.side is not Laterality.UNKNOWN:
            grades = weak_grades(grades["KL"], _joint_space_widths(raw, found.key_points, knee.side)) | grades
        if mirror_left and knee.side is Laterality.LEFT:
            image, box = np.ascontiguousarray(image[:, ::-1]), box.mirrored(image.shape[1])
        yield Joint(image, box, grades)


def _joint_space_widths(image: np.ndarray, key_points: KeyPoints, side: Laterality) -> dict[str, float]:
    """In W, lateral and medial; a right knee has its lateral side at the image's left."""
    widths = [space.width / key_points.width for space in joint_spaces(image, key_points)]
    return dict(zip(NARROWINGS, widths if side is Laterality.RIGHT else widths[::-1], strict=True))


def phantom_joints(number: int, seed: int, style: str = "train", all_labels: bool = False) -> Source:
    """Phantom joints; KL and OA are left to real knees unless ``all_labels``."""
    rng, joints = np.random.default_rng(seed), []
    for _ in range(number):
        image, knee = draw_joint(rng, style=style)
        points, grades = knee.key_points, knee.grades
        kept = grades if all_labels else {task.name: grades[task.name] for task in COMPARTMENT_TASKS}
        joints.append(Joint(image, main_joint(points.knee_box(), points), kept))
    return joints


def lesion_joints(knees: Sequence[Knee], number: int, seed: int, style: str = "train") -> Source:
    """`drawn_knees` prepared as `real_joints` does; KL and OA are unlabelled."""
    return list(each_lesion_joint(knees, number, seed, style))


def each_lesion_joint(knees: Sequence[Knee], number: int, seed: int, style: str = "train") -> Iterator[Joint]:
    """`lesion_joints`, one at a time."""
    for image, points, grades in drawn_knees(knees, number, seed, style):
        yield Joint(prepare_single(image.astype(np.float32)), main_joint(points.knee_box(), points), grades)


class JointDataset(Dataset):
    """(joint uint8 (p, 2p), labels int64 (8,)); augmented where ``seed`` is given, plain otherwise."""

    def __init__(self, source: Source, config: Preprocessing, seed: int | None = None, epoch: int = 0) -> None:
        self.source, self.config, self.seed, self.epoch = source, config, seed, epoch

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((self.seed or 0, self.epoch, index))
        joint = self.source[index]
        size = (2 * self.config.patch, self.config.patch)
        cut = warp(joint.image, joint.box, size, rng, strength=0.0 if self.seed is None else 1.0)
        if self.seed is not None:
            cut = photometric(cut, rng)
        return standardise(cut, self.config), joint.labels()
