"""The other side of the PACS loop: where reports go, over DIMSE or DICOMweb, and where films are looked for."""

import datetime
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

from dicomweb_client import DICOMwebClient
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
from kneeoa_client.web import authorization, session

log = logging.getLogger(__name__)
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
            raise ValueError("a peer is AET@HOST:PORT, as in PACS@10.0.0.5:104")
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


@dataclass
class WebPeer:
    """A DICOMweb service: films are looked for (QIDO-RS), fetched (WADO-RS) and answered (STOW-RS).

    ``credential``: a token, or ``user:password``; none is taken from ``~/.netrc``.
    """

    url: str
    days: int
    credential: str | None = field(default=None, repr=False)
    proxy: str | None = None
    _passed_over: set[str] = field(default_factory=set)

    def _client(self) -> DICOMwebClient:
        """One a task: those who deliver and those who look are threads of their own."""
        ours = session(self.url, self.proxy)
        if self.credential:
            ours.headers["Authorization"] = authorization(self.credential)
        return DICOMwebClient(self.url, session=ours, timeout=TIMEOUT)

    def deliver(self, files: Sequence[Path]) -> None:
        try:
            answer = self._client().store_instances([dcmread(file) for file in files])
        except Exception as error:
            raise DeliveryFailed(type(error).__name__) from None
        if any(failed.get("FailureReason") != DUPLICATE for failed in answer.get("FailedSOPSequence") or ()):
            raise DeliveryFailed("the peer refused an object")

    def films(self, known: Callable[[str], bool]) -> Iterable[tuple[str, bytes]]:
        """SOP Instance UIDs and files of films of the last days that are not ``known`` and may show knees.

        Raises
        ------
        OSError, ValueError
            If the service cannot be asked.
        """
        client, today = self._client(), datetime.date.today()
        span = f"{today - datetime.timedelta(self.days):%Y%m%d}-{today:%Y%m%d}"
        for modality in MODALITIES:
            filters = {"StudyDate": span, "Modality": modality}
            for series in client.search_for_series(search_filters=filters, get_remaining=True):
                try:
                    place = _value(series, "0020000D"), _value(series, "0020000E")
                    yield from self._films_of(client, *place, known)
                except Exception as error:  # it must not keep the series behind it; the next look tries again
                    log.warning("a series could not be listed: %s", type(error).__name__)

    def _films_of(
        self, client: DICOMwebClient, study: str, series: str, known: Callable[[str], bool]
    ) -> Iterable[tuple[str, bytes]]:
        for instance in client.search_for_instances(study, series, get_remaining=True):
            uid = _value(instance, "00080018")
            if uid in self._passed_over or known(uid):
                continue
            try:
                film = _fetch(client, study, series, uid)
            except Exception as error:  # as above
                log.warning("a film could not be fetched: %s", type(error).__name__)
                continue
            if film is None:
                self._passed_over.add(uid)
            else:
                yield uid, film


def _fetch(client: DICOMwebClient, study: str, series: str, instance: str) -> bytes | None:
    """The file of an instance, by UIDs; None where it is passed over."""
    reason = passed_over(Dataset.from_json(client.retrieve_instance_metadata(study, series, instance)))
    if reason:
        log.info("an object is passed over: %s", reason)
        return None
    film = client.retrieve_instance(study, series, instance, (("application/dicom", "*"),))
    file = BytesIO()
    film.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _value(found: dict[str, Any], tag: str) -> str:
    return str(found[tag]["Value"][0])
