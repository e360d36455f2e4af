"""`kneeoa report`: a page a study and an index that sorts and filters, in files that need no server and ask for nothing."""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.messages import Message
from kneeoa.reporting.figure import OPACITY, as_image, displayed, draw_figure
from kneeoa_cli.change import joint_picture
from kneeoa_cli.files.identity import date_of, header_of
from kneeoa_cli.files.inputs import Source, walk
from kneeoa_cli.files.names import digest
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.grading import all_graded, counted, grade_all
from kneeoa_cli.html_pages import Page, write_report
from kneeoa_client.client import ANY_VIEW, EXPLAIN, Client

HEADER = "StudyInstanceUID", "PatientID", "IssuerOfPatientID", "StudyDate", "BodyPartExamined"


def run(arguments: argparse.Namespace) -> int:
    """Grade films and write their report: 0 when every film was graded, 1 when some could not be, 2 without a server."""
    skipped: list[Source] = []
    films = list(walk(arguments.paths, skipped))
    outputs = Outputs.beside(films)
    client = Client.find(arguments.server, arguments.key_file, arguments.proxy)
    client.headers = {EXPLAIN: arguments.explain, **(ANY_VIEW if arguments.any_view else {})}
    opacity = OPACITY if arguments.opacity is None else arguments.opacity
    folder: Path = arguments.html
    folder.mkdir(parents=True, exist_ok=True)
    outputs.check(folder / "index.html")
    replies: dict[str, Message] = {}
    pages: dict[str, Page] = {}
    with TemporaryDirectory(dir=folder) as aside:  # pictures: of a large batch too many to hold

        def use(film: Source, data: bytes, reply: Message) -> None:
            replies[film.name] = reply
            if reply["status"] != "error":
                pages[film.name] = page_of(film.name, data, reply, Path(aside), opacity)

        try:
            grade_all(films, client, arguments.side, use)
        finally:
            if replies:
                answered = {film.name: replies[film.name] for film in films if film.name in replies}
                write_report(outputs, folder, answered, pages, arguments.language)
                print(counted(replies.values(), skipped), f"wrote {folder / 'index.html'}", DISCLAIMER, sep="\n")
    return int(not all_graded(replies.values()))


def page_of(name: str, data: bytes, reply: Message, aside: Path, opacity: float) -> Page:
    """A film's page; its pictures go to the folder ``aside``. Studies and patients are called by digests: neither is told."""
    shown, spacing = displayed(data, reply), reply["film"]["spacing_mm"]
    stem = aside / digest(name)

    def kept(picture: np.ndarray, what: str) -> Path:
        Image.fromarray(picture).save(path := stem.with_name(f"{stem.name}-{what}.webp"), quality=88, method=4)
        return path

    header = header_of(data, *HEADER)
    patient = f"{header['PatientID']}\0{header['IssuerOfPatientID']}" if header["PatientID"] else ""
    graded = [knee for knee in reply["knees"] if knee["grades"] and knee["main_joint"] and spacing]
    return Page(
        picture=kept(as_image(draw_figure(shown, reply, opacity=opacity)), "page"),
        study=digest(header["StudyInstanceUID"] or name)[:10],
        patient=patient and digest(patient)[:10],
        date=date_of(header["StudyDate"]),
        body_part=header["BodyPartExamined"],
        joints={knee["knee"]: kept(joint_picture(shown, knee, spacing), knee["knee"]) for knee in graded},
    )
