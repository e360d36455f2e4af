"""Outlines of a right knee as a film shows it, in millimetres.

The origin is the tibial eminence, x points to the image's right (medial), y down. Proportions are the mean shape of
KNEEL's 748 landmarked OAI knees (docs/method.md); W is 80 mm before scaling.
"""

from dataclasses import dataclass

import numpy as np

from kneeoa.geometry import KeyPoints

GAP_MM = {"JSN_L": 4.6, "JSN_M": 3.9}
GAP_LEFT = (1.0, 0.68, 0.38, 0.06)  # share of the joint space that remains, by grade
SPUR_MM = (0.0, 2.2, 4.5, 7.5)  # how far an osteophyte reaches beyond its corner, by grade
_CONDYLE_X = 24.0  # where the condyles are lowest

_FEMUR = [
    (-16, -300), (-17, -100), (-19, -65), (-24, -48), (-33, -34), (-39, -20), (-40, -8), (-38.2, 1.1), (-31, 3.2),
    (-22, 3.4), (-14, 1.0), (-8, -6.5), (-1, -11), (7, -6.5), (14, 1.5), (22, 3.6), (31, 3.3), (38.9, 1.4), (40, -8),
    (39, -20), (33, -34), (24, -48), (19, -65), (17, -100), (16, -300),
]  # fmt: skip
_TIBIA = [
    (-14, 300), (-15, 120), (-20, 66), (-28, 42), (-36, 26), (-40, 15), (-40.4, 8.9), (-30, 8.3), (-20, 8.0), (-11, 6.0),
    (-5, -1.5), (0, 0.6), (5, -2), (11, 6.0), (20, 7.6), (30, 7.5), (39, 7.4), (39.5, 14), (36, 28), (28, 46), (20, 68),
    (15, 120), (14, 300),
]  # fmt: skip
_FIBULA = [(-42, 25), (-38, 20), (-33, 24), (-32, 36), (-34, 55), (-35, 300), (-43, 300), (-43, 55), (-45, 34)]
_CORNERS = {"FL": (_FEMUR, 7, -1), "FM": (_FEMUR, 17, 1), "TL": (_TIBIA, 6, -1), "TM": (_TIBIA, 16, 1)}
_KEY = {"femur": (7, 12, 17), "tibia": (6, 11, 16)}


@dataclass(frozen=True)
class Outlines:
    """Closed polygons, float (n, 2) in millimetres, and the six key points in the same frame."""

    femur: np.ndarray
    tibia: np.ndarray
    fibula: np.ndarray
    patella: np.ndarray
    spurs: tuple[np.ndarray, ...]
    key_points: KeyPoints


def smooth(points: np.ndarray, steps: int = 6) -> np.ndarray:
    """Catmull-Rom curve through the points, ends held; float (n, 2)."""
    p = np.vstack([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.vstack([curve.reshape(-1, 2), points[-1:]])


def _spur(corner: np.ndarray, outward: int, downward: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """A beak on a corner: base along the bone, tip outward and a little towards the joint."""
    base = rng.uniform(5, 8) + 0.5 * length
    tip = (outward * length, downward * length * rng.uniform(0.1, 0.5))
    inward = -outward * (4 + length)
    beak = np.array(
        [
            (inward, 0),
            (0, 0.2 * downward),
            tip,
            (0.3 * outward * length, -downward * base * 0.5),
            (-outward, -downward * base),
        ]
    )
    return smooth(corner + np.vstack([beak, beak[:1]]))


def draw_outlines(rng: np.random.Generator, grades: dict[str, int]) -> Outlines:
    """A right knee with the given features; every call another person."""
    size = rng.normal(1.0, 0.08) * np.array([rng.normal(1, 0.03), 1.0])

    def person(points: list, sd: float = 0.5) -> np.ndarray:
        return (np.array(points, float) + rng.normal(0, sd, (len(points), 2))) * size

    femur, tibia, fibula = person(_FEMUR), person(_TIBIA), person(_FIBULA)
    # The femur comes down rigidly: a shift and a tilt that leave each compartment its share of the joint space.
    drop = {}
    for name, gap in GAP_MM.items():
        drop[name] = gap * (1 - GAP_LEFT[grades[name]]) + (rng.normal(0, 0.25) if grades[name] < 3 else 0)
    near = np.abs(femur[:, 1]) < 120
    middle, tilt = (drop["JSN_L"] + drop["JSN_M"]) / 2, (drop["JSN_M"] - drop["JSN_L"]) / (2 * _CONDYLE_X)
    femur[:, 1] += np.where(near, (middle + tilt * np.clip(femur[:, 0] / size[0], -45, 45)) * size[1], 0)
    angle = np.linspace(0, 2 * np.pi, 40)
    patella = np.column_stack([22 * np.cos(angle), 23 * np.sin(angle)]) * size + rng.normal((-2, -30), (3, 4))
    spurs = []
    for name, (bone, index, outward) in _CORNERS.items():
        length = SPUR_MM[grades[name]] * rng.uniform(0.8, 1.2)
        if length:
            outline, downward = (femur, 1) if bone is _FEMUR else (tibia, -1)
            spurs.append(_spur(outline[index], outward, downward, length * size[0], rng))
    points = np.vstack([femur[list(_KEY["femur"])], tibia[list(_KEY["tibia"])]])
    return Outlines(smooth(femur), smooth(tibia), smooth(fibula), patella, tuple(spurs), KeyPoints.from_array(points))
