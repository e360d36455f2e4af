"""The PACS loop without a PACS: what happens when the server, the peer, the disk or a film fails."""

import threading

import pytest

from kneeoa.errors import CorruptImage
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa_cli.pacs import router as pacs
from kneeoa_cli.pacs import spool as spool_module
from kneeoa_cli.pacs.dimse import DeliveryFailed
from kneeoa_cli.pacs.spool import Spool
from kneeoa_client.client import ServerError, ServerFailed
from tests.conftest import ROOT
from tests.unit.dicom_factory import gradient, make_dicom

FILM = ROOT / "samples/moderate_oa.dcm"
UID = "1.2.3.4"
NAME = Spool.name(UID)


@pytest.fixture
def spool(tmp_path) -> Spool:
    return Spool(tmp_path / "spool")


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
                if found and not list((spool.folder / "outgoing").iterdir()):
                    break
                threading.Event().wait(0.01)
        finally:
            loop.stop()
            for thread in threads:
                thread.join(10)
        assert not [path for state in ("incoming", "outgoing") for path in (spool.folder / state).iterdir()]
        return [f"{path.parent.name}/{path.name}" for path in found]

    return run


def test_a_film_that_is_too_large_is_not_sent_and_does_not_keep_others(looped, spool, monkeypatch):
    monkeypatch.setattr(pacs, "MAX_BYTES", 1000)
    (spool.folder / "incoming/stray").mkdir()
    server = FakeServer()

    with pytest.raises(AssertionError, match="stray"):  # it is left where it is
        looped(server, FakePeer())

    assert (spool.folder / f"failed/{NAME}.too_large").read_bytes() == FILM.read_bytes()
    assert not server.asked


def test_a_film_that_two_senders_bring_at_once_is_one(spool):
    loop, together = pacs.Loop(spool, FakeServer(), FakePeer()), threading.Barrier(8)

    def send() -> None:
        together.wait()
        loop.take(UID, b"film" * 100_000)

    senders = [threading.Thread(target=send) for _ in range(8)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()

    assert [path.name for path in (spool.folder / "incoming").iterdir()] == [NAME]


@pytest.mark.parametrize(("reason", "reports"), [("low_score", 0), ("no_knee_like_region", 0), ("implausible_size", 1)])
def test_only_what_looks_like_no_knee_at_all_is_dropped(looped, reason, reports):
    answer = {**reply("not_found"), "knees": [{"knee": "unknown", "status": "rejected", "reason": reason}]}
    peer = FakePeer()

    assert looped(FakeServer(answer), peer, make_dicom(gradient())) == [f"done/{NAME}"]
    assert len(peer.got) == reports


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
