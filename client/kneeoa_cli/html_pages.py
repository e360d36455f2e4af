"""A report's pages, made from replies and pictures: an index, a page a study, a page of changes a patient of several dates."""

import base64
import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from kneeoa.messages import Message
from kneeoa.reporting.figure import kl_2_or_more, label_kinds, origin, versions, width
from kneeoa.tasks import KL, OA, TASKS
from kneeoa_cli.change import NOISE_MM, changes, rate
from kneeoa_cli.files.names import digest, printable
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.files.tables import rows_of
from kneeoa_cli.words import words

GRADES = [task.name.replace("_", "-") for task in TASKS]
COLUMNS = ["film", "date", "knee", "status", *GRADES, "JSW-L", "JSW-M", "P(OA) %", "remarks"]
TEXTS = ("film", "date", "knee", "status", "remarks")
Words = dict[str, Any]


@dataclass(frozen=True)
class Page:
    """A film that was read: its picture, and what its header says without naming anybody.

    Attributes
    ----------
    study : str
        What its page is called.
    patient : str
        The same for all films of one patient, told nowhere; empty where the file names none.
    date : str
        The study's, as ISO 8601 has it, or empty.
    body_part : str
    joints : dict of str to Path
        Pictures of its joints in one scale, by side.
    """

    picture: Path
    study: str
    patient: str = ""
    date: str = ""
    body_part: str = ""
    joints: dict[str, Path] = field(default_factory=dict)


def write_report(
    outputs: Outputs, folder: Path, replies: dict[str, Message], films: dict[str, Page], language: str = "en"
) -> None:
    """All pages into ``folder``; ``films`` are those of the ``replies`` that were read, by name."""
    templates = Environment(loader=PackageLoader("kneeoa_cli"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.globals["width"] = width
    say, short = words(language), short_names(replies)
    made_by = sorted({f"{', '.join(versions(r))}. {origin(r)}" for r in replies.values() if r["status"] != "error"})

    def write(name: str, template: str, **content: Any) -> None:
        page = templates.get_template(template).render(say=say, made_by=made_by, **content)
        outputs.write(folder / f"{name}.html", page.encode(errors="replace"))

    studies, patients = _grouped(films, "study"), _grouped(films, "patient")
    moved = {}
    for patient, names in patients.items():
        if sides := changes((films[name].date, name, replies[name]) for name in names):
            dates = sorted({visit["date"] for visits in sides.values() for visit in visits})
            title = f"{say['change_of']} {dates[0]} {say['to']} {dates[-1]}"
            page = f"change-{digest(' '.join(sorted({films[name].study for name in names})))[:10]}"
            moved[patient] = page, title
            told = {side: _changed(visits, films, say) for side, visits in sides.items()}
            write(page, "change.html", title=title, sides=told, noise_mm=NOISE_MM)
    for study, names in studies.items():
        title = _title(study_films := {name: films[name] for name in names}, replies, say)
        links = sorted({moved[page.patient] for page in study_films.values() if page.patient in moved})
        sections = [_section(short[name], replies[name], films[name].picture, say) for name in sorted(names)]
        write(study, "study.html", title=title, films=sections, links=links)
    rows = [row for name, reply in replies.items() for row in _rows(short[name], reply, films.get(name), say)]
    statuses = sorted({row["status"] for row in rows})
    write(
        "index", "index.html", rows=rows, columns=COLUMNS, texts=TEXTS, studies=len(studies), statuses=statuses,
        links=sorted(moved.values(), key=lambda link: link[1]),
    )  # fmt: skip


def short_names(names: Iterable[str]) -> dict[str, str]:
    """The names as they are below the folder that has them all, printable: nobody needs to know where that is."""
    named = list(names)
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(name)) for name in named]) if named else ""
    return {name: printable(os.path.relpath(os.path.abspath(name), folder)) for name in named}


def _grouped(films: dict[str, Page], by: str) -> dict[str, list[str]]:
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for name, page in films.items():
        if group := getattr(page, by):
            groups[group].append(name)
    return groups


def _title(films: dict[str, Page], replies: dict[str, Message], say: Words) -> str:
    """Date, body part and sides."""
    sides = {knee["knee"] for name in films for knee in replies[name]["knees"]}
    told = f" {say['and']} ".join(say[side] for side in ("R", "L", "unknown") if side in sides)
    page = next(iter(films.values()))
    part = page.body_part if page.body_part.upper() not in ("", "KNEE") else say["knee"]
    return f"{page.date or say['undated']}: {part.capitalize()}, {told}"


def _section(name: str, reply: Message, picture: Path, say: Words) -> dict[str, Any]:
    """A film on its study's page."""
    kinds = label_kinds(reply)
    knees = [
        {
            "side": say[knee["knee"]],
            "kl": knee["grades"][KL.name]["grade"] if knee["grades"] else None,
            "kl2": knee["grades"] and kl_2_or_more(knee),
            "reason": say["remark"].get(knee["reason"], knee["reason"]),
            "warnings": [say["remark"].get(word, word) for word in knee["warnings"]],
            "widths": knee.get("joint_space"),
            "groups": [
                (
                    f" {say['and']} ".join(say[kind] for kind in kind.split(" and ")),
                    [(say["task"][t], knee["grades"][t]) for t in tasks],
                )
                for kind, tasks in kinds.items()
            ]
            if knee["grades"]
            else [],
        }
        for knee in reply["knees"]
    ]
    told = [f"{k['side']}: " + (say["not_graded"] if k["kl"] is None else f"KL {k['kl']}") for k in knees]
    return {
        "name": name,
        "picture": _embedded(picture),
        "told": "; ".join(told),
        "warnings": [say["remark"].get(word, word) for word in reply["film"]["warnings"]],
        "knees": knees,
        "reply": json.dumps(reply, indent=2),
    }


def _changed(visits: list[dict[str, Any]], films: dict[str, Page], say: Words) -> dict[str, Any]:
    """A knee on its patient's page: what it was at each visit, and how fast its joint spaces changed."""
    dates = [visit["date"] for visit in visits]
    rows = []
    for visit in visits:
        knee, page = visit["knee"], films[visit["film"]]
        joint = page.joints.get(knee["knee"])
        rows.append(
            {
                "date": visit["date"],
                "page": f"{page.study}.html",
                "kl": knee["grades"][KL.name]["grade"],
                "kl2": kl_2_or_more(knee),
                "widths": knee.get("joint_space"),
                "picture": joint and _embedded(joint),
            }
        )
    rates = []
    for side in ("lateral", "medial"):
        for place in ("minimum", "fixed"):
            widths = [row["widths"] and row["widths"][side][place]["mm"] for row in rows]
            if found := rate(dates, widths):
                name = say[side] + (f", {say['at_quarter']}" if place == "fixed" else "")
                rates.append((name, found))
    return {"visits": rows, "rates": rates}


def _rows(name: str, reply: Message, page: Page | None, say: Words) -> list[dict[str, Any]]:
    """The index's rows of a film: one a knee; a film that could not be read is one with its error."""
    rows = []
    for row in rows_of(name, reply):
        shown = {task: "" if row[task.name] is None else row[task.name] for task in TASKS}
        remarks = [word for word in (row["error_code"], *(row["warnings"] or "").split("; ")) if word]
        rows.append(
            {
                "film": name,
                "page": page and f"{page.study}.html",
                "status": row["status"],
                "kl": shown[KL],
                "oa": shown[OA],
                "warned": int(bool(remarks)),
                "cells": [
                    page.date if page else "",
                    "" if row["status"] == "error" else say[row["knee"]],
                    say[row["status"]],
                    *shown.values(),
                    *("" if row[f"JSW_{side}_mm"] is None else f"{row[f'JSW_{side}_mm']:.1f}" for side in "LM"),
                    "" if row["OA_p1"] is None else f"{100 * row['OA_p1']:.1f}",
                    "; ".join(say["remark"].get(word, word) for word in remarks),
                ],
            }
        )
    return rows


def _embedded(picture: Path) -> str:
    return base64.b64encode(picture.read_bytes()).decode("ascii")
