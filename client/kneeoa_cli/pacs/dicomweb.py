"""A DICOMweb service: where films are looked for and reports go."""

import datetime
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from dicomweb_client import DICOMwebClient
from pydicom import Dataset, dcmread

from kneeoa_cli.pacs.dimse import DUPLICATE, MODALITIES, TIMEOUT, DeliveryFailed, passed_over
from kneeoa_client.web import authorization, session

log = logging.getLogger(__name__)


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
