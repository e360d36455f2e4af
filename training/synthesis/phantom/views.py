"""Knees as they are not graded: from the side and along the thigh (skyline), drawn for tests only."""

import cv2
import numpy as np

from training.synthesis.phantom.anatomy import draw_size, smooth
from training.synthesis.phantom.physics import expose
from training.synthesis.phantom.render import Canvas, bone, texture, tissue
from training.synthesis.phantom.style import STYLES

# In millimetres; x points to the front, y down, the origin lies where femur and tibia meet.
_LATERAL = {
    "femur": [(-18, -300), (-17, -120), (-16, -80), (-24, -58), (-32, -36), (-30, -16), (-16, -3), (2, -2), (18, -9),
              (27, -24), (25, -44), (17, -62), (13, -90), (12, -130), (10, -300)],
    "tibia": [(-20, 300), (-19, 120), (-20, 70), (-25, 34), (-30, 12), (-26, 4), (-8, 2), (2, -4), (10, 1), (24, 2),
              (27, 12), (24, 28), (27, 40), (20, 62), (14, 90), (11, 140), (9, 300)],
    "fibula": [(-30, 300), (-29, 90), (-34, 40), (-31, 22), (-24, 20), (-19, 34), (-20, 90), (-20, 300)],
    "patella": [(34, -44), (44, -40), (47, -24), (42, -8), (37, -4), (32, -16), (30, -32), (34, -44)],
}  # fmt: skip
_SKYLINE = {
    "femur": [(-46, 60), (-44, 26), (-38, 6), (-28, -6), (-16, -8), (-4, 2), (6, 3), (18, -4), (30, -3), (40, 8),
              (45, 28), (46, 60), (30, 78), (0, 70), (-30, 78), (-46, 60)],
    "patella": [(-27, -22), (-14, -34), (4, -38), (20, -30), (25, -22), (10, -13), (-2, -9), (-14, -14), (-27, -22)],
}  # fmt: skip
VIEWS = {"lateral": _LATERAL, "skyline": _SKYLINE}


def draw_view(rng: np.random.Generator, view: str, spacing_mm: float = 0.5, style: str = "test") -> np.ndarray:
    """A film of one knee, 180 × 260 mm, float32 (h, w), 0 … 1, bones bright; ``view`` is one of `VIEWS`."""
    look, size = STYLES[style], draw_size(rng)
    height, width = round(260 / spacing_mm), round(180 / spacing_mm)
    middle = rng.normal((width / 2, height / 2), 8 / spacing_mm)
    canvas = Canvas((height, width), (float(middle[0]), float(middle[1])), spacing_mm)
    grain = texture(rng, canvas, look)
    density, cortex, rim = (rng.uniform(*r) for r in (look.bone, look.cortex, look.cortex_mm))
    film, sign, turn = tissue(rng, canvas, look), rng.choice([-1, 1]), np.radians(rng.normal(0, 5))
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    for outline in VIEWS[view].values():
        points = (np.array(outline, float) + rng.normal(0, 0.8, (len(outline), 2))) * size
        points[-1] = points[0] if outline[0] == outline[-1] else points[-1]
        shape = canvas.mask((smooth(points) @ matrix * (sign, 1),))
        film += bone(canvas, shape, grain, density, cortex, rim)
    return expose(rng, np.asarray(cv2.GaussianBlur(film, (0, 0), 0.5), np.float32), spacing_mm, look)
