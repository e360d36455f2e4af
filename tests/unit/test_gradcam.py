"""Heat maps: where they point, that they depend on what was learned, and that they harm nobody beside them."""

import copy
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kneeoa.geometry import Box, crop, main_joint
from kneeoa.grading.grader import Grader
from kneeoa.grading.network import SiameseGrader, WholeJointGrader, build_network
from kneeoa.grading.runtime import folded
from kneeoa.messages import decode_png
from kneeoa.reply import build_reply
from kneeoa.tasks import COMPARTMENT_TASKS, TASKS, Laterality
from tests.unit.weights_factory import small_grader
from training.data.knee_kl import read_knee_kl
from training.synthesis.lesion_knees import drawn_knees
from training.synthesis.phantom import draw_joint, sample_grades

RIGHT, LEFT, UNKNOWN = Laterality.RIGHT, Laterality.LEFT, Laterality.UNKNOWN


@pytest.fixture(scope="module")
def joint() -> np.ndarray:
    rng = np.random.default_rng(3)
    image, knee = draw_joint(rng, sample_grades(rng, 4))
    return crop(image, main_joint(knee.box, knee.key_points))


class Brightness(nn.Module):
    """In the place of a trained backbone: what is bright speaks for a finding."""

    def __init__(self, network: type) -> None:
        super().__init__()
        self.VIEWS, self._views = network.VIEWS, network.views

    @torch.enable_grad()
    def with_maps(self, left, right):
        maps = F.avg_pool2d(self._views(self, left, right)[:, :1] + 3, 16)  # standardised values lie above −3
        score = maps.requires_grad_().reshape(self.VIEWS, -1, *maps.shape[1:]).sum(dim=(0, 2, 3, 4))
        logits = torch.stack([torch.zeros_like(score), score], dim=1)
        return {task.name: logits for task in TASKS}, torch.full_like(score, 0.5), maps


def exchanged(grader, *networks):
    """The grader with other networks in its members, as many as are given."""
    other = copy.copy(grader)
    other.members = [copy.copy(member) for member, _ in zip(grader.members, networks, strict=False)]
    for member, network in zip(other.members, networks, strict=True):
        member.network = network
    return other


@pytest.mark.parametrize("network", [SiameseGrader, WholeJointGrader])
@pytest.mark.parametrize("side", [RIGHT, LEFT])
@pytest.mark.parametrize("at", [(24, 40), (56, 88), (168, 56), (104, 24)])
def test_a_map_lies_over_the_joint_as_displayed(grader, network, side, at):
    bright = exchanged(grader, Brightness(network))
    joint = np.zeros((96, 192), np.uint8)
    cv2.circle(joint, at, 6, 255, -1)

    (graded,) = bright.grade([joint], [side], [("KL",)])

    y, x = np.unravel_index(cv2.resize(graded.heat["KL"], (192, 96)).argmax(), (96, 192))
    assert np.hypot(x - at[0], y - at[1]) < 9  # half a cell


def test_a_map_lands_on_the_film_where_it_belongs(grader, rng):
    film = np.zeros((900, 1100), np.uint8)
    box, spots = Box(301.4, 250.7, 610.2, 419.9), [(350, 300), (455, 390), (580, 275)]
    for spot in spots:
        cv2.circle(film, spot, 7, 255, -1)
    cut = crop(film, box)
    (graded,) = grader.grade([cut], [LEFT], [("KL",)])
    knee = {"knee": "L", "status": "found", "crop": "", "main_joint": [round(v, 2) for v in box.as_tuple()]}

    (knee,) = build_reply({"knees": [knee]}, [graded], grader)["knees"]

    shape = decode_png(knee["explanations"]["heat"]["KL"]).shape
    small = cv2.resize(cut, shape[::-1], interpolation=cv2.INTER_AREA)
    to_film = np.array(knee["explanations"]["to_film"])
    for x, y in spots:
        corners = to_film[:, :2] @ np.mgrid[: shape[1], : shape[0]].reshape(2, -1) + to_film[:, 2:]
        centres = corners + to_film[:, :2] @ np.full((2, 1), 0.5)
        near = np.hypot(*(centres - [[x + 0.5], [y + 0.5]])) < 15
        weights = small.T.reshape(-1)[near].astype(float)
        middle = centres[:, near] @ weights / weights.sum()
        assert np.hypot(*(middle - [x + 0.5, y + 0.5])) < 1


def test_a_left_knee_is_explained_as_its_mirror_image(grader, joint):
    (right,) = grader.grade([joint], [RIGHT], [("KL", "FM")])
    (left,) = grader.grade([joint[:, ::-1]], [LEFT], [("KL", "FM")])

    assert np.abs(right.heat["FM"].astype(int) - left.heat["FM"][:, ::-1]).max() <= 1


def test_what_is_explained_changes_no_grade_and_no_neighbour(grader, joint):
    joints, sides = [joint, joint[:, ::-1], joint[:60]], [RIGHT, LEFT, RIGHT]

    plain = grader.grade(joints, sides)
    mixed = grader.grade(joints, sides, [(), ("KL",), ("FM", "TL")])

    assert [sorted(knee.heat) for knee in mixed] == [[], ["KL"], ["FM", "TL"]]
    for a, b in zip(plain, mixed, strict=True):
        for task in TASKS:
            np.testing.assert_array_equal(a.probabilities[task.name], b.probabilities[task.name])
    (alone,) = grader.grade(joints[2:], sides[2:], [("TL",)])
    assert np.abs(alone.heat["TL"].astype(int) - mixed[2].heat["TL"]).max() <= 1


def test_gradients_stay_with_their_request(grader, joint):
    (expected,) = grader.grade([joint], [RIGHT], [("KL",)])

    with ThreadPoolExecutor(4) as pool:
        asked = [("KL",) if i % 2 else () for i in range(12)]
        found = list(pool.map(lambda tasks: grader.grade([joint], [RIGHT], [tasks])[0], asked))

    for tasks, knee in zip(asked, found, strict=True):
        assert list(knee.heat) == list(tasks)
        if tasks:
            assert np.abs(knee.heat["KL"].astype(int) - expected.heat["KL"]).max() <= 1
    assert all(parameter.grad is None for member in grader.members for parameter in member.network.parameters())


@pytest.mark.parametrize("forgotten", ["heads", "last stage", "everything"])
def test_a_map_depends_on_what_was_learned(grader, forgotten):
    """Adebayo et al., NeurIPS 2018: with random parameters it must be another."""
    torch.manual_seed(0)
    rng, tasks = np.random.default_rng(3), [task.name for task in TASKS]
    joints = [crop(image, main_joint(knee.box, knee.key_points)) for image, knee in (draw_joint(rng) for _ in range(4))]
    networks = []
    for member in grader.members:
        networks.append(copy.deepcopy(member.network))
        channels = member.config.channels
        fresh = folded(build_network(**member.architecture, channels=channels).eval(), channels)
        last = f"backbone.{fresh.backbone.feature_info[-1]['module']}"
        part = {"heads": "heads", "last stage": last, "everything": ""}[forgotten]
        networks[-1].get_submodule(part).load_state_dict(fresh.get_submodule(part).state_dict())
    random = exchanged(grader, *networks)

    def alike(a: np.ndarray, b: np.ndarray) -> float:
        a, b = (heat - heat.mean(dtype=float) for heat in (a, b))
        return (a * b).sum() / max(np.sqrt((a * a).sum() * (b * b).sum()), 1e-9)

    trained, others = (g.grade(joints, [RIGHT] * 4, [tasks] * 4) for g in (grader, random))

    assert np.mean([alike(a.heat[t], b.heat[t]) for a, b in zip(trained, others, strict=True) for t in tasks]) < 0.5


def pointing(grader, knees) -> dict[str, float]:
    """Share of maps with their maximum in the right compartment (JSN) or quadrant (osteophytes), of features that were seen."""
    hits = {task.name: [] for task in COMPARTMENT_TASKS}
    joints, key_points, truths = zip(*knees, strict=True)
    asked = [[task.name for task in COMPARTMENT_TASKS]] * len(joints)
    graded_knees = grader.grade(joints, [RIGHT] * len(joints), asked)
    for joint, points, grades, graded in zip(joints, key_points, truths, graded_knees, strict=True):
        middle_x, middle_y = joint.shape[1] / 2, points.as_array()[[0, 2, 3, 5], 1].mean()
        for task, heat in graded.heat.items():
            if not (grades[task] and graded.probabilities[task].argmax()):
                continue
            y, x = np.unravel_index(cv2.resize(heat, joint.shape[::-1]).argmax(), joint.shape)
            hit = (x < middle_x) == task.endswith("L")
            hits[task].append(hit and (task.startswith("JSN") or (y < middle_y) == task.startswith("F")))
    return {task: float(np.mean(found)) for task, found in hits.items()}


@pytest.mark.slow
def test_maps_point_at_the_lesions(grader, knee_kl):
    """Drawn into real knees, in the style that no training sees."""

    def joints():
        for image, points, grades in drawn_knees(read_knee_kl(knee_kl, "val"), 80, 11, "test"):
            joint = main_joint(points.knee_box(), points)
            yield crop(image, joint), points.shifted(-round(joint.x1), -round(joint.y1)), grades

    found = pointing(grader, joints())

    assert min(found["JSN_M"], found["FL"]) >= 0.8
    assert min(found.values()) >= 0.7


@pytest.mark.slow
def test_maps_point_at_the_findings_of_phantoms(grader):
    def joints():
        rng = np.random.default_rng(5)
        for _ in range(50):
            image, knee = draw_joint(rng, style="test")
            joint = main_joint(knee.box, knee.key_points)
            yield crop(image, joint), knee.key_points.shifted(-round(joint.x1), -round(joint.y1)), knee.grades

    found = pointing(grader, joints())

    assert min(found["JSN_M"], found["FL"]) >= 0.8


def test_the_ensemble_is_explained_by_the_mean_of_its_members(joint, tmp_path):
    torch.manual_seed(0)
    paths = [small_grader(tmp_path / f"{network}.safetensors", network=network) for network in ("siamese", "whole")]

    one, other, mean = (
        Grader.from_file(*chosen).grade([joint], [RIGHT], [("KL",)])[0].heat["KL"].astype(float)
        for chosen in (paths[:1], paths[1:], paths)
    )

    expected = (one + other) / 2
    assert np.abs(mean - 255 * expected / expected.max()).max() <= 2


def test_a_withheld_grade_is_not_explained(grader, joint):
    (graded,) = grader.grade([joint], [UNKNOWN], [("KL", "FL")])
    knee = {"knee": "unknown", "status": "found", "crop": "", "main_joint": None}

    (knee,) = build_reply({"knees": [knee]}, [graded], grader)["knees"]

    assert list(knee["explanations"]["heat"]) == ["KL"]
    assert knee["explanations"]["to_film"] is None
