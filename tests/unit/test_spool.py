"""The PACS loop's spool after every kind of crash."""

import pytest

from kneeoa_cli.pacs.router import FAILURES
from kneeoa_cli.pacs.spool import Spool

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
