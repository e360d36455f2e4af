"""What a PACS takes: a Structured Report of the grades and a Secondary Capture of the page, in the study of the film.

A film graded twice alike gets the same instance UIDs (docs/dicom.md).
"""

from io import BytesIO

from matplotlib.figure import Figure
from pydicom import Dataset

from kneeoa.messages import Message
from kneeoa.reporting.carried import carried_over
from kneeoa.reporting.figure import OPACITY, as_image, displayed, draw_figure
from kneeoa.reporting.secondary_capture import secondary_capture
from kneeoa.reporting.structured_report import structured_report


def deliverables(data: bytes, reply: Message, opacity: float = OPACITY) -> dict[str, bytes]:
    """Both objects as DICOM files, by the ending of their names; see `structured_report` and `secondary_capture`."""
    return delivered_with(data, draw_figure(displayed(data, reply), reply, opacity=opacity), reply, opacity)


def delivered_with(data: bytes, figure: Figure, reply: Message, opacity: float) -> dict[str, bytes]:
    """The same, of a ``figure`` that is there already."""
    page = as_image(figure)
    objects = {
        "sr": structured_report(data, reply, opacity),
        "sc": secondary_capture(data, page, reply, opacity),
    }
    return {f"{kind}.dcm": as_file(dataset) for kind, dataset in objects.items()}


def as_file(dataset: Dataset) -> bytes:
    """A DICOM part 10 file."""
    file = BytesIO()
    with carried_over():
        dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
