"""The PACS loop's spool after every kind of crash."""

import os
import stat

import pytest

from kneeoa_cli.pacs import spool as spool_module
from kneeoa_cli.pacs.router import FAILURES
from kneeoa_cli.pacs.spool import STATES, Spool

NAME = Spool.name("1.2.3.4")


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


def test_films_that_only_the_server_failed_on_wait_to_be_graded_again(spool):
    for name, code in ((NAME, "server_failed"), ("0" * 32, "corrupt_image")):
        spool.take(name, b"film")
        spool.failed(spool.folder / "incoming" / name, code)

    spool.retry(FAILURES)

    assert [film.name for film in spool.incoming()] == [NAME]
    assert [film.name for film in (spool.folder / "failed").iterdir()] == ["0" * 32 + ".corrupt_image"]


def test_nobody_else_looks_into_the_spool(spool):
    assert {stat.S_IMODE((spool.folder / state).stat().st_mode) for state in STATES} == {0o700}


def test_a_film_is_known_in_whatever_state_it_is(spool):
    assert not spool.knows(NAME)

    spool.take(NAME, b"film")
    assert spool.knows(NAME)
    assert not spool.knows(NAME[:-1])
    spool.failed(spool.folder / "incoming" / NAME, "corrupt_image")
    assert spool.knows(NAME)
    assert not spool.incoming()
    (spool.folder / "failed" / f"{NAME}.corrupt_image").unlink()
    assert not spool.knows(NAME)
    for state in ("outgoing", "done"):
        (spool.folder / state / NAME).mkdir()
        assert spool.knows(NAME)
        (spool.folder / state / NAME).rmdir()


def test_a_name_is_a_digest_of_its_own():
    assert len({Spool.name(f"1.2.{i}") for i in range(50)}) == 50
    assert len(NAME) == 32
    assert "1.2.3.4" not in NAME


def test_a_full_disk_leaves_nothing_of_a_film_behind(spool, monkeypatch):
    def full(path, data):
        path.write_bytes(data[:2])
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spool_module, "_write", full)
        with pytest.raises(OSError, match="no space"):
            spool.take(NAME, b"film")

    assert not list((spool.folder / "incoming").iterdir())
    assert not spool.knows(NAME)


def test_reports_are_written_anew_after_an_attempt_that_met_a_full_disk(spool):
    spool.take(NAME, b"film")
    (film,) = spool.incoming()
    (spool.folder / "outgoing" / f"{NAME}.part").mkdir()
    (spool.folder / "outgoing" / f"{NAME}.part/half.dcm").write_bytes(b"re")

    spool.graded(film, {"sr.dcm": b"report"})

    (item,) = spool.outgoing()
    assert [path.name for path in item.iterdir()] == ["sr.dcm"]


def test_the_oldest_come_first_and_what_is_being_written_is_not_listed(spool):
    names = ["c" * 32, "a" * 32, "b" * 32]
    for age, name in enumerate(names):
        spool.take(name, b"film")
        os.utime(spool.folder / "incoming" / name, (1000 + age, 1000 + age))
    (spool.folder / "incoming" / f"{NAME}.7.part").write_bytes(b"fi")

    assert [film.name for film in spool.incoming()] == names


def test_what_failed_or_is_delivered_is_nothing_to_grade(spool):
    """A film that was graded, and one that is done, was cut off while it was tidied up; one that failed is not past."""
    later = {"outgoing": "a" * 32, "done": "b" * 32}
    for state, name in later.items():
        spool.take(name, b"film")
        (spool.folder / state / name).mkdir()
    spool.take(NAME, b"film")
    (spool.folder / "failed" / NAME).touch()

    assert [film.name for film in spool.incoming()] == [NAME]
    assert [item.name for item in spool.outgoing()] == ["a" * 32]


def test_a_film_is_on_the_disk_before_it_has_its_name(spool, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")) or real(fd))

    spool.take(NAME, b"film")
    (film,) = spool.incoming()
    spool.graded(film, {"sr.dcm": b"report"})
    spool.finished(spool.folder / "outgoing" / NAME)

    kinds = [path.removeprefix(str(spool.folder)).split("/")[1:] for path in synced]
    assert [kind[0] for kind in kinds] == ["incoming", "incoming", "outgoing", "outgoing", "outgoing", "done"]
    assert kinds[0][1].endswith(".part")
    assert kinds[1] == ["incoming"]
    assert kinds[2:5] == [["outgoing", f"{NAME}.part", "sr.dcm"], ["outgoing", f"{NAME}.part"], ["outgoing"]]
