"""Where reports go, over DIMSE; and what the headers of a PACS's objects say, before they are graded."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

from pydicom import Dataset, dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)
from pynetdicom import AE

from kneeoa.imaging.dicom import SOP_CLASSES, VIEW, is_frontal
from kneeoa.imaging.quiet import quiet

MODALITIES = ("CR", "DX")
HEADER = ["SOPClassUID", "SOPInstanceUID", "Modality", "BodyPartExamined", *VIEW]
SUCCESS, DUPLICATE = 0x0000, 0x0111
TIMEOUT = 30.0  # s


class Peer(Protocol):
    """Takes what goes back; raises `DeliveryFailed` where it does not."""

    def deliver(self, files: Sequence[Path]) -> None: ...


class DeliveryFailed(RuntimeError):
    """The peer did not take the objects; says why, in our words."""


class PeerAway(DeliveryFailed):
    """There is no peer; it would not take other objects either."""


def header_of(data: bytes) -> Dataset:
    """The elements that say what a file is."""
    with quiet():
        return dcmread(BytesIO(data), stop_before_pixels=True, specific_tags=HEADER)


def passed_over(header: Dataset) -> str | None:
    """Why an object is not to be graded, one of our words, or None where it may show knees: then the detector decides."""
    if header.get("Modality") not in MODALITIES or header.get("SOPClassUID") not in SOP_CLASSES:
        return "modality"
    if says_knee(header) is False:
        return "body_part"
    return None if is_frontal(header) else "view"


def says_knee(header: Dataset) -> bool | None:
    """What the header says of the body part; None where it says nothing."""
    part = str(header.get("BodyPartExamined") or "").strip().upper()
    return "KNEE" in part if part else None


@dataclass(frozen=True)
class DimsePeer:
    """An application entity, ``AET@HOST:PORT``; ``own`` is the AE title that we call it by."""

    title: str
    host: str
    port: int
    own: str

    @classmethod
    def parse(cls, text: str, own: str) -> "DimsePeer":
        title, _, address = text.partition("@")
        host, _, port = address.rpartition(":")
        if not (title and host and port.isdigit()):
            raise ValueError("the peer must be given as AET@HOST:PORT, as in PACS@10.0.0.5:104")
        return cls(title, host, int(port), own)

    def deliver(self, files: Sequence[Path]) -> None:
        entity = AE(self.own)
        entity.connection_timeout = entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = TIMEOUT
        for sop_class in (Comprehensive3DSRStorage, SecondaryCaptureImageStorage):
            entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        association = entity.associate(self.host, self.port, ae_title=self.title)
        if not association.is_established:
            raise PeerAway("no association with the peer")
        try:
            for file in files:
                status = association.send_c_store(dcmread(file)).get("Status", 0x0110)
                if status not in (SUCCESS, DUPLICATE) and status >> 12 != 0xB:  # 0xB…: stored, with a warning
                    raise DeliveryFailed(f"the peer answered 0x{status:04X}")
        except DeliveryFailed:
            raise
        except Exception as error:  # a context that was not accepted, a connection that broke
            raise DeliveryFailed(type(error).__name__) from None
        finally:
            association.release()
