"""OARSI features drawn into real knees: joint spaces narrowed by a warp, osteophytes grown from the knee's own bone.

The texture is real and the grades are known. Frame: pixels of the crop, y down, the knee shown as a right one, so lateral
is at the image's left. The landmarks only say where to look (they are 1–2 mm off): surfaces and margins are traced in the
pixels. ``style="test"`` draws from ranges outside those of ``"train"``.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from kneeoa.geometry import KeyPoints
from kneeoa.measurement.joint_space import strongest_path
from kneeoa.tasks import NARROWINGS, OSTEOPHYTES
from training.data.knee_kl import SIX
from training.data.landmarks import FEMUR, LOADED, TIBIA
from training.synthesis.phantom.anatomy import GAP_LEFT, SPUR_MM

Range = tuple[float, float]
_CORNERS = {"FL": (9, -1), "FM": (15, 1), "TL": (0, -1), "TM": (8, 1)}  # landmark, outward x direction


@dataclass(frozen=True)
class LesionStyle:
    """Uniform ranges; lengths in mm unless said otherwise."""

    femur_share: Range = (0.35, 0.65)  # of the closing that the femur makes, the tibia makes the rest
    sclerosis: Range = (0.06, 0.20)  # added brightness under a worn surface, share of 255
    curl: Range = (-0.10, 0.35)  # rise of the tip towards the shaft, in units of the reach
    root: Range = (0.9, 1.6)  # length along the bone's side, in units of the reach
    hollow: Range = (1.2, 2.0)  # 1 is a triangle, more a beak
    blunt: Range = (0.05, 0.35)  # height of the tip, in units of the reach
    lift: Range = (1.0, 3.0)  # of a femoral spur above the condyle's lowest point
    contrast: Range = (-0.2, 0.3)  # of the spur's cortex and texture, against the bone it grows from


STYLES = {
    "train": LesionStyle(),
    "test": LesionStyle(
        femur_share=(0.15, 0.30),
        sclerosis=(0.02, 0.05),
        curl=(0.40, 0.65),
        root=(1.7, 2.1),
        hollow=(0.8, 1.1),
        blunt=(0.40, 0.60),
        lift=(3.2, 4.5),
        contrast=(0.35, 0.60),
    ),
}


def _surfaces(image: np.ndarray, landmarks: np.ndarray, mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the condyles and of the plateau in every column of the image; held beyond the corners."""
    columns, reach = np.arange(image.shape[1]), round(2.2 / mm)
    steep = cv2.Sobel(cv2.GaussianBlur(image.astype(np.float32), (0, 0), 0.5 / mm), cv2.CV_32F, 0, 1)
    surfaces = []
    for part, sign in ((landmarks[FEMUR], -1), (landmarks[TIBIA], 1)):
        x = np.arange(np.ceil(part[0, 0]), np.floor(part[-1, 0]) + 1)
        row = np.interp(x, np.maximum.accumulate(part[:, 0]), part[:, 1])
        surfaces.append(np.interp(columns, x, row + _trace(sign * steep, x, row, reach)))
    femur, tibia = surfaces
    return np.minimum(femur, tibia - 0.5), tibia


def _closing(
    rng: np.random.Generator, femur: np.ndarray, tibia: np.ndarray, left: float, width: float, grades: dict, mm: float
) -> np.ndarray:
    """How far the bones approach each other in each column, px: a shift and a tilt, stopped where bone meets bone."""
    gap, columns = tibia - femur, np.arange(len(femur))
    zones = [left + width * np.array(LOADED[name]) for name in NARROWINGS]
    inside = [(columns >= a) & (columns <= b) for a, b in zones]
    centres = [zone.mean() for zone in zones]
    wanted = []
    for name, loaded in zip(NARROWINGS, inside, strict=True):
        share = GAP_LEFT[grades[name]] + np.clip(rng.normal(0, 0.05), -0.1, 0.1) * (grades[name] < 3)
        wanted.append(gap[loaded].mean() * max(share, 0.0))
    close = np.array([gap[loaded].mean() - w for loaded, w in zip(inside, wanted, strict=True)])
    held = columns.clip(left, left + width)
    worn = grades[NARROWINGS[0]] == 3 or grades[NARROWINGS[1]] == 3
    floor = np.minimum(gap, (0.0 if worn else 0.4) / mm)
    for _ in range(8):  # contact leaves more space beside it than wanted: press on
        slope = (close[1] - close[0]) / (centres[1] - centres[0])
        moved = np.minimum(close[0] + slope * (held - centres[0]), gap - floor)
        moved = cv2.GaussianBlur(moved[None], (0, 1), 1.5 / mm)[0]
        close = close + [(gap - moved)[loaded].mean() - w for loaded, w in zip(inside, wanted, strict=True)]
    return moved


def _narrowed(
    image: np.ndarray, femur: np.ndarray, tibia: np.ndarray, down: np.ndarray, up: np.ndarray, mm: float
) -> np.ndarray:
    """Each bone moved rigidly near the joint, not at all far up its shaft; the space between them is cut away."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)

    def held(distance_px: np.ndarray) -> np.ndarray:  # 1 up to 22 mm from the joint line, 0 from 52 mm
        return (np.cos(np.clip((distance_px * mm - 22) / 30, 0, 1) * np.pi) + 1) / 2

    middle = (femur + tibia) / 2  # of the old space
    meet = (femur + down + tibia - up) / 2  # of the new space
    above = np.minimum(y - down * held(meet - y), np.maximum(middle, femur + 1 / mm))
    below = np.maximum(y + up * held(y - meet), np.minimum(middle, tibia - 1 / mm))
    above, below = (
        cv2.remap(image, x, rows.astype(np.float32), cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        for rows in (above, below)
    )
    part = np.clip((y - meet) * 0.5 + 0.5, 0, 1)  # values are blended, not places: closed bones show no dark seam
    return ((1 - part) * above + part * below).astype(np.float32)


def _sclerosis(
    rng: np.random.Generator, image: np.ndarray, femur: np.ndarray, tibia: np.ndarray, left: float, width: float,
    grades: dict, look: LesionStyle, mm: float,
) -> None:  # fmt: skip
    """Dense bone under a worn surface, from grade 2 on; brightens the float image in place."""
    y, columns = np.arange(image.shape[0])[:, None], np.arange(image.shape[1])
    for name in NARROWINGS:
        strength, thick = rng.uniform(*look.sclerosis), rng.uniform(2.0, 5.0) / mm
        if grades[name] < 2:
            continue
        a, b = left + width * np.array(LOADED[name])
        across = np.exp(-(((columns - (a + b) / 2) / (0.55 * (b - a))) ** 2)) * strength * (grades[name] - 1) / 2
        for depth, share in ((y - tibia, 1.0), (femur - y, 0.6)):
            inside = np.clip(depth + 0.5, 0, 1) * np.exp(-((np.maximum(depth, 0) / thick) ** 2))
            image += (share * across * inside * (255 - image)).astype(np.float32) * 2


def _margin(image: np.ndarray, corner: np.ndarray, outward: int, shaft: int, mm: float) -> np.ndarray:
    """The bone's side from the corner 16 mm along the shaft: columns, one a row, float (n,).

    Sought from 2 mm inside the corner to 5 or 6 mm outside, as a long step from bright to dark on a millimetre: the skin's is
    as dark beyond, but wider; a trabecula's is as steep, but shorter.
    """
    rows = corner[1] + shaft * np.arange(round(16 / mm) + 1)
    offsets = np.arange(-round(2 / mm), round((6 if shaft < 0 else 5) / mm) + 1)
    x = (corner[0] + outward * offsets)[None].repeat(len(rows), 0).astype(np.float32)
    y = rows[:, None].repeat(len(offsets), 1).astype(np.float32)
    across = cv2.Sobel(image, cv2.CV_32F, 1, 0)
    steep: np.ndarray = -outward * cv2.GaussianBlur(across, (0, 0), 0.6 / mm, sigmaY=1.5 / mm)
    steep -= cv2.GaussianBlur(steep, (0, 0), 4 / mm)
    steep /= cv2.GaussianBlur(np.abs(steep), (0, 0), 3 / mm) + np.abs(steep).mean()
    edge = cv2.remap(steep, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return corner[0] + outward * (strongest_path(edge, 1.0) + offsets.mean())


def _grow(
    rng: np.random.Generator, image: np.ndarray, corner: np.ndarray, outward: int, shaft: int, reach_mm: float,
    look: LesionStyle, mm: float,
) -> np.ndarray:  # fmt: skip
    """The image with an osteophyte at one corner, float32; the random numbers used do not depend on its size.

    The bone's side is drawn out into a lip, texture, cortex and all: far at the articular surface, less and less along
    the shaft. So it continues the bone wherever exactly the side is, which no painted shape does.
    """
    curl, root, hollow, blunt, contrast, lift = (
        rng.uniform(*r) for r in (look.curl, look.root, look.hollow, look.blunt, look.contrast, look.lift)
    )
    if reach_mm <= 0:
        return image
    height, width = image.shape
    y, x = np.mgrid[:height, :width].astype(np.float32) * np.float32(mm)
    corner, margin = corner * mm, _margin(image, corner, outward, shaft, mm) * mm
    along = shaft * (y - corner[1])  # from the articular surface; a condyle is round: its side begins higher
    side = np.interp(along[:, 0], np.arange(len(margin)) * mm, outward * margin)[:, None]
    beyond = outward * x - side
    rise = curl * reach_mm * np.clip(beyond / reach_mm, 0, 1.2) ** 2  # the tip turns away from the joint
    along = along - rise - lift * (shaft < 0)
    profile = np.clip((along + 0.5) / (0.8 + blunt * reach_mm), 0, 1) ** 0.7
    profile *= np.clip(1 - along / (2.5 + root * reach_mm), 0, 1) ** hollow
    inner = np.clip((beyond + 9) / (7 + reach_mm), 0, 1)  # bone stretched over 7 mm, its last 2 mm carried along whole
    outer = np.clip(1 - (beyond - reach_mm * profile - 2) / 5, 0, 1)  # flesh gives way
    pull = reach_mm * profile * inner * outer
    flesh = np.clip((beyond - reach_mm - 0.5) / 2, 0, 1)  # it bulges softly round the tip
    pull += flesh * (cv2.GaussianBlur(pull, (0, 0), 3 / mm) - pull)
    from_x, from_y = (
        ((x - outward * pull) / mm).astype(np.float32),
        ((y - shaft * rise * profile * outer) / mm).astype(np.float32),
    )
    drawn = cv2.remap(image, from_x, from_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    spur = np.clip(pull / reach_mm * 2, 0, 1) * np.clip(1 + beyond / 2, 0, 1)
    return drawn + (contrast * spur * (drawn - cv2.GaussianBlur(drawn, (0, 0), 1.5 / mm))).astype(np.float32)


def draw_lesions(
    rng: np.random.Generator,
    image: np.ndarray,
    landmarks: np.ndarray,
    mm_per_px: float,
    grades: dict[str, int],
    style: str = "train",
) -> tuple[np.ndarray, KeyPoints]:
    """The same knee with the six features wanted.

    Parameters
    ----------
    image : uint8 ndarray of shape (h, w)
        A right knee without features, bones bright; not changed.
    landmarks : ndarray of shape (16, 2)
        In pixels, in the order of `knee_kl.LANDMARKS`.
    mm_per_px : float
    grades : dict
        At least JSN_L, JSN_M, FL, FM, TL and TM, 0 … 3. All zero: the image is returned as it is.
    style : {"train", "test"}

    Returns
    -------
    (image, key_points)
        uint8 (h, w) and the six key points, moved with their bones.
    """
    names = (*NARROWINGS, *OSTEOPHYTES)
    if not any(grades[name] for name in names):
        return image.copy(), KeyPoints.from_array(landmarks[SIX])
    look, points = STYLES[style], landmarks.astype(float).copy()
    left, width = points[0, 0], points[8, 0] - points[0, 0]
    femur, tibia = _surfaces(image, points, mm_per_px)
    closing = _closing(rng, femur, tibia, left, width, grades, mm_per_px)
    share = rng.uniform(*look.femur_share)
    down, up = share * closing, (1 - share) * closing
    drawn = _narrowed(image.astype(np.float32), femur, tibia, down, up, mm_per_px)
    columns = np.arange(image.shape[1])
    points[FEMUR, 1] += np.interp(points[FEMUR, 0], columns, down)
    points[TIBIA, 1] -= np.interp(points[TIBIA, 0], columns, up)
    femur, tibia = femur + down, tibia - up
    _sclerosis(rng, drawn, femur, tibia, left, width, grades, look, mm_per_px)
    for name in rng.permutation(OSTEOPHYTES):
        at, outward = _CORNERS[name]
        surface, shaft = (femur, -1) if name[0] == "F" else (tibia, 1)
        corner = np.array([points[at, 0], np.interp(points[at, 0], columns, surface)])
        reach = SPUR_MM[grades[name]] * rng.uniform(0.85, 1.15)
        drawn = _grow(rng, drawn, corner, outward, shaft, reach, look, mm_per_px)
    return np.clip(np.round(drawn), 0, 255).astype(np.uint8), KeyPoints.from_array(points[SIX])


def _trace(edges: np.ndarray, x: np.ndarray, y: np.ndarray, reach: int, stiffness: float = 2.0) -> np.ndarray:
    """Rows from ``y`` to the path with the strongest edge beside the points (x, y), at most ``reach`` away, float (n,)."""
    offsets = np.arange(-reach, reach + 1)
    columns = x[:, None].repeat(len(offsets), 1).astype(np.float32)
    rows = (y[:, None] + offsets).astype(np.float32)
    found = cv2.remap(edges, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return strongest_path(found, stiffness)
