"""Outlines of a right knee as a film shows it, in millimetres.

Frame: the origin is the tibial eminence, x points to the image's right (medial), y down. The corners, the notch and the
eminence sit at the mean shape of KNEEL's landmarked OAI knees; W is 80 mm before a person's size is applied.
"""

from dataclasses import dataclass

import numpy as np

from kneeoa.geometry import KeyPoints
from training.synthesis.phantom.style import Style

GAP_MM = {"JSN_L": 4.6, "JSN_M": 3.9}
GAP_LEFT = (1.0, 0.7, 0.4, 0.08)  # share of the joint space that remains, by grade
SPUR_MM = (0.0, 1.5, 3.5, 6.0)  # how far an osteophyte reaches beyond its corner, by grade
_LOADED_MM = (15.0, 32.0)  # |x| between which a compartment's joint space is measured
_SD_TILT = 2.2  # degrees, of the tibial plateau; the mean shape is tilted already

# Lateral shaft → lateral condyle → notch → medial condyle → medial shaft; up to 300 mm, where every film ends.
_FEMUR = np.array([
    (-15, -300), (-16, -130), (-18.5, -92), (-25, -70), (-33, -54), (-40, -41), (-42, -30), (-39.8, -19), (-39.2, -12),
    (-40.2, -5), (-38.2, 1.1), (-31, 3.4), (-22, 3.6), (-14, 1.2), (-8.5, -4.5), (-4.8, -9.5), (-1, -11), (3.5, -9.5),
    (8, -4.5), (14, 1.4), (22, 3.8), (31, 3.5), (38.9, 1.4), (41.2, -6), (40.8, -15), (43, -27), (41.5, -40), (34, -55),
    (25.5, -71), (18.5, -92), (16, -130), (15, -300),
], float)  # fmt: skip
_TIBIA = np.array([
    (-13, 300), (-13.5, 150), (-15.5, 100), (-20, 68), (-27, 46), (-34, 29), (-39, 18), (-40.4, 8.9), (-36, 7.8),
    (-30, 8.4), (-20, 8.4), (-12.5, 6.6), (-8, 2.6), (-5.2, -1.6), (-3, -0.4), (0, 0.4), (2.6, -0.8), (5, -2.6), (8, 2),
    (12.5, 6.4), (20, 8.1), (30, 7.9), (35.5, 7.1), (39.1, 7.4), (39, 16), (35.5, 29), (29.5, 46), (22, 68), (16, 100),
    (14, 150), (13, 300),
], float)  # fmt: skip
_FIBULA = np.array([
    (-44, 24), (-39, 17), (-34, 20), (-30, 27), (-30, 36), (-32.5, 50), (-33, 90), (-31, 300), (-42, 300), (-44, 90),
    (-44.5, 52), (-47.5, 38), (-47.5, 29), (-44, 24),
], float)  # fmt: skip
_PATELLA = np.array([
    (0, -22), (12, -19), (20, -8), (21, 4), (14, 16), (4, 23), (-5, 23), (-15, 16), (-21, 3), (-20, -9), (-11, -19),
    (0, -22),
], float)  # fmt: skip
_KEY = {"femur": (10, 16, 22), "tibia": (7, 15, 23)}
_SITES = {"FL": ("femur", 10, -1), "FM": ("femur", 22, 1), "TL": ("tibia", 7, -1), "TM": ("tibia", 23, 1)}


@dataclass(frozen=True)
class Anatomy:
    """One right knee: polygons, float (n, 2), curves and key points in millimetres of the module's frame.

    ``condyles`` and ``plateau`` are the articular surfaces from lateral to medial; ``lines`` are the faint inner lines
    (growth scars, walls of the intercondylar fossa); ``spurs`` belong to the bone they are keyed by.
    """

    femur: np.ndarray
    tibia: np.ndarray
    fibula: np.ndarray
    patella: np.ndarray
    spurs: dict[str, tuple[np.ndarray, ...]]
    condyles: np.ndarray
    plateau: np.ndarray
    lines: tuple[np.ndarray, ...]
    key_points: KeyPoints


def smooth(points: np.ndarray, steps: int = 6) -> np.ndarray:
    """Catmull-Rom curve through the points, ends held; float (n, 2)."""
    p = np.vstack([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    a, b, c, d = (p[i : len(p) - 3 + i, None] for i in range(4))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.vstack([curve.reshape(-1, 2), points[-1:]])


def surface_y(curve: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Height of an articular surface (n, 2) at the columns x; beyond its ends the end's height."""
    return np.interp(x, np.maximum.accumulate(curve[:, 0]), curve[:, 1])


def _turned(points: np.ndarray, radians: float) -> np.ndarray:
    c, s = np.cos(radians), np.sin(radians)
    return points @ np.array([[c, s], [-s, c]])


def _spur(corner: np.ndarray, outward: int, up: int, reach: float, curl: float, base: float) -> np.ndarray:
    """An osteophyte: a lip with its root along the bone's side, drawn out to a tip that curls away from the shaft.

    ``up`` is the y direction from the joint towards the shaft; ``curl`` > 0 turns the tip to the shaft.
    """
    root = base + 1.3 * reach
    shape = [(-0.6 * root, 0.2), (-1.0, -0.1 * reach), (0.55 * reach, -0.12 * reach), (reach, curl * reach)]
    shape += [(0.55 * reach, 0.45 * reach + curl * reach), (0.12 * reach, 0.6 * root), (-1.2, root), (-0.6 * root, 0.2)]
    return smooth(corner + np.array(shape) * (outward, up))


def _lowered(femur: np.ndarray, tibia: np.ndarray, gaps: dict[str, float], size: float) -> np.ndarray:
    """The femur moved rigidly (shift and tilt) so that each compartment's mean joint space is the wanted one, in mm."""
    x = np.linspace(*_LOADED_MM, 9) * size
    for _ in range(2):  # the tilt moves the curve a little sideways: once more removes what is left
        surfaces = smooth(tibia[7:24]), smooth(femur[10:23])
        lateral, medial = (
            np.mean(surface_y(surfaces[0], s * x) - surface_y(surfaces[1], s * x)) - gaps[name]
            for name, s in (("JSN_L", -1), ("JSN_M", 1))
        )
        femur = _turned(femur, (medial - lateral) / (2 * x.mean())) + (0, (medial + lateral) / 2)
    return femur


def _inner_lines(rng: np.random.Generator, femur: np.ndarray, tibia: np.ndarray) -> tuple[np.ndarray, ...]:
    def jitter(points: list[tuple[float, float]]) -> np.ndarray:
        return smooth(np.array(points) + rng.normal(0, 0.8, (len(points), 2)))

    notch, eminence = femur[16], tibia[15]
    return (
        notch + jitter([(-8, 4), (-10, -6), (-9, -17), (-13, -27)]),
        notch + jitter([(9, 4), (11, -6), (10, -16), (13, -24)]),
        notch + jitter([(-34, -28), (-18, -24), (0, -29), (17, -24), (35, -29)]),
        eminence + jitter([(-31, 24), (-16, 21), (0, 23), (16, 20), (31, 24)]),
    )


def draw_size(rng: np.random.Generator) -> float:
    """A person's size against the mean knee (W = 80 mm)."""
    return float(np.clip(rng.normal(1.0, 0.09), 0.78, 1.25))


def draw_anatomy(rng: np.random.Generator, grades: dict[str, int], style: Style, size: float) -> Anatomy:
    """A right knee of the given size with the given features.

    The random numbers used do not depend on the grades: the same seed with other grades is the same person with another
    disease, which is what lets a test (or a figure) show one feature alone.
    """
    stretch = size * np.array([1.0, rng.normal(1.0, 0.03)])

    def person(points: np.ndarray, sd: float = style.shape_sd) -> np.ndarray:
        own = points + np.clip(rng.normal(0, sd, points.shape), -2 * sd, 2 * sd)
        own[-1] = own[0] if np.array_equal(points[0], points[-1]) else own[-1]
        return own * stretch

    femur, tibia, fibula = person(_FEMUR), person(_TIBIA, 0.8 * style.shape_sd), person(_FIBULA)
    for own, middle, sd in ((femur, slice(14, 19), 0.2), (tibia, slice(12, 19), 0.12)):  # fossa and spines vary most
        foot = own[middle.start - 1, 1]
        own[middle, 1] = foot + (own[middle, 1] - foot) * np.clip(rng.normal(1, sd), 0.65, 1.5)
    femur[:, 0] += np.tan(np.radians(rng.normal(5, 2))) * np.minimum(femur[:, 1] + 60, 0)  # shafts lean outward upward
    gaps = {}
    for name, gap in GAP_MM.items():
        width, jitter = np.clip(rng.normal(size, 0.09), 0.75, 1.3), np.clip(rng.normal(0, 0.05), -0.1, 0.1)
        gaps[name] = gap * width * max(GAP_LEFT[grades[name]] + jitter * (grades[name] < 3), 0)
    femur = _lowered(femur, tibia, gaps, size)
    spurs: dict[str, tuple[np.ndarray, ...]] = {"femur": (), "tibia": ()}
    for name, (bone, index, outward) in _SITES.items():
        reach, curl, base = rng.uniform(0.85, 1.15), rng.uniform(*style.spur_curl), rng.uniform(3, 6)
        if grades[name]:
            corner, up = (femur[index], -1) if bone == "femur" else (tibia[index], 1)
            shift = np.array([-0.6 * outward, 0.0])  # rooted inside the bone, or a gap shows
            spurs[bone] += (_spur(corner + shift, outward, up, reach * SPUR_MM[grades[name]] + 0.6, curl, base),)
    patella = smooth(person(_PATELLA) + rng.normal((-1, -33), (3, 5)))
    lines = _inner_lines(rng, femur, tibia)
    tilt = np.radians(np.clip(rng.normal(0, _SD_TILT), -5, 5))
    points = np.vstack([femur[list(_KEY["femur"])], tibia[list(_KEY["tibia"])]])
    return Anatomy(
        femur=_turned(smooth(femur), tilt),
        tibia=_turned(smooth(tibia), tilt),
        fibula=_turned(smooth(fibula), tilt),
        patella=_turned(patella, tilt),
        spurs={bone: tuple(_turned(s, tilt) for s in some) for bone, some in spurs.items()},
        condyles=_turned(smooth(femur[10:23]), tilt),
        plateau=_turned(smooth(tibia[7:24]), tilt),
        lines=tuple(_turned(line, tilt) for line in lines),
        key_points=KeyPoints.from_array(_turned(points, tilt)),
    )
