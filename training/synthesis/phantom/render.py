"""Paints a knee the way X-rays do: everything in the beam adds up, rims of bone are dense, the film sees the sum."""

from collections.abc import Iterable

import cv2
import numpy as np

from kneeoa.geometry import KeyPoints
from training.synthesis.phantom.anatomy import Anatomy, surface_y
from training.synthesis.phantom.style import Style

_SUBPIXEL = 4  # bits of cv2's fixed-point coordinates
_FINER = 4  # pixels a pixel, of the grid that bones are filled on
_SCLEROSIS_FROM_KL = 3
_TISSUE_Y = (-220.0, -120.0, -50.0, 0.0, 50.0, 110.0, 220.0)  # heights of the leg's half widths below, in mm
_TISSUE_X = (78.0, 70.0, 60.0, 55.0, 54.0, 58.0, 52.0)


class Canvas:
    """A raster and the millimetre frame on it: ``origin`` is the eminence's (x, y) in pixels, ``mm`` a pixel's size."""

    def __init__(self, shape: tuple[int, int], origin: tuple[float, float], mm: float) -> None:
        self.shape, self.origin, self.mm = shape, np.array(origin), mm
        self.x = ((np.arange(shape[1], dtype=np.float32) + 0.5 - origin[0]) * mm).astype(np.float32)
        self.y = ((np.arange(shape[0], dtype=np.float32) + 0.5 - origin[1]) * mm).astype(np.float32)[:, None]

    def fixed(self, points: np.ndarray) -> np.ndarray:
        return np.round((points / self.mm + self.origin - 0.5) * 2**_SUBPIXEL).astype(np.int32)

    def mask(self, outlines: Iterable[np.ndarray]) -> np.ndarray:
        """Union of polygons, uint8: the share of each pixel that they cover, times 255.

        OpenCV's own soft edges make a polygon up to a pixel larger.
        """
        fine = np.zeros([_FINER * n for n in self.shape], np.uint8)
        for outline in outlines:
            corners = (outline / self.mm + self.origin) * _FINER - 0.5
            cv2.fillPoly(fine, [np.round(corners).astype(np.int32)], 255)
        return cv2.resize(fine, self.shape[::-1], interpolation=cv2.INTER_AREA)

    def blurred(self, image: np.ndarray, sigma_mm: float, sigma_y_mm: float | None = None) -> np.ndarray:
        x, y = sigma_mm / self.mm, (sigma_y_mm or sigma_mm) / self.mm
        return cv2.GaussianBlur(image, (0, 0), sigmaX=max(x, 0.3), sigmaY=max(y, 0.3))

    def noise(self, rng: np.random.Generator) -> np.ndarray:
        return rng.standard_normal(self.shape, dtype=np.float32)

    def clouds(self, rng: np.random.Generator, cell_mm: float) -> np.ndarray:
        """Soft random clouds about ``cell_mm`` wide, about unit variance."""
        cells = [max(round(n * self.mm / cell_mm), 2) for n in self.shape]
        return cv2.resize(rng.standard_normal(cells, dtype=np.float32), self.shape[::-1], interpolation=cv2.INTER_CUBIC)


def texture(rng: np.random.Generator, canvas: Canvas, style: Style) -> np.ndarray:
    """Density factor of spongy bone around 1: trabeculae along the shaft, fewer across, and patches."""
    width, stretch = rng.uniform(*style.grain_mm), rng.uniform(*style.stretch)
    noise = canvas.noise(rng)
    along, across = canvas.blurred(noise, width, stretch * width), canvas.blurred(noise[::-1], 2 * width, width)
    grain = along / along.std() + 0.6 * across / across.std()
    patches = canvas.clouds(rng, 9) + 0.7 * canvas.clouds(rng, 3.5)
    return 1 + rng.uniform(*style.texture) * grain + rng.uniform(*style.mottle) * patches


def bone(
    canvas: Canvas, mask: np.ndarray, texture: np.ndarray, density: float, cortex: float, rim_mm: float
) -> np.ndarray:
    """Density of one bone: a body that thins towards its edge, texture, and a rim that is thick along the shaft."""
    depth = cv2.distanceTransform((mask > 127).astype(np.uint8), cv2.DIST_L2, 3) * np.float32(canvas.mm)
    shaft = np.clip((np.abs(canvas.y) - 40) / 60, 0, 1)
    body = density * (1 - 0.75 * np.exp(-depth / 5)) * (1 - 0.35 * shaft)
    wall = (depth / (rim_mm + 4.0 * shaft)) ** 2
    rim = cortex * (1 + 0.8 * shaft) / (1 + wall * wall)
    return mask * np.float32(1 / 255) * (body * texture + rim)


def _plates(
    rng: np.random.Generator, canvas: Canvas, anatomy: Anatomy, grades: dict[str, int], style: Style
) -> tuple[np.ndarray, np.ndarray]:
    """Dense bone under the articular surfaces of femur and tibia, with sclerosis where a compartment is worn."""
    x, strength = canvas.x, rng.uniform(*style.plate)
    worn = {}
    for name, side in (("JSN_L", -1), ("JSN_M", 1)):
        degree = rng.uniform(0.7, 1.2) * grades[name] * (grades["KL"] >= _SCLEROSIS_FROM_KL)
        worn[name] = degree / 3 * np.exp(-(((x - 24 * side) / 13) ** 2))
    worn_x = worn["JSN_L"] + worn["JSN_M"]
    loaded = np.exp(-(((np.abs(x) - 19) / 12) ** 2))
    thick = rng.uniform(0.9, 1.5)
    below = canvas.y - surface_y(anatomy.plateau, x).astype(np.float32)
    above = surface_y(anatomy.condyles, x).astype(np.float32) - canvas.y
    sclerosis = 0.16 * worn_x
    tibia = strength * (0.3 + loaded) * np.exp(-((below / (1.5 * thick)) ** 2))
    tibia += sclerosis * np.exp(-((np.maximum(below, 0) / (3 + 4 * worn_x)) ** 2))
    rim_mm = (
        rng.uniform(2.5, 5.0) - 1.5 * (np.abs(x) / 30 - 0.7) ** 2
    )  # the plateau's far margin, seen through the bone
    tibia += 0.25 * strength * (np.abs(x) > 10) * np.exp(-(((below - rim_mm) / 0.6) ** 2))
    femur = 0.6 * strength * (0.25 + loaded) * np.exp(-((above / thick) ** 2))
    femur += 0.7 * sclerosis * np.exp(-((np.maximum(above, 0) / (2.5 + 3 * worn_x)) ** 2))
    return femur.astype(np.float32), tibia.astype(np.float32)


def tissue(rng: np.random.Generator, canvas: Canvas, style: Style) -> np.ndarray:
    """Skin to skin: an oval section, with a lucent layer of fat around the muscle."""
    girth = rng.uniform(*style.girth)
    half = (
        girth
        * np.interp(canvas.y, _TISSUE_Y, _TISSUE_X).astype(np.float32)
        * (1 + rng.normal(0, 0.05) * canvas.y / 100)
    )
    middle = rng.normal(0, 3) - rng.uniform(0.0, 0.08) * np.minimum(canvas.y, 0)
    u = np.abs(canvas.x - middle) / half
    fat = rng.uniform(4, 12) * girth**2
    muscle = 1 - np.exp(-((np.clip((half - fat) / half - u, 0, 1) / 0.25) ** 1.5))
    oval = np.sqrt(np.clip(1 - u * u, 0, 1))
    density = rng.uniform(*style.tissue) * (0.65 * oval + 0.35 * muscle)
    return (density * (1 + 0.03 * canvas.clouds(rng, 25) + 0.015 * canvas.clouds(rng, 6))).astype(np.float32)


def draw_leg(
    rng: np.random.Generator,
    anatomy: Anatomy,
    grades: dict[str, int],
    shape: tuple[int, int],
    origin: tuple[float, float],
    mm: float,
    look: Style,
) -> tuple[np.ndarray, KeyPoints]:
    """One right leg in the beam.

    Parameters
    ----------
    anatomy, grades
        Whose knee, and the grades it was drawn with: they decide on sclerosis.
    origin : (x, y)
        The tibial eminence in pixels.
    mm : float
        Size of a pixel in millimetres.

    Returns
    -------
    attenuation : float32 ndarray of shape ``shape``
        0 in air, around 1 in the thickest bone.
    key_points : KeyPoints
        In pixels of the canvas.
    """
    canvas = Canvas(shape, origin, mm)
    grain = texture(rng, canvas, look)
    density, cortex, rim_mm = (rng.uniform(*r) for r in (look.bone, look.cortex, look.cortex_mm))
    femur_mask, tibia_mask = (
        canvas.mask((outline, *anatomy.spurs[name]))
        for name, outline in (("femur", anatomy.femur), ("tibia", anatomy.tibia))
    )
    plates = _plates(rng, canvas, anatomy, grades, look)
    leg = tissue(rng, canvas, look)
    # Each bone is only as wide as itself: where condyle and plateau touch, the denser one counts, not their sum.
    femur, tibia = (
        bone(canvas, mask, grain, density, cortex, rim_mm) + plate * mask * np.float32(1 / 255)
        for mask, plate in zip((femur_mask, tibia_mask), plates, strict=True)
    )
    joint = np.maximum(femur, tibia)
    marks = np.zeros(shape, np.uint8)
    for line in anatomy.lines:
        cv2.polylines(marks, [canvas.fixed(line)], False, 255, max(round(0.6 / mm), 1), cv2.LINE_AA, _SUBPIXEL)
    joint += rng.uniform(0.03, 0.09) * canvas.blurred(marks, 0.4) * (joint > 0) / np.float32(255)
    leg += joint
    leg += 0.7 * bone(canvas, canvas.mask((anatomy.fibula,)), grain, 0.7 * density, cortex, 1.0)
    patella = bone(canvas, canvas.mask((anatomy.patella,)), grain, density, 0.6 * cortex, 1.0)
    leg += rng.uniform(*look.patella) * canvas.blurred(patella, 0.8)
    return leg, anatomy.key_points.scaled(1 / mm).shifted(*origin)
