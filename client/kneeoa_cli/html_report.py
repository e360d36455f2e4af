"""`kneeoa report`: a page per study and an index that sorts and filters, in files that need no server and ask for nothing."""

import argparse
import base64
import json
from collections import defaultdict
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinja2 import Environment, PackageLoader
from PIL import Image
from pydicom import dcmread

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.imaging.quiet import quiet
from kneeoa.messages import Message
from kneeoa.remarks import WORDS
from kneeoa.reporting.figure import OPACITY, as_image, displayed, draw_figure, origin, versions
from kneeoa.tasks import KL, OA, TASKS
from kneeoa_cli.files.inputs import Source, walk
from kneeoa_cli.files.names import digest, printable
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.files.tables import rows_of
from kneeoa_cli.grading import all_graded, counted, grade_all
from kneeoa_client.client import ANY_VIEW, Client

SIDES = {"R": "right", "L": "left", "unknown": "side unknown"}
COLUMNS = ["film", "knee", "status", *(task.name.replace("_", "-") for task in TASKS), "P(OA) %", "remarks"]
TEXTS = ("film", "knee", "status", "remarks")


def run(arguments: argparse.Namespace) -> int:
    """Grade films and write their report: 0 when every film was graded, 1 when some could not be, 2 without a server."""
    skipped: list[Source] = []
    films = list(walk(arguments.paths, skipped))
    outputs = Outputs.beside(films)
    server = Client.find(arguments.server, arguments.key_file, arguments.proxy)
    server.headers = {"X-Kneeoa-Explain": arguments.explain, **(ANY_VIEW if arguments.any_view else {})}
    opacity = OPACITY if arguments.opacity is None else arguments.opacity
    folder: Path = arguments.html
    folder.mkdir(parents=True, exist_ok=True)
    outputs.check(folder / "index.html")
    replies: dict[str, Message] = {}
    studies: defaultdict[str, dict[str, Path]] = defaultdict(dict)
    with TemporaryDirectory(dir=folder) as aside:  # pictures: of a large batch too many to hold

        def use(film: Source, data: bytes, reply: Message) -> None:
            replies[film.name] = reply
            if reply["status"] != "error":
                page = draw_figure(displayed(data, reply), reply, opacity=opacity)
                picture = Path(aside) / f"{digest(film.name)}.webp"
                Image.fromarray(as_image(page)).save(picture, quality=88, method=4)
                studies[study_of(data, film.name)][film.name] = picture

        try:
            grade_all(films, server, arguments.side, use)
        finally:
            if replies:
                answered = {film.name: replies[film.name] for film in films if film.name in replies}
                write_report(outputs, folder, answered, studies)
                print(counted(replies.values(), skipped), f"wrote {folder / 'index.html'}", DISCLAIMER, sep="\n")
    return int(not all_graded(replies.values()))


def study_of(data: bytes, name: str) -> str:
    """What a study's page is called: a digest of its UID, which is not told, or of the name of a file that belongs to none."""
    try:
        with quiet():
            named = str(
                dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID
            )
    except Exception:  # no DICOM, or a damaged header
        named = name
    return digest(named)[:10]


def write_report(
    outputs: Outputs, folder: Path, replies: dict[str, Message], studies: dict[str, dict[str, Path]]
) -> None:
    """``index.html`` and a page for each of ``studies``, which hold the picture of each of their films by its name."""
    pages = Environment(loader=PackageLoader("kneeoa_cli"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    read = [reply for reply in replies.values() if reply["status"] != "error"]
    made_by = sorted({f"{', '.join(versions(reply))}. {origin(reply)}" for reply in read})
    common = {"disclaimer": DISCLAIMER, "made_by": made_by}
    for number, films in studies.items():
        sections = [_section(name, replies[name], picture) for name, picture in sorted(films.items())]
        page = pages.get_template("study.html").render(common, number=number, films=sections)
        outputs.write(folder / f"{number}.html", page.encode(errors="replace"))
    page_of = {name: f"{number}.html" for number, films in studies.items() for name in films}
    rows = [row for name, reply in replies.items() for row in _rows(name, reply, page_of.get(name))]
    page = pages.get_template("index.html").render(
        common,
        rows=rows,
        columns=COLUMNS,
        texts=TEXTS,
        studies=len(studies),
        statuses=sorted({row["status"] for row in rows}),
    )
    outputs.write(folder / "index.html", page.encode(errors="replace"))


def _section(name: str, reply: Message, picture: Path) -> dict[str, Any]:
    """A film on its study's page."""
    knees = [
        {
            "side": SIDES[knee["knee"]],
            "reason": WORDS.get(knee["reason"], knee["reason"]),
            "grades": [(task.name, task.title, knee["grades"][task.name]) for task in TASKS] if knee["grades"] else [],
        }
        for knee in reply["knees"]
    ]
    told = "; ".join(
        f"{k['side']} knee: " + (f"KL {k['grades'][0][2]['grade']}" if k["grades"] else "not graded") for k in knees
    )
    return {
        "name": printable(name),
        "picture": base64.b64encode(picture.read_bytes()).decode("ascii"),
        "told": told,
        "knees": knees,
        "reply": json.dumps(reply, indent=2),
    }


def _rows(name: str, reply: Message, page: str | None) -> list[dict[str, Any]]:
    """The index's rows of a film: one a knee; a film that could not be read is one with its error."""
    rows = []
    warnings = [knee["warnings"] for knee in reply["knees"]] or [[]]
    for row, warned in zip(rows_of(name, reply), warnings, strict=True):
        shown = {task: "" if row[task.name] is None else row[task.name] for task in TASKS}
        remarks = [word for word in (row["error_code"], *warned) if word]
        rows.append(
            {
                "film": printable(name),
                "page": page,
                "status": row["status"],
                "kl": shown[KL],
                "oa": shown[OA],
                "warned": int(bool(remarks)),
                "cells": [
                    "" if row["status"] == "error" else SIDES[row["knee"]],
                    row["status"],
                    *shown.values(),
                    "" if row["OA_p1"] is None else f"{100 * row['OA_p1']:.1f}",
                    ", ".join(WORDS.get(word, word) for word in remarks),
                ],
            }
        )
    return rows
