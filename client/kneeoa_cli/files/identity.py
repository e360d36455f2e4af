"""Whose film it is, by its DICOM header: for rows that asked for it, and for reports, which tell dates and sides only."""

import re
from contextlib import suppress
from io import BytesIO

from pydicom import dcmread

from kneeoa.imaging.quiet import quiet
from kneeoa.messages import Message
from kneeoa.reporting.tables import Row
from kneeoa_cli.files.names import printable

TEXTS = {
    "patient_id": "PatientID",
    "study_uid": "StudyInstanceUID",
    "sop_uid": "SOPInstanceUID",
    "study_date": "StudyDate",
}
IDENTITY = [*TEXTS, "spacing_row_mm", "spacing_column_mm"]


def header_of(data: bytes, *keywords: str) -> dict[str, str]:
    """Elements of a film's header as printable text; empty where there is none, or it is damaged, or the file is no DICOM."""
    found = dict.fromkeys(keywords, "")
    with quiet(), suppress(Exception):  # the parser raises nearly anything
        film = dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=["SpecificCharacterSet", *keywords])
        for name in keywords:
            with suppress(Exception):  # one at a time: a damaged one must not cost the others
                found[name] = printable(str(film.get(name) or "").strip())
    return found


def date_of(text: str) -> str:
    """A DICOM date as ISO 8601 has it; empty where it is none."""
    parts = re.fullmatch(r"(\d{4})\.?(0[1-9]|1[0-2])\.?(0[1-9]|[12]\d|3[01])", text)
    return "-".join(parts.groups()) if parts else ""


def identity_of(data: bytes, reply: Message) -> Row:
    """The `IDENTITY` of a film's rows."""
    found = header_of(data, *TEXTS.values())
    found["StudyDate"] = date_of(found["StudyDate"])
    spacing = (reply["film"] or {}).get("spacing_mm") or (None, None)
    return dict(zip(IDENTITY, [*(value or None for value in found.values()), *spacing], strict=True))
