"""The film with boxes, key points and grades drawn on it."""

from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kneeoa.imaging import decode
from kneeoa.imaging.prepare import correct_polarity, to_8bit
from kneeoa.tasks import COMPARTMENT_TASKS, KL

WIDTH = 1400  # px; films are drawn at this width whatever their own
BOX, POINT, TEXT = (86, 180, 233), (240, 228, 66), (255, 255, 255)  # Okabe-Ito: colour-blind safe, distinct in grey


def draw_film(data: bytes, reply: dict[str, Any]) -> Image.Image:
    """The film as the service read it, with its reply drawn on it: an RGB image 1400 px wide.

    Raises
    ------
    KneeOaError
        If the film cannot be decoded.
    """
    film = decode(data)
    pixels, _ = correct_polarity(film.pixels, film.polarity)
    scale = WIDTH / pixels.shape[1]
    picture = Image.fromarray(np.asarray(to_8bit(pixels)))
    picture = picture.resize((WIDTH, round(pixels.shape[0] * scale)), Image.Resampling.LANCZOS).convert("RGB")
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(26)
    for knee in reply["knees"]:
        if knee["box"] is None:
            continue
        box, joint = ([scale * v for v in knee[name]] for name in ("box", "main_joint"))
        pen.rectangle(box, outline=BOX, width=3)
        pen.rectangle(joint, outline=BOX, width=1)
        for x, y in knee["key_points"].values():
            pen.ellipse([scale * x - 5, scale * y - 5, scale * x + 5, scale * y + 5], outline=POINT, width=3)
        lines = caption(knee)
        top = box[3] + 10 if box[3] + 120 < picture.height else max(box[1] - 120, 0)
        pen.multiline_text(
            (box[0], top), "\n".join(lines), TEXT, font, stroke_width=3, stroke_fill=(0, 0, 0), spacing=6
        )
    note = f"kneeoa {reply['model']['grader']['version']}. {reply['disclaimer']}"
    pen.text((12, picture.height - 30), note, TEXT, ImageFont.load_default(18), stroke_width=2, stroke_fill=(0, 0, 0))
    return picture


def caption(knee: dict[str, Any]) -> list[str]:
    """A knee's grades in three short lines."""
    grades = knee["grades"]
    probability = max(grades[KL.name]["probabilities"])
    oa = "OA" if grades["OA"]["grade"] else "no OA"
    lines = [f"{knee['knee']}  KL {grades[KL.name]['grade']} ({probability:.0%})  {oa}"]
    for tasks in (COMPARTMENT_TASKS[:2], COMPARTMENT_TASKS[2:]):
        shown = ((task.name.replace("_", "-"), grades[task.name]["grade"]) for task in tasks)
        lines.append("  ".join(f"{name} {'–' if grade is None else grade}" for name, grade in shown))
    return lines
