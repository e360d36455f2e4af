"""The PACS loop's other side: who may send what, what is taken, and what counts as delivered."""

import logging
import socket
import struct
import time
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from deploy.server import free_port
from kneeoa_cli.pacs import provider as door
from kneeoa_cli.pacs.dimse import DeliveryFailed, DimsePeer, header_of, passed_over
from kneeoa_cli.pacs.provider import listen
from tests.unit.dicom_factory import gradient, make_dicom

UID = "1.2.3.4"


def header(**elements) -> Dataset:
    found = Dataset()
    found.SOPClassUID, found.Modality = ComputedRadiographyImageStorage, "CR"
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return found


def coded(value: str) -> Dataset:
    item = Dataset()
    item.CodeValue = value
    return item


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({}, None),
        ({"BodyPartExamined": "KNEE", "ViewPosition": "AP"}, None),
        ({"BodyPartExamined": "KNEE", "ViewPosition": "PA STANDING"}, None),
        ({"BodyPartExamined": "KNEES BILAT"}, None),
        ({"BodyPartExamined": "", "ViewPosition": ""}, None),
        ({"BodyPartExamined": "CHEST"}, "body_part"),
        ({"BodyPartExamined": "KNEE", "ViewPosition": "LATERAL"}, "view"),
        ({"ViewCodeSequence": [coded("399348003")]}, None),
        ({"ViewCodeSequence": [coded("399067008")]}, "view"),
        ({"PatientOrientation": ["A", "F"]}, "view"),
        ({"Modality": "OT"}, "modality"),
        ({"SOPClassUID": MRImageStorage}, "modality"),
    ],
    ids=str,
)
def test_knee_films_are_picked_and_the_rest_passed_over(elements, reason):
    assert passed_over(header(**elements)) == reason


def test_the_header_of_a_file_has_the_coded_view():
    assert (
        passed_over(header_of(make_dicom(gradient(), Modality="CR", ViewCodeSequence=[coded("399067008")]))) == "view"
    )


@contextmanager
def provider(take):
    """A provider and the port it listens on."""
    server = listen(("127.0.0.1", port := free_port() + 3), "KNEEOA", ["PACS"], take)
    try:
        yield port
    finally:
        server.shutdown()


@contextmanager
def association(port: int, title: str = "PACS", called: str = "KNEEOA", **options):
    entity = AE(title)
    entity.add_requested_context(Verification)
    for sop_class in (ComputedRadiographyImageStorage, MRImageStorage):
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    made = entity.associate("127.0.0.1", port, ae_title=called, **options)
    yield made
    if made.is_established:
        made.release()


def film(sop_class=ComputedRadiographyImageStorage, pixels=None, **elements) -> Dataset:
    data = make_dicom(
        gradient() if pixels is None else pixels, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.3.4", **elements
    )
    dataset = dcmread(BytesIO(data))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = sop_class
    return dataset


def test_only_who_is_named_may_send_and_only_to_us():
    with provider(lambda *_: None) as port:
        for title, called, welcome in (("PACS", "KNEEOA", True), ("THIEF", "KNEEOA", False), ("PACS", "OTHER", False)):
            with association(port, title, called) as made:
                assert made.is_established == welcome
        with association(port) as made:
            assert made.send_c_echo().Status == 0


def test_films_are_kept_before_they_are_acknowledged_and_others_acknowledged():
    taken: dict[str, bytes] = {}
    with provider(taken.__setitem__) as port, association(port) as made:
        assert made.send_c_store(film(Modality="CR")).Status == 0
        assert made.send_c_store(film(MRImageStorage, Modality="MR")).Status == 0
        assert made.send_c_store(film(Modality="CR", BodyPartExamined="HAND")).Status == 0

    assert list(taken) == [UID]
    assert header_of(taken[UID]).SOPInstanceUID == UID
    assert (dcmread(BytesIO(taken[UID])).pixel_array == gradient()).all()


def test_a_full_disk_and_a_damaged_film_are_told_to_the_sender(caplog):
    def full(*_) -> None:
        raise OSError("SECRET")

    with caplog.at_level(logging.DEBUG, "kneeoa_cli"), provider(full) as port, association(port) as made:
        assert made.send_c_store(film(Modality="CR")).Status == 0xA700
        assert made.send_c_store(film(Modality="CR", SOPInstanceUID="1.2.5", ViewPosition="AP")).Status == 0xA700
    assert "SECRET" not in caplog.text
    assert "could not be kept: OSError" in caplog.text


def test_what_is_no_film_is_not_even_parsed(monkeypatch):
    """Deflated, a small file can fill the memory."""
    monkeypatch.setattr("kneeoa_cli.pacs.provider.header_of", lambda _: pytest.fail("parsed"))
    with provider(lambda *_: pytest.fail("taken")) as port, association(port) as made:
        assert made.send_c_store(film(MRImageStorage, Modality="MR")).Status == 0


def test_an_object_that_is_too_large_ends_its_association(monkeypatch, caplog):
    monkeypatch.setattr("kneeoa_cli.pacs.provider.MAX_BYTES", 1 << 20)
    taken = []
    with provider(lambda *film: taken.append(film)) as port:
        with association(port) as made:
            big = film(pixels=gradient(1200, 1200), Modality="CR")
            assert "Status" not in made.send_c_store(big)
        with association(port) as made:
            assert made.send_c_store(film(Modality="CR")).Status == 0
    assert len(taken) == 1
    assert caplog.text.count("an association is ended") == 1


@pytest.mark.parametrize(
    ("status", "taken"), [(0x0000, True), (0xB000, True), (0x0111, True), (0xA700, False), (0xC000, False)]
)
def test_delivery_counts_only_where_the_peer_says_so(tmp_path, status, taken):
    got = []

    def store(event) -> int:
        got.append(event.dataset.SOPInstanceUID)
        return status

    entity, path = AE("PACS"), tmp_path / "sc.dcm"
    report = film(Modality="OT")
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    report.save_as(path)
    entity.add_supported_context(report.SOPClassUID)
    server = entity.start_server(
        ("127.0.0.1", port := free_port() + 3), block=False, evt_handlers=[(evt.EVT_C_STORE, store)]
    )
    try:
        peer = DimsePeer.parse(f"PACS@127.0.0.1:{port}", "KNEEOA")
        if taken:
            peer.deliver([path])
        else:
            with pytest.raises(DeliveryFailed, match=f"0x{status:04X}"):
                peer.deliver([path])
    finally:
        server.shutdown()
    assert got == [UID]
    with pytest.raises(DeliveryFailed, match="no association"):
        peer.deliver([path])


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "@host:1", "PACS@host:port", ""])
def test_a_peer_is_named_in_full(text):
    with pytest.raises(ValueError, match="AET@HOST:PORT"):
        DimsePeer.parse(text, "KNEEOA")


# --- strangers at the door


def raw(port: int, said: bytes = b"") -> socket.socket:
    """A connection that speaks no DICOM."""
    made = socket.create_connection(("127.0.0.1", port), timeout=120)
    made.sendall(said)
    return made


def ended(connection: socket.socket) -> bool:
    """Whether the other side closes it, within its time-out."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


def test_a_stranger_cannot_send_much():
    """400 MB came in as one PDU, before anybody asked for a name."""
    with provider(lambda *_: pytest.fail("taken")) as port, raw(port, struct.pack(">BBL", 1, 0, 400 << 20)) as stranger:
        assert ended(stranger)


@pytest.mark.slow
def test_a_silent_and_a_dripping_stranger_are_sent_away(monkeypatch):
    monkeypatch.setattr(door, "REQUESTED", 0.5)
    with (
        provider(lambda *_: pytest.fail("taken")) as port,
        raw(port) as silent,
        raw(port, b"\x01\x00\x00\x00\xf0\x00") as dripping,
    ):
        dripping.settimeout(0.1)
        began = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - began < 20:
                with suppress(TimeoutError):
                    dripping.sendall(b"x")
                    if dripping.recv(1) == b"":
                        break
        assert time.monotonic() - began < 20
        assert ended(silent)


def test_one_address_cannot_take_all_places(monkeypatch):
    """Ten silent connections kept everybody out for half a minute."""
    monkeypatch.setattr(door, "REQUESTED", 600.0)  # none of them leaves by itself, however slow this machine is
    with provider(lambda *_: None) as port, ExitStack() as held:
        silent = [held.enter_context(raw(port)) for _ in range(12)]
        assert ended(silent[-1])  # it is one too many
        with association(port, bind_address=("127.0.0.2", 0)) as made:  # another address of this machine
            assert made.is_established


@pytest.mark.slow
def test_an_object_that_takes_too_long_ends_its_association(monkeypatch, caplog):
    with provider(lambda *_: pytest.fail("taken")) as port, association(port) as made:
        monkeypatch.setattr(door, "STORED", 0.0)
        assert "Status" not in made.send_c_store(film(pixels=gradient(600, 600), Modality="CR"))
    assert "an association is ended" in caplog.text
