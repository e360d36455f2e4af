"""Writes what the documents show from the service itself: README's picture, docs/api.md's reply, and what the probe expects."""

import json
import re
from pathlib import Path

from PIL import Image

from deploy.archives import fastest
from kneeoa import SAMPLE, KneeOA
from kneeoa.reporting.figure import as_image

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
    service = KneeOA(runtime=fastest())
    page = service.grade(ROOT / "samples/moderate_oa.dcm", explain="KL").draw()
    Image.fromarray(as_image(page, dpi=88)).quantize(256, kmeans=4).save(ROOT / "docs/sample.png", optimize=True)
    reply = service.grade(SAMPLE).message
    (ROOT / "samples/bilateral.json").write_text(json.dumps(reply, indent=1) + "\n")  # what `kneeoa probe` expects
    text = json.dumps(shorten(reply), indent=2)
    flat = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", text)
    page = ROOT / "docs/api.md"
    before, rest = page.read_text().split("```json\n", 1)
    page.write_text(f"{before}```json\n{flat}\n```{rest.split('```', 1)[1]}")


if __name__ == "__main__":
    main()
