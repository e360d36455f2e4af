"""Where films come in by C-STORE: who may send them, how much, how long, and from how many connections at once."""

import logging
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from pynetdicom.transport import AssociationServer, RequestHandler

from kneeoa.imaging.dicom import SOP_CLASSES, TRANSFER_SYNTAXES
from kneeoa.imaging.radiograph import MAX_BYTES
from kneeoa_cli.pacs.dimse import SUCCESS, TIMEOUT, header_of, passed_over

log = logging.getLogger(__name__)
OUT_OF_RESOURCES, NOT_UNDERSTOOD = 0xA700, 0xC000
PLACES, PER_ADDRESS = 20, 5  # connections, in all and from one address
REQUESTED = 10.0  # s within which an association must have been asked for, from the connection on
STORED = 120.0  # s for an object: 64 MB at half a megabyte a second
REQUEST_BYTES, PDU_BYTES = 1 << 17, 1 << 20  # the longest PDU before an association, and in one; we ask for 16 KB
Take = Callable[[str, bytes], None]  # SOP Instance UID, DICOM file


class _Door(AssociationServer):
    """Lets in so many, whatever they are about to say; those who are one too many find the connection closed."""

    request_queue_size = 64  # who waits to be looked at

    def verify_request(self, request: Any, client_address: Any) -> bool:
        there = [association.requestor.address for association in self.active_associations]
        return len(there) < PLACES and there.count(client_address[0]) < PER_ADDRESS

    def shutdown(self) -> None:
        super(AssociationServer, self).shutdown()
        self.server_close()
        for association in self.active_associations:
            if association.is_established:
                association.abort()
            elif association.dul.socket:
                association.dul.socket.close()


class _Bounded(RequestHandler):
    """An association whose PDUs are bounded in length and time before they are read."""

    def _create_association(self) -> Association:
        made = super()._create_association()
        connection, began = self.request, time.monotonic()
        assert made.dul.socket is not None

        def recv(wanted: int) -> bytearray:
            known = made.is_established
            deadline = time.monotonic() + TIMEOUT if known else began + REQUESTED
            try:
                if wanted > (PDU_BYTES if known else REQUEST_BYTES):
                    raise OSError("a PDU that is too long")
                return _read(connection, wanted, deadline)
            except OSError:
                log.warning("a connection is ended: too long or too slow")
                if made.dul.socket:
                    made.dul.socket.close()
                raise

        made.dul.socket.recv = recv  # type: ignore[assignment, method-assign]
        return made


def _read(connection: socket.socket, wanted: int, deadline: float) -> bytearray:
    """So many bytes, or fewer where the other side has closed; OSError after the deadline."""
    data = bytearray()
    try:
        while len(data) < wanted:
            if (left := deadline - time.monotonic()) <= 0:
                raise TimeoutError
            connection.settimeout(left)
            if not (some := connection.recv(min(wanted - len(data), 1 << 16))):
                break
            data += some
    finally:
        connection.settimeout(TIMEOUT)
    return data


class _Objects:
    """What comes in through an association, until it is stored: bounded in bytes and seconds."""

    def __init__(self) -> None:
        self.received: defaultdict[Any, list[float]] = defaultdict(lambda: [0, time.monotonic()])

    def count(self, event: evt.Event) -> None:
        under_way = self.received[event.assoc]
        under_way[0] += len(event.data)
        if under_way[0] > MAX_BYTES + (1 << 20) or time.monotonic() - under_way[1] > STORED:
            log.warning("an association is ended: an object of more than %d MB or %d s", MAX_BYTES >> 20, STORED)
            if event.assoc.dul.socket:
                event.assoc.dul.socket.close()  # an abort would wait its turn behind what is still coming in

    def forget(self, event: evt.Event) -> None:
        self.received.pop(event.assoc, None)


def listen(address: tuple[str, int], title: str, callers: Sequence[str], take: Take) -> AssociationServer:
    """A C-STORE and C-ECHO provider, started; each film that may show knees is given to ``take`` before it is acknowledged.

    Other objects are acknowledged and dropped: whoever routes whole studies here is not to fail.

    Parameters
    ----------
    title, callers
        Our AE title, which callers must use, and theirs; others are rejected.
    take
        Raises OSError where it cannot keep the film; the sender is told that we are out of resources.
    """
    entity, objects = AE(title), _Objects()
    entity.require_called_aet = True
    entity.require_calling_aet = list(callers)
    entity.maximum_associations = PLACES
    entity.acse_timeout = REQUESTED
    entity.dimse_timeout = entity.network_timeout = TIMEOUT
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        read = context.abstract_syntax in SOP_CLASSES
        entity.add_supported_context(str(context.abstract_syntax), TRANSFER_SYNTAXES if read else ALL_TRANSFER_SYNTAXES)

    def store(event: evt.Event) -> int:
        objects.forget(event)
        return _stored(event, take)

    def echo(event: evt.Event) -> int:
        objects.forget(event)
        return SUCCESS

    handlers: list[Any] = [
        (evt.EVT_DATA_RECV, objects.count),
        (evt.EVT_C_STORE, store),
        (evt.EVT_C_ECHO, echo),
        (evt.EVT_CONN_CLOSE, objects.forget),
    ]
    server = entity.make_server(
        address, evt_handlers=handlers, server_class=_Door, request_handler=_Bounded, contexts=entity.supported_contexts
    )
    threading.Thread(target=server.serve_forever, name="listen", daemon=True).start()
    return server


def _stored(event: evt.Event, take: Take) -> int:
    """What the sender of an object is told."""
    if event.request.AffectedSOPClassUID not in SOP_CLASSES:  # nothing of it is parsed, nor inflated
        log.info("an object is passed over: modality")
        return SUCCESS
    try:
        data = event.encoded_dataset()
        header = header_of(data)
        reason, uid = passed_over(header), str(header.SOPInstanceUID)
    except Exception:  # a damaged header makes the parser raise nearly anything, in words that quote it
        log.warning("an object could not be read")
        return NOT_UNDERSTOOD
    if reason:
        log.info("an object is passed over: %s", reason)
        return SUCCESS
    try:
        take(uid, data)
    except OSError as error:
        log.error("a film could not be kept: %s", type(error).__name__)
        return OUT_OF_RESOURCES
    return SUCCESS
