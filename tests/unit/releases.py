"""Writes small data sets: releases of the form that OAI and MOST come in, tables, and manifests without images.

The releases hold what lies about in real ones: files that are no films, copies, tables of visits nobody has films of, readings
of other projects. The SAS transport file is written here by hand, because pandas only reads it and nothing else in the
lock file writes it.
"""

import io
import struct
import tarfile
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
from PIL import Image

from tests.unit.dicom_factory import make_dicom
from training.data.manifest import as_manifest
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film

OAI_FEATURES = ("XRKL", "XRJSL", "XRJSM", "XROSFL", "XROSFM", "XROSTL", "XROSTM")
MOST_FEATURES = ("KL", "JSL", "JSM", "OSFL", "OSFM", "OSTL", "OSTM")
MOST_VIEWS = ("PA15", "PA10", "PA05", "PA10")
BUNDLE = ("00", "01", "03", "05", "06", "08", "10", "12")  # the visits whose tables come in one download
SEVEN = {
    "00": "00m/0.C.2", "01": "12m/1.C.2", "03": "24m/3.C.2", "05": "36m/5.C.1", "06": "48m/6.C.1", "08": "72m/8.C.1",
    "10": "96m/10.C.1",
}  # fmt: skip
SCORING = "X-Ray Image Assessments_ASCII/Semi-Quant Scoring_ASCII"
PA = "Bilateral PA Fixed Flexion Knee"
_BLANK = b"BARCODE_HERE"

Draw = Callable[[str, str, int], bytes]  # view, barcode ("" or twelve digits), film's number → the file


def write_text(path: Path, columns: Sequence[str], rows: Sequence[Sequence], delimiter: str = "|") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(delimiter.join(map(str, row)) + "\r\n" for row in [columns, *rows]), encoding="latin-1")


def square(view: str, barcode: str, number: int) -> bytes:
    """64×64, 16 bit, a ramp."""
    return _square(view, bool(barcode)).replace(_BLANK, barcode.encode())


@cache
def _square(view: str, marked: bool) -> bytes:
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    return make_dicom(pixels, SeriesDescription=view, AccessionNumber=_BLANK.decode() if marked else "")


def phantom(view: str, barcode: str, number: int) -> bytes:
    """Two phantom knees, one of twelve films, whatever the view."""
    return _phantom(number % 12).replace(_BLANK, barcode.encode() or b" " * 12)


@cache
def _phantom(number: int) -> bytes:
    ds = pydicom.dcmread(io.BytesIO(to_dicom(draw_film(np.random.default_rng(number), spacing_mm=0.8))))
    ds.SeriesDescription, ds.AccessionNumber = PA, _BLANK.decode()
    file = io.BytesIO()
    ds.save_as(file)
    return file.getvalue()


def write_film(path: Path, view: str = PA, barcode: str = "", draw: Draw = square, number: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(draw(view, barcode, number))


def _oai_knees(i: int, visit: str) -> list[list]:
    """ID, SIDE, READPRJ, barcode and grades of a subject's knees: KL = subject mod 5, JSN medial 1.4."""
    grades = [i % 5, "0: 0", 1.4, "1: 1", 2, 3, ".: Missing Form/Incomplete Workbook"]
    return [[9000000 + i, side, 15, f"016600{i:04d}{visit}", *grades] for side in ("1: Right", "2: Left")]


def write_oai(
    root: Path,
    subjects: int = 5,
    visits: Mapping[str, str] | None = None,
    implants: Mapping[tuple[int, str], tuple[str, int]] | None = None,
    draw: Draw = square,
) -> None:
    """Subjects 9000001 …: tables of all visits, films at ``visits`` {number: folder}.

    ``implants``: (subject from 1, R or L) → ("BLRP", 1), there at baseline, or ("VSPR", the last visit before it).
    """
    for number in BUNDLE:
        rows = [knee for i in range(1, subjects + 1) for knee in _oai_knees(i, number)]
        rows.append([9000001, "1: Right", 43, "016600000000", 4, 3, 3, 3, 3, 3, 3])
        columns = [f"V{number}{name}" for name in ("BARCDBU", *OAI_FEATURES)]
        name = f"{'KXR_SQ_BU' if number == '12' else 'kXR_SQ_BU'}{number}.txt"
        write_text(
            root / "X-Ray Image Assessments_ASCII/Semi-Quant Scoring_ASCII" / name,
            ["ID", "side", "readprj", *columns],
            rows,
        )
    names = ("ERKBLRP", "ELKBLRP", "ERKRPCF", "ELKRPCF", "ERKVSPR", "ELKVSPR")
    outcomes = []
    for i in range(1, subjects + 1):
        cells = dict.fromkeys(names, ".: Missing Form/Incomplete Workbook")
        for side in "RL":
            if (i, side) in (implants or {}):
                what, value = (implants or {})[i, side]
                cells |= {
                    f"E{side}K{what}": f"{value}: label",
                    f"E{side}KRPCF": "3: Replacement adjudicated, confirmed",
                }
        outcomes.append([9000000 + i, *cells.values()])
    write_text(root / "General_ASCII/Outcomes99.txt", ["id", *(f"V99{name}" for name in names)], outcomes)
    write_text(
        root / "General_ASCII/Enrollees.txt",
        ["ID", "V00SITE"],
        [[9000000 + i, "ABCDE"[i % 5]] for i in range(1, subjects + 1)],
    )
    for number, months in (visits or {"00": "00m/0.C.2"}).items():
        for i in range(1, subjects + 1):
            series, folder = f"00{i:04d}{number}", root / f"images/{months}/{9000000 + i}/20050112"
            write_film(folder / series / "001", PA, f"0166{series}", draw, i)
            (folder / series / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
            if i == 1:
                write_film(folder / f"01{i:04d}{number}/001", "PA Right Hand")
                (folder / series / "001.pts").write_text("version: 1\nn_points: 16\n")
                again = root / f"images/{months[:3]}/{months[4:-1]}9/{9000000 + i}/20050112/{series}/001"
                write_film(again, PA, f"0166{series}", draw, i)  # as 0.C.2 lies also under 0.C.1


def write_nda(root: Path, subjects: int = 5, visits: Mapping[str, str] | None = None, unpacked: bool = False) -> None:
    """The knees of `write_oai` as NDA packs them: quoted tables with a second line of words, a tar.gz a series."""
    visits = visits or {"00": "00m/0.C.2"}
    columns = ["collection_id", "subjectkey", "src_subject_id", "visit", "side", "readprj", "barcode"]
    columns += [name.lower() for name in OAI_FEATURES]
    rows = [["Collection", "GUID", "Subject ID", "Visit name", "Side", "Project", "Barcode", *(["Grade"] * 7)]]
    for number in visits:
        for i in range(1, subjects + 1):
            for id_, side, project, barcode, *grades in _oai_knees(i, number):
                known = ["" if str(grade).startswith(".") else str(grade).partition(":")[0] for grade in grades]
                rows.append([2343, f"NDAR{i}", id_, f"V{number}", side[0], project, barcode, *known])
    package = root / "Package_1243845"
    outcomes = [["Subject ID", "Visit", "Right", "Left"], [9000001, "V99", 0, 1]]
    sites = [["Subject ID", "Visit", "Site"], [9000001, "V00", "E"]]
    for name, head, body in (
        ("oai_kxrsemiquant01", columns, rows),
        ("oai_outcome01", ["src_subject_id", "visit", "rkblrp", "lkblrp"], outcomes),
        ("oai_enrollee01", ["src_subject_id", "visit", "site"], sites),
    ):
        write_text(package / f"{name}.txt", [f'"{c}"' for c in head], [[f'"{c}"' for c in row] for row in body], "\t")
    for number, months in visits.items():
        for i in range(1, subjects + 1):
            series, folder = f"00{i:04d}{number}", package / f"image03/{months}/{9000000 + i}/20050112"
            film = square(PA, f"0166{series}", i)
            if unpacked:
                write_film(folder / series / series / "001", PA, f"0166{series}")
            else:
                write_archive(folder / f"{series}.tar.gz", {f"{series}/._001": b"\0\5\26\7", f"{series}/001": film})


def write_archive(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def write_most(
    root: Path,
    subjects: int = 4,
    visits: Sequence[int] = (0, 5),
    implants: Mapping[tuple[int, str], int] | None = None,
    draw: Draw = square,
    tables: Collection[int] = (0, 1, 2, 3, 5),
) -> None:
    """Subjects M2001 …: right knee KL = subject mod 5, left 1.9; osteophytes 1, JSN lateral 8 (a code), medial X (another).

    One beam angle a subject, as `MOST_VIEWS` takes turns. ``implants``: (subject from 1, R or L) → visit.
    """
    columns, rows = ["MOSTID"], []
    columns += [f"V{visit}X{side}{name}" for visit in tables for side in "RL" for name in MOST_FEATURES]
    for i in range(1, subjects + 1):
        knees = [[kl, 8, "X", 1, 1, 1, 1] for kl in (i % 5, 1.9)]
        rows.append([f"M{2000 + i}", *(knees[0] + knees[1]) * len(tables)])
        for visit in visits:
            folder = root / f"XR/M{2000 + i}_HNSH/V{visit}/{14000 + i}/{MOST_VIEWS[(i - 1) % 4]}"
            write_film(folder / f"{14000 + i}{visit}", MOST_VIEWS[(i - 1) % 4], "", draw, i)
            (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
            (folder / "001.pts").write_text("version: 1\n")
            (folder / "hand").write_bytes(b"")
    write_text(root / "MOSTV01235XRAY.txt", columns, rows, "\t")
    index = [[(implants or {}).get((i, side), 0) for side in "RL"] for i in range(1, subjects + 1)]
    outcomes = [[f"M{2001 + i}", *cells] for i, cells in enumerate(index)]
    write_text(root / "MOSTOUTCOMES.txt", ["MOSTID", "V99ERKRINDEX", "V99ELKRINDEX"], outcomes, "\t")


def write_xport(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str | float | None]]) -> None:
    """A SAS transport file (version 5): names and text of up to 8 characters, numbers, None for SAS's missing value."""

    def header(kind: str, numbers: str = "0" * 30) -> bytes:
        return f"HEADER RECORD*******{kind:<8}HEADER RECORD!!!!!!!{numbers}  ".encode()

    def cell(value: str | float | None) -> bytes:
        if value is None:
            return b"." + bytes(7)
        if isinstance(value, str):
            return value.ljust(8).encode()
        exponent = 64  # IBM's number: sign and base-16 exponent in one byte, then a fraction of 56 bits
        while value >= 1:
            value, exponent = value / 16, exponent + 1
        return struct.pack(">Q", exponent << 56 | round(value * 2**56)) if value else bytes(8)

    def variable(i: int, name: str) -> bytes:
        kind = 1 + isinstance(rows[0][i], str)
        fields = (
            kind,
            0,
            8,
            i + 1,
            name.ljust(8).encode(),
            b" " * 40,
            b" " * 8,
            8,
            0,
            0,
            b"",
            b" " * 8,
            8,
            0,
            8 * i,
            b"",
        )
        return struct.pack(">hhhh8s40s8shhh2s8shhl52s", *fields)

    def padded(data: bytes) -> bytes:
        return data.ljust(-(-len(data) // 80) * 80)

    date = b"01JAN05:00:00:00"
    parts = [
        header("LIBRARY "),
        b"SAS     SAS     SASLIB  9.4     LINUX   " + b" " * 24 + date,
        padded(date),
        header("MEMBER  ", "000000000000000001600000000140"),
        header("DSCRPTR "),
        b"SAS     READINGSSASDATA 9.4     LINUX   " + b" " * 24 + date,
        padded(date),
        header("NAMESTR ", f"000000{len(columns):04d}" + "0" * 20),
        padded(b"".join(variable(i, name) for i, name in enumerate(columns))),
        header("OBS     "),
        padded(b"".join(cell(value) for row in rows for value in row)),
    ]
    path.write_bytes(b"".join(parts))


def write_csv(root: Path, text: str) -> Path:
    """A table beside two small images, a.png and b.png."""
    (root / "t.csv").write_text(text)
    for name in ("a", "b"):
        Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(root / f"{name}.png")
    return root / "t.csv"


def invented(subjects: int = 90, cohort: str = "OAI", visits: int = 2, first: int = 0) -> pd.DataFrame:
    """Subjects with two knees at every visit, KL spread unevenly."""
    rows = [
        {"cohort": cohort, "subject": f"{first + i}", "side": side, "visit": f"V{visit}", "path": f"{i}_{visit}.dcm"}
        | {"kind": "film", "KL": (i % 10) // 2 if i % 3 else 0}
        for i in range(subjects)
        for visit in range(visits)
        for side in "RL"
    ]
    return as_manifest(pd.DataFrame(rows))
