"""Writes small data sets: releases of the form that OAI and MOST come in, tables, and manifests without images.

The SAS transport file is written here by hand, because pandas only reads it and nothing else in the lock file writes it.
"""

import struct
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tests.unit.dicom_factory import make_dicom
from training.data.manifest import as_manifest

OAI_FEATURES = ("XRKL", "XRJSL", "XRJSM", "XROSFL", "XROSFM", "XROSTL", "XROSTM")
MOST_FEATURES = ("KL", "JSL", "JSM", "OSFL", "OSFM", "OSTL", "OSTM")
_BLANK = b"BARCODE_HERE"
PA = "Bilateral PA Fixed Flexion Knee"


def write_text(path: Path, columns: Sequence[str], rows: Sequence[Sequence], delimiter: str = "|") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(delimiter.join(map(str, row)) + "\r\n" for row in [columns, *rows]), encoding="latin-1")


def write_film(path: Path, view: str = PA, barcode: str = "") -> None:
    """64×64, 16 bit; a barcode has twelve digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_film(view, bool(barcode)).replace(_BLANK, barcode.encode()))


@cache
def _film(view: str, marked: bool) -> bytes:
    pixels = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    return make_dicom(pixels, SeriesDescription=view, AccessionNumber=_BLANK.decode() if marked else "")


def write_oai(root: Path, subjects: int = 5, visits: Mapping[str, str] | None = None) -> None:
    """Both knees of subjects 9000001 …, KL = subject mod 5, JSN medial 1.4, at visits {number: months folder}."""
    for number, months in (visits or {"00": "00m/0.C.2"}).items():
        rows = []
        for i in range(1, subjects + 1):
            series = f"00{i:04d}{number}"
            rows += [
                [9000000 + i, side, 15, f"0166{series}", i % 5, "0: 0", 1.4, "1: 1", 2, 3, ".: Missing Form"]
                for side in ("1: Right", "2: Left")
            ]
            folder = root / f"images/{months}/{9000000 + i}/20050112"
            write_film(folder / series / "001", barcode=f"0166{series}")
            if i == 1:
                write_film(folder / f"01{i:04d}{number}/001", view="PA Right Hand")
        columns = [f"V{number}{name}" for name in ("BARCDBU", *OAI_FEATURES)]
        write_text(root / f"tables/kXR_SQ_BU{number}.txt", ["ID", "side", "readprj", *columns], rows)


def write_most(root: Path, subjects: int = 4, visits: Sequence[int] = (0, 5)) -> None:
    """Right knee KL = subject mod 5, left 1.9; osteophytes 1, JSN lateral 8 (a code), medial X (another)."""
    columns, rows = ["MOSTID"], []
    columns += [f"V{visit}X{side}{name}" for visit in visits for side in "RL" for name in MOST_FEATURES]
    for i in range(1, subjects + 1):
        knees = [[kl, 8, "X", 1, 1, 1, 1] for kl in (i % 5, 1.9)]
        rows.append([f"MB{i:05d}", *(knees[0] + knees[1]) * len(visits)])
        for visit in visits:
            for view in ("PA05", "PA10"):
                write_film(root / f"XR/MB{i:05d}_0001/V{visit}/a/{view}/001")
    write_text(root / "MOSTV01235XRAY.txt", columns, rows, delimiter="\t")


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
