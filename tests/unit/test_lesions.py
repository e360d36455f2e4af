"""On a phantom (always) and on real knees (where ../shared is): what is drawn is where, and as much as, its grade says."""

from functools import cache

import numpy as np
import pytest

from kneeoa.geometry import KeyPoints
from kneeoa.grading.patches import Preprocessing
from training.data.knee_kl import SIX, read_knee_kl
from training.data.landmarks import landmark_transfer, mirrored_landmarks, with_landmarks
from training.fitting.joint_dataset import JointDataset, lesion_joints
from training.synthesis.lesion_knees import usable
from training.synthesis.lesions import STYLES as LOOKS
from training.synthesis.lesions import draw_lesions
from training.synthesis.phantom.anatomy import draw_anatomy, surface_y
from training.synthesis.phantom.physics import expose
from training.synthesis.phantom.render import draw_leg
from training.synthesis.phantom.style import STYLES

NAMES = ("JSN_L", "JSN_M", "FL", "FM", "TL", "TM")
NONE = dict.fromkeys(("KL", *NAMES), 0)
MM = 0.45
CORNERS = {
    "FL": (9, -1, -1),
    "FM": (15, 1, -1),
    "TL": (0, -1, 1),
    "TM": (8, 1, 1),
}  # landmark, outward, towards the shaft


@cache
def phantom(seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    rng, size = np.random.default_rng(seed), 224
    knee = draw_anatomy(rng, NONE, STYLES["train"], 1.0)
    leg, points = draw_leg(rng, knee, NONE, (size, size), (112, 124), MM, STYLES["train"])
    image = (expose(rng, leg, MM, STYLES["train"]) * 255).astype(np.uint8)
    six, w = points.as_array(), points.width
    landmarks = np.zeros((16, 2))
    for curve, part, share in (
        (knee.plateau, slice(0, 9), (0, 0.16, 0.31, 0.43, 0.5, 0.58, 0.67, 0.83, 1)),
        (knee.condyles, slice(9, 16), (0, 0.15, 0.31, 0.5, 0.66, 0.83, 1)),
    ):
        x = (curve[0, 0] + np.array(share) * np.ptp(curve[:, 0])) / MM
        landmarks[part] = np.column_stack([x, surface_y(curve, x * MM) / MM]) + (112, 124)
    assert np.ptp(landmarks[:, 0]) == pytest.approx(w, rel=0.1)
    landmarks[SIX] = six
    return image, landmarks, MM


@pytest.fixture(scope="session")
def real(knee_kl):
    knees = [k for k in usable(read_knee_kl(knee_kl, "val")) if k.side == "R" and k.fit_score > 2.6][:4]
    return [(k.image(), k.landmarks, k.mm_per_px) for k in knees]


@pytest.fixture(params=["phantom", "real"])
def knees(request):
    return request.getfixturevalue("real") if request.param == "real" else [phantom(seed) for seed in range(4)]


def drawn(knee, seed: int = 0, style: str = "train", **features: int) -> np.ndarray:
    return draw_lesions(np.random.default_rng(seed), *knee, {**NONE, **features}, style)[0]


def dark_rows(knee, image: np.ndarray, compartment: str) -> float:
    """Rows between the bones darker than the healthy joint's own threshold, mean over the compartment, in mm."""
    healthy, landmarks, mm = knee
    left, width = landmarks[0, 0], landmarks[8, 0] - landmarks[0, 0]
    a, b = (0.12, 0.24) if compartment == "JSN_L" else (0.76, 0.88)
    x = slice(round(left + a * width), round(left + b * width))
    femur, tibia = landmarks[10 if compartment == "JSN_L" else 14, 1], landmarks[1 if compartment == "JSN_L" else 7, 1]
    reach = round(4 / mm)
    old, new = (i[round(femur) - reach : round(tibia) + reach, x].astype(float) for i in (healthy, image))
    dark = (old.min(axis=0) + np.percentile(old, 70)) / 2
    return float((new < dark).sum(axis=0).mean() * mm)


@pytest.mark.parametrize(("narrow", "other"), [("JSN_L", "JSN_M"), ("JSN_M", "JSN_L")])
def test_one_joint_space_closes_with_the_grade_and_the_other_stays(knees, narrow, other):
    sick = [[drawn(knee, seed, **{narrow: grade}) for grade in range(4)] for seed, knee in enumerate(knees)]
    closing, staying = (
        np.mean([[dark_rows(k, i, name) for i in each] for k, each in zip(knees, sick, strict=True)], axis=0)
        for name in (narrow, other)
    )

    assert (np.diff(closing) < -0.12 * closing[0]).all()
    assert closing[3] < 0.3 * closing[0]
    assert np.abs(staying - staying[0]).max() < 0.2 * staying[0]


@pytest.mark.parametrize("name", CORNERS)
def test_an_osteophyte_grows_at_its_corner_only(knees, name):
    """Compared with the same knee without it; both have a small spur at the opposite corner, and so the same jittered warp."""

    def changes(knee, well: np.ndarray, seed: int, grade: int) -> dict[str, float]:
        """Changed pixels by corner, mm², in a window 10 mm to both sides, from the joint space along the shaft."""
        _, landmarks, mm = knee
        sick = drawn(knee, seed, **{opposite: 1, name: grade})
        areas = {}
        for corner, (at, _, shaft) in CORNERS.items():
            x, y = landmarks[at]
            rows = slice(*sorted((round(y + shaft * 0.5 / mm), round(y + shaft * 11 / mm))))
            columns = slice(max(round(x - 10 / mm), 0), round(x + 10 / mm))
            change = np.abs(sick[rows, columns].astype(int) - well[rows, columns]) > 12
            areas[corner] = change.sum() * mm * mm
        return areas

    opposite = {"FL": "TM", "TM": "FL", "FM": "TL", "TL": "FM"}[name]
    wells = [drawn(knee, seed, **{opposite: 1}) for seed, knee in enumerate(knees)]
    found = [
        [changes(k, well, s, grade) for s, (k, well) in enumerate(zip(knees, wells, strict=True))]
        for grade in (1, 2, 3)
    ]
    own = [np.mean([each[name] for each in grade]) for grade in found]

    assert 1 < own[0] < 0.8 * own[1] < 0.8 * 0.9 * own[2]
    for corner in set(CORNERS) - {name}:
        assert np.mean([each[corner] for each in found[2]]) < 0.1 * own[2]


@pytest.mark.parametrize("name", CORNERS)
def test_an_osteophyte_reaches_beyond_the_bone(name):
    """On phantoms with no flesh in the way: what was dark outside the corner is bone now, farther out with the grade."""
    at, outward, shaft = CORNERS[name]
    reached = []
    for grade in range(4):
        lengths = []
        for seed in range(4):
            knee = phantom(seed)
            image = drawn(knee, seed, **{"JSN_L": 1, name: grade}).astype(float)
            x, y = knee[1][at]
            strip = image[sorted((round(y + shaft * 1 / MM), round(y + shaft * 6 / MM)))[0] :][: round(5 / MM)]
            bone, flesh = (np.median(strip[:, round(x + outward * d / MM)]) for d in (-3, 9))
            beyond = strip[:, np.round(x + outward * np.arange(0, 9, MM) / MM).astype(int)]
            lengths.append((beyond > (bone + flesh) / 2).sum(axis=1).max() * MM)
        reached.append(np.mean(lengths))

    assert reached[1] > reached[0]
    assert reached[2] > reached[1] + 0.7
    assert reached[3] > reached[2] + 0.7


def test_no_grade_changes_nothing(knees):
    for image, landmarks, mm in knees:
        same, points = draw_lesions(np.random.default_rng(0), image, landmarks, mm, NONE)
        assert (same == image).all()
        assert points == KeyPoints.from_array(landmarks[SIX])


def test_key_points_follow_the_bones():
    image, landmarks, mm = phantom(1)
    _, points = draw_lesions(np.random.default_rng(0), image, landmarks, mm, {**NONE, "JSN_M": 3})
    gap = np.diff(np.array([points.as_array()[[2, 5], 1], landmarks[[15, 8], 1]]), axis=1).ravel()

    assert gap[0] < gap[1] - 1.5 / mm
    assert (points.as_array()[:, 0] == landmarks[SIX, 0]).all()


def test_seeds_and_styles_decide():
    knee, ill = phantom(2), {"JSN_M": 2, "TM": 3, "FL": 2}

    assert (drawn(knee, 4, **ill) == drawn(knee, 4, **ill)).all()
    assert (drawn(knee, 4, **ill) != drawn(knee, 5, **ill)).any()
    assert (drawn(knee, 4, **ill) != drawn(knee, 4, style="test", **ill)).any()


def test_the_styles_share_no_value():
    for name, (low, high) in vars(LOOKS["train"]).items():
        other_low, other_high = getattr(LOOKS["test"], name)
        assert other_low > high or other_high < low, name


def test_landmarks_mirror_to_themselves():
    landmarks = phantom(0)[1]
    flipped = mirrored_landmarks(landmarks, 224)

    assert (np.diff(flipped[:9, 0]) > 0).all()
    assert KeyPoints.from_array(landmarks[SIX]).mirrored(224) == KeyPoints.from_array(flipped[SIX])
    assert np.allclose(mirrored_landmarks(flipped, 224), landmarks)


def test_lesions_need_a_knee_to_draw_on():
    with pytest.raises(ValueError, match="no knee"):
        lesion_joints([], 1, 0)
    with pytest.raises(ValueError, match="too few"):
        landmark_transfer([])


@pytest.mark.slow
def test_real_joints_with_lesions_are_a_source_for_the_grader(knee_kl):
    knees = read_knee_kl(knee_kl, "val")
    joints, again = (lesion_joints(knees, 20, seed=3) for _ in range(2))
    grades = np.array([[joint.grades[name] for name in NAMES] for joint in joints])

    assert all((a.image == b.image).all() and a.grades == b.grades for a, b in zip(joints, again, strict=True))
    assert (grades.max(axis=0) == 3).all()
    assert (grades.min(axis=0) == 0).all()
    joint, labels = JointDataset(joints, Preprocessing(), seed=0)[0]
    assert joint.shape[-1] == 2 * joint.shape[-2]
    assert labels[:2].tolist() == [-1, -1]


@pytest.mark.slow
def test_landmarks_are_found_from_six_points(knee_kl):
    """Fitted on training knees, asked of validation knees: at most a millimetre off across the joint space."""
    transfer = landmark_transfer(read_knee_kl(knee_kl, "train"))
    knees = [k for k in usable(read_knee_kl(knee_kl, "val")) if k.side == "R"]
    between = [1, 2, 3, 5, 6, 7, 10, 11, 13, 14]
    errors = [np.abs(transfer(k.key_points) - k.landmarks)[between, 1].mean() * k.mm_per_px for k in knees]

    assert np.mean(errors) < 1.0


@pytest.mark.slow
def test_knees_without_landmarks_get_them(knee_kl):
    knees = read_knee_kl(knee_kl, "val")
    bare = next(k for k in knees if k.landmarks is None and k.grades["KL"] == 0 and k.side == "L")
    points = KeyPoints.from_array(usable(knees)[0].landmarks[SIX])
    full = {k.name: k for k in with_landmarks(knees, {bare.name: points})}[bare.name]

    assert full in usable([full])
    assert np.abs(full.landmarks[SIX] - points.as_array()).max() < 4
    assert 0.3 < full.mm_per_px < 0.6
