"""Writes what the documents show from the service itself: README's picture, docs/api.md's reply, and what the probe expects."""

import json
import re
from pathlib import Path

from PIL import Image

from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader
from kneeoa.reporting.figure import as_image, displayed, draw_figure
from training.evaluate_films import WEIGHTS, reply_to

ROOT = Path(__file__).resolve().parent.parent


def shorten(reply: dict) -> dict:
    """The second knee, two of its tasks, two of its key points."""
    knee = dict(reply["knees"][1])
    knee["key_points"] = {name: knee["key_points"][name] for name in ("femur_left", "tibia_eminence")}
    knee["grades"] = {name: knee["grades"][name] for name in ("KL", "FM")}
    model = {**reply["model"], "grader": {**reply["model"]["grader"]}}
    model["grader"]["provenance"] = {name: model["grader"]["provenance"][name] for name in ("KL", "FM")}
    return {**reply, "knees": [knee], "model": model}


def main() -> None:
    detector = Detector.from_file(WEIGHTS / "detector.safetensors")
    grader = Grader.from_file(WEIGHTS / "grader.safetensors")
    film = (ROOT / "samples/moderate_oa.dcm").read_bytes()
    shown = reply_to(film, detector, grader, ["KL"])
    figure = draw_figure(displayed(film, shown), shown)
    Image.fromarray(as_image(figure, dpi=88)).quantize(256, kmeans=4).save(ROOT / "docs/sample.png", optimize=True)
    reply = reply_to((ROOT / "samples/bilateral.dcm").read_bytes(), detector, grader)
    (ROOT / "samples/bilateral.json").write_text(json.dumps(reply, indent=1) + "\n")  # what `kneeoa probe` expects
    text = json.dumps(shorten(reply), indent=2)
    flat = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    page = ROOT / "docs/api.md"
    before, rest = page.read_text().split("```json\n", 1)
    page.write_text(f"{before}```json\n{flat}\n```{rest.split('```', 1)[1]}")


if __name__ == "__main__":
    main()
