"""The batch client against a server made of a few lines: what is retried, what is not, and what a cut-off run leaves."""

import json
import re
import time
import tracemalloc
import zipfile

import pytest
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset

from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa.reporting.tables import COLUMNS
from kneeoa_cli.batch import run
from kneeoa_cli.files.inputs import MAX_BYTES, Source, SourceError, walk
from kneeoa_cli.files.journal import Journal
from kneeoa_cli.flow import Answer
from kneeoa_client import client
from kneeoa_client.client import ATTEMPTS, Client, ServerError


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "films"
    (folder / "deep").mkdir(parents=True)
    for i in range(12):
        (folder / ("deep" if i % 2 else ".") / f"{i:02d}.dcm").write_bytes(b"film %d" % i)
    (folder / "notes.txt").write_text("not a film")
    return folder


def test_each_film_is_asked_for_once_and_never_too_many_at_a_time(folder, fake, server, tmp_path):
    summary = run([str(folder)], tmp_path / "r.csv", server, in_flight=3)

    assert (summary.films, summary.statuses["ok"]) == (12, 12)
    assert summary.complete
    assert set(fake.seen.values()) == {1}
    assert len(fake.seen) == 24
    assert fake.most <= 3


@pytest.mark.parametrize("fault", [500, 503, 0, 404])
def test_a_server_that_fails_for_a_while_is_asked_again(fault, folder, fake, server, tmp_path):
    fake.script[b"film 3"] = (fault, 2)

    summary = run([str(folder)], tmp_path / "r.csv", server, in_flight=2)

    assert summary.statuses == {"ok": 12}
    assert fake.seen[b"film 3", "detector"] == 3


def test_a_busy_server_is_waited_for_as_long_as_it_takes(folder, fake, server, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "AWAY", 0.9)  # less than four answers of "busy" take
    monkeypatch.setattr(client.random, "uniform", lambda _, most: most)
    fake.script[b"film 3"] = ("busy", 4)

    assert run([str(folder)], tmp_path / "r.csv", server, in_flight=2).statuses == {"ok": 12}


def test_a_film_that_fails_for_good_is_one_error_row(folder, fake, server, tmp_path):
    fake.script[b"film 3"] = (500, 10**6)

    summary = run([str(folder)], tmp_path / "r.jsonl", server, in_flight=2)

    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    (error,) = (row for row in rows if row["status"] == "error")
    assert error["error_code"] == "server_failed"
    assert error["file"].endswith("03.dcm")
    assert list(error) == list(COLUMNS)
    assert (summary.statuses, summary.errors) == ({"ok": 11, "error": 1}, {"server_failed": 1})
    assert not summary.complete


def test_a_film_that_the_server_failed_on_is_asked_once_more_alone_and_by_a_rerun(
    folder, fake, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(client, "FAILING", 0.0)
    fake.script = {b"film 3": (500, ATTEMPTS), b"film 4": ("internal_error", 10**6), b"film 5": ("timeout", 10**6)}

    first = run([str(folder)], tmp_path / "r.csv", server, in_flight=4)
    before = fake.seen.copy()
    fake.script.clear()
    again = run([str(folder)], tmp_path / "r.csv", server, in_flight=4)

    assert first.statuses == {"ok": 10, "error": 2}
    assert first.errors == {"internal_error": 1, "timeout": 1}
    assert again.statuses == {"ok": 12}
    assert again.before == 10
    assert {film for film, _ in fake.seen - before} == {b"film 4", b"film 5"}


def test_patience_counts_attempts_too(fake, server, monkeypatch):
    """The server's own time-out is as long as the client's patience."""
    monkeypatch.setattr(client, "FAILING", 0.0)
    fake.script[b"film"] = ("timeout", 2)

    assert server.post_patiently(b"film")["status"] == "ok"
    assert fake.seen[b"film", "knee_oa"] == 3


def test_a_server_that_is_gone_ends_the_run_and_the_next_one_goes_on(folder, fake, server, tmp_path):
    fake.script[b"film 5"] = (0, 10**6)
    with pytest.raises(ServerError):
        run([str(folder)], tmp_path / "r.csv", server, in_flight=1)
    before = fake.seen.copy()
    fake.script.clear()

    summary = run([str(folder)], tmp_path / "r.csv", server, in_flight=1)

    assert summary.films == 12
    assert 0 < summary.before < 12
    assert all(count == 1 for asked, count in fake.seen.items() if asked[0] != b"film 5")
    assert sum(before.values()) < sum(fake.seen.values())


def test_a_new_key_is_read_and_a_refused_one_is_told(folder, fake, server, tmp_path):
    fake.key = "new"
    with pytest.raises(ServerError, match="HTTP 400"):
        run([str(folder)], tmp_path / "r.csv", server, in_flight=1)
    server.key_file.write_text(json.dumps({"inference": {"key": "new"}}))

    assert run([str(folder)], tmp_path / "r.csv", server, in_flight=1).complete


def test_a_line_cut_off_while_written_is_done_again(tmp_path):
    reply = envelope(REPLY_SCHEMA)
    a, b = (Source(tmp_path / name) for name in "ab")
    with Journal(tmp_path / "r.csv") as journal:
        journal.add(a, reply)
        journal.add(b, reply)
    text = journal.path.read_bytes()
    journal.path.write_bytes(text[:-9])

    with Journal(tmp_path / "r.csv") as again:
        assert set(again.done) == {a.place}
        again.add(b, reply)
        assert [entry["film"] for entry in again.entries()] == [a.name, b.name]

    assert journal.path.read_bytes() == text
    with pytest.raises(ValueError, match="before"), again:
        again.add(a, reply)


def test_progress_without_a_terminal_is_a_line_with_rate_and_time_left(folder, server, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kneeoa_cli.flow.LINE_SECONDS", 0)

    run([str(folder)], tmp_path / "r.csv", server, in_flight=1)

    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"12 of 12 films, \d+\.\d\d films/s, 00:0\d left", lines[-1])


def test_a_server_that_never_answered_is_told_at_once(folder, fake, server, tmp_path):
    fake.http.shutdown()
    fake.http.server_close()
    began = time.monotonic()

    with pytest.raises(ServerError, match="no answer"):
        run([str(folder)], tmp_path / "r.csv", server, in_flight=2)

    assert time.monotonic() - began < 1


@pytest.mark.parametrize(("name", "told"), [("r.txt", "must end in"), ("absent/r.csv", "there is no folder")])
def test_results_that_cannot_be_written_are_told_before_anything_is_graded(folder, fake, server, tmp_path, name, told):
    with pytest.raises(ValueError, match=told):
        run([str(folder)], tmp_path / name, server, in_flight=1)

    assert not fake.seen


def test_two_runs_never_write_to_one_journal(tmp_path):
    with Journal(tmp_path / "r.csv"), pytest.raises(ValueError, match="another run"):
        Journal(tmp_path / "r.csv").__enter__()


def test_a_film_that_cannot_be_read_or_is_too_large_is_one_error_row(folder, fake, server, tmp_path):
    with open(folder / "large.dcm", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with zipfile.ZipFile(folder / "cut.zip", "w") as archive:
        archive.writestr("a.dcm", b"film in a zip")
    data = bytearray((folder / "cut.zip").read_bytes())
    data[40] ^= 0xFF  # in the member's bytes: its checksum is wrong now
    (folder / "cut.zip").write_bytes(data)

    summary = run([str(folder)], tmp_path / "r.csv", server, in_flight=2)

    assert summary.errors == {"too_large": 1, "unreadable_file": 1}
    assert summary.statuses["ok"] == 12


def test_a_film_named_twice_is_graded_once_and_a_folder_that_leads_back_is_not_followed(folder, fake, server, tmp_path):
    (folder / "deep/back").symlink_to(folder)

    summary = run([str(folder), str(folder / "*.dcm"), str(folder / "deep")], tmp_path / "r.csv", server, in_flight=4)

    assert summary.films == 12
    assert set(fake.seen.values()) == {1}


def test_weights_that_changed_between_two_runs_are_told(tmp_path):
    with Journal(tmp_path / "r.csv") as journal:
        for i, version in enumerate("aab"):
            journal.add(
                Source(tmp_path / str(i)),
                envelope(REPLY_SCHEMA, model={"grader": {"version": version, "sha256": "0" * 64}}),
            )

        assert [entry["grader"] for entry in journal.entries()] == [
            "a 000000000000",
            "a 000000000000",
            "b 000000000000",
        ]


def test_a_hundred_thousand_paths_cost_little_memory(tmp_path, monkeypatch):
    """A tenth of them, at a tenth of the 500 MB asked for; measured with all of them: docs/operations.md."""
    with zipfile.ZipFile(tmp_path / "month.zip", "w") as archive:
        for i in range(10_000):
            archive.writestr(f"{i:06d}.dcm", b"")
    monkeypatch.setattr("kneeoa_cli.batch.one", lambda *_: Answer(envelope(REPLY_SCHEMA)))
    tracemalloc.start()

    summary = run([str(tmp_path)], tmp_path / "r.csv", Client("", ""), in_flight=8)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert summary.films == 10_000
    assert peak < 50e6


def test_archives_and_dicomdirs_are_walked(folder, tmp_path):
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("x/1.dcm", b"one")
        archive.writestr("x/readme.txt", b"-")
    record = Dataset()
    with config.disable_value_validation():
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", ["deep", "01.dcm"]
    directory = Dataset()
    directory.DirectoryRecordSequence, directory.file_meta = [record], FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    directory.file_meta.MediaStorageSOPClassUID, directory.file_meta.MediaStorageSOPInstanceUID = (
        "1.2.840.10008.1.3.10",
        "1.2",
    )
    with config.disable_value_validation():
        directory.save_as(folder / "DICOMDIR", enforce_file_format=True)

    films = list(walk([str(folder)]))

    assert len(films) == 13
    assert Source(folder / "more.zip", "x/1.dcm").read() == b"one"
    assert list(walk([str(folder / "DICOMDIR")])) == [Source(folder / "deep/01.dcm")]
    assert [film.path.name for film in walk([str(folder / "*.dcm")])] == [f"{i:02d}.dcm" for i in range(0, 12, 2)]
    with pytest.raises(SourceError, match="no such"):
        list(walk([str(folder / "absent")]))
    (folder / "bad.zip").write_bytes(b"PK no")
    with pytest.raises(SourceError, match="cannot read"):
        list(walk([str(folder / "bad.zip")]))
