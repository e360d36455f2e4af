"""The PACS loop without a PACS: the spool after every kind of crash, who may send what, and what happens when others fail."""

import logging
import threading
from contextlib import contextmanager
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from deploy.server import free_port
from kneeoa.errors import CorruptImage
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa_client import pacs
from kneeoa_client import spool as spool_module
from kneeoa_client.peers import DeliveryFailed, DimsePeer, header_of, listen, passed_over
from kneeoa_client.server import ServerError, ServerFailed
from kneeoa_client.spool import Spool
from tests.conftest import ROOT
from tests.unit.dicom_factory import gradient, make_dicom

FILM = ROOT / "samples/moderate_oa.dcm"
UID = "1.2.3.4"
NAME = Spool.name(UID)


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "spool")


def again(spool: Spool) -> Spool:
    """The same folder after the process died."""
    spool._lock.close()
    return Spool(spool.folder)


def test_a_film_walks_through_the_spool(spool):
    spool.take(NAME, b"film")
    (film,) = spool.incoming()
    assert film.read_bytes() == b"film"
    spool.graded(film, {"sr.dcm": b"report", "sc.dcm": b"picture"})
    assert not spool.incoming()
    (item,) = spool.outgoing()
    assert {path.name: path.read_bytes() for path in item.iterdir()} == {"sr.dcm": b"report", "sc.dcm": b"picture"}
    spool.finished(item)
    assert not spool.outgoing()
    assert again(spool).knows(NAME)


def test_what_was_cut_off_is_done_again_and_what_is_done_is_not(spool):
    spool.take(NAME, b"film")
    incoming, outgoing = spool.folder / "incoming", spool.folder / "outgoing"
    (incoming / f"{NAME}.7.part").write_bytes(b"fi")  # cut off while it was written
    (outgoing / f"{NAME}.part").mkdir()  # cut off between the report and the picture
    spool = again(spool)
    assert [path.name for path in spool.incoming()] == [NAME]
    assert not list(outgoing.iterdir())

    spool.graded(incoming / NAME, {"sr.dcm": b"report"})
    (incoming / NAME).write_bytes(b"film")  # cut off before the film was tidied up
    spool = again(spool)
    assert not spool.incoming()
    assert not list(incoming.iterdir())

    (spool.folder / "done" / NAME).touch()  # cut off before the report was tidied up
    assert not again(spool).outgoing()
    assert not list(outgoing.iterdir())


def test_a_spool_belongs_to_one_process(spool):
    with pytest.raises(ValueError, match="another process"):
        Spool(spool.folder)


def header(**elements) -> Dataset:
    found = Dataset()
    found.SOPClassUID, found.Modality = ComputedRadiographyImageStorage, "CR"
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return found


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({}, None),
        ({"BodyPartExamined": "KNEE", "ViewPosition": "AP"}, None),
        ({"BodyPartExamined": "Knees bilat."}, None),
        ({"BodyPartExamined": "", "ViewPosition": ""}, None),
        ({"BodyPartExamined": "CHEST"}, "body_part"),
        ({"BodyPartExamined": "KNEE", "ViewPosition": "LATERAL"}, "view"),
        ({"Modality": "OT"}, "modality"),
        ({"SOPClassUID": MRImageStorage}, "modality"),
    ],
    ids=str,
)
def test_knee_films_are_picked_and_the_rest_passed_over(elements, reason):
    assert passed_over(header(**elements)) == reason


@contextmanager
def provider(take):
    """A provider and the port it listens on."""
    server = listen(("127.0.0.1", port := free_port() + 3), "KNEEOA", ["PACS"], take)
    try:
        yield port
    finally:
        server.shutdown()


@contextmanager
def association(port: int, title: str = "PACS", called: str = "KNEEOA"):
    entity = AE(title)
    entity.add_requested_context(Verification)
    for sop_class in (ComputedRadiographyImageStorage, MRImageStorage):
        entity.add_requested_context(sop_class, ExplicitVRLittleEndian)
    made = entity.associate("127.0.0.1", port, ae_title=called)
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

    with caplog.at_level(logging.DEBUG, "kneeoa_client"), provider(full) as port, association(port) as made:
        assert made.send_c_store(film(Modality="CR")).Status == 0xA700
        assert made.send_c_store(film(Modality="CR", SOPInstanceUID="1.2.5", ViewPosition="AP")).Status == 0xA700
    assert "SECRET" not in caplog.text
    assert "could not be kept: OSError" in caplog.text


def test_an_object_that_is_too_large_ends_its_association(monkeypatch, caplog):
    monkeypatch.setattr("kneeoa_client.peers.MAX_BYTES", 1 << 20)
    taken = []
    with provider(lambda *film: taken.append(film)) as port:
        with association(port) as made:
            big = film(pixels=gradient(1200, 1200), Modality="CR")
            assert "Status" not in made.send_c_store(big)
        with association(port) as made:
            assert made.send_c_store(film(Modality="CR")).Status == 0
    assert len(taken) == 1
    assert caplog.text.count("an association is ended") == 1


class FakeServer:
    """Answers from a list: replies, and errors that are raised."""

    def __init__(self, *answers) -> None:
        self.answers, self.asked, self.headers, self.closing = list(answers), 0, {}, threading.Event()

    def post_patiently(self, film: bytes) -> dict:
        self.asked += 1
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakePeer:
    def __init__(self, failures: int = 0) -> None:
        self.failures, self.got, self.done = failures, [], threading.Event()

    def deliver(self, files) -> None:
        if self.failures:
            self.failures -= 1
            raise DeliveryFailed("no association with the peer")
        self.got.append([path.name for path in files])
        self.done.set()


@pytest.fixture
def looped(spool, monkeypatch):
    """Runs a loop on one film until the spool says so; returns where its file ended."""
    monkeypatch.setattr(pacs, "RETRY", (0.01, 0.05))
    monkeypatch.setattr(pacs, "deliverables", lambda data, reply: {"sc.dcm": b"picture", "sr.dcm": b"report"})

    def run(server, peer, data=None) -> list[str]:
        loop = pacs.Loop(spool, server, peer)
        threads = loop.start()
        for _ in range(2):
            loop.take(UID, data or FILM.read_bytes())
        ended = ("done", "failed")
        try:
            for _ in range(1000):
                found = [path for state in ended for path in (spool.folder / state).iterdir()]
                if found and not spool.outgoing():
                    break
                threading.Event().wait(0.01)
        finally:
            loop.stop()
            for thread in threads:
                thread.join(10)
        assert not [path for state in ("incoming", "outgoing") for path in (spool.folder / state).iterdir()]
        return [f"{path.parent.name}/{path.name}" for path in found]

    return run


def test_a_full_disk_is_waited_for(looped, spool, monkeypatch):
    write, failures = spool_module._write, [OSError(28, "full"), OSError(28, "full")]

    def full(path, data) -> None:
        if path.name == "sr.dcm" and failures:
            raise failures.pop()
        write(path, data)

    monkeypatch.setattr(spool_module, "_write", full)

    assert looped(FakeServer(*[reply("ok")] * 3), FakePeer()) == [f"done/{NAME}"]
    assert not failures


def reply(status: str) -> dict:
    return {**envelope(REPLY_SCHEMA), "status": status}


def test_a_server_that_is_away_and_a_peer_that_refuses_are_tried_again(looped):
    server, peer = FakeServer(ServerError("no answer"), ServerError("no answer"), reply("ok")), FakePeer(failures=3)

    assert looped(server, peer) == [f"done/{NAME}"]
    assert peer.got == [["sc.dcm", "sr.dcm"]]
    assert server.asked == 3


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (envelope(REPLY_SCHEMA, CorruptImage()), "corrupt_image"),
        (ServerFailed(), "server_failed"),
        (KeyError("SECRET"), "KeyError"),
    ],
    ids=["reply", "server", "unforeseen"],
)
def test_a_film_that_cannot_be_graded_is_kept_with_its_code(looped, answer, code):
    peer = FakePeer()

    assert looped(FakeServer(answer), peer) == [f"failed/{NAME}.{code}"]
    assert not peer.got


@pytest.mark.parametrize(("part", "reports"), [("KNEE", 1), (None, 0)])
def test_a_film_without_knees_is_reported_only_if_it_was_to_show_some(looped, part, reports):
    film = make_dicom(gradient(), BodyPartExamined=part) if part else make_dicom(gradient())
    peer = FakePeer()

    assert looped(FakeServer(reply("not_found")), peer, film) == [f"done/{NAME}"]
    assert len(peer.got) == reports


@pytest.mark.parametrize(("status", "taken"), [(0x0000, True), (0xB000, True), (0xA700, False), (0xC000, False)])
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
