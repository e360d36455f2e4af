"""Other people's files: names that steer, links that lead away, what lies in a result's place, films that were exchanged."""

import csv
import json
import os
import zipfile

import pytest
from pydicom import config
from pydicom.dataset import Dataset, FileMetaDataset

from kneeoa.errors import CorruptImage
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa_cli.batch import run
from kneeoa_cli.files import inputs as sources
from kneeoa_cli.files.inputs import Source, SourceError, UnreadableFile, distinct_stems, walk
from kneeoa_cli.files.journal import Journal
from kneeoa_cli.files.names import LONGEST, cell, printable
from kneeoa_cli.files.outputs import Outputs, Taken
from kneeoa_cli.files.tables import Results, rows_of, table
from kneeoa_cli.main import main as kneeoa


@pytest.fixture
def here(tmp_path, monkeypatch, fake, server):
    """A folder to work in, with a server; no film is graded: there is a row per film all the same."""
    fake.script = dict.fromkeys((b"one", b"two", b"three", b"four"), ("corrupt_image", 10**6))
    monkeypatch.setenv("KNEEOA_SERVER", server.url)
    monkeypatch.setenv("KNEEOA_KEY_FILE", str(server.key_file))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def rows(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def film(path, data: bytes = b"one"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- the batch journal


def test_the_same_names_from_another_folder_are_other_films(here, fake, server, monkeypatch):
    """Relative names: the first folder's grades were given to the second one's films."""
    film(here / "a/films/1.dcm", b"one"), film(here / "b/films/1.dcm", b"two")
    for folder in ("a", "b"):
        monkeypatch.chdir(here / folder)
        run(["films"], here / "r.csv", server, in_flight=1)

    assert fake.seen[b"two", "detector"] == 1
    assert [row["file"] for row in rows(here / "r.csv")] == [str(here / f"{x}/films/1.dcm") for x in "ab"]


def test_a_film_that_changed_is_graded_again_and_has_one_row(here, fake, server):
    path = film(here / "d/1.dcm", b"one")
    run(["d"], here / "r.csv", server, in_flight=1)
    film(path, b"two")
    os.utime(path, ns=(1, 1))
    run(["d"], here / "r.csv", server, in_flight=1)
    run(["d"], here / "r.csv", server, in_flight=1)

    assert (fake.seen[b"one", "detector"], fake.seen[b"two", "detector"]) == (1, 1)
    assert len(rows(here / "r.csv")) == 1


def test_an_archive_is_known_by_checksums_and_exchanged_media_by_theirs(here, monkeypatch):
    path = here / "m.zip"
    stamps = []
    for data in (b"one", b"two"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("1.dcm", data)
        os.utime(path, ns=(1, 1))
        stamps += [next(walk([str(path)])).stamp]
    monkeypatch.setattr(sources, "removable", lambda device: True)
    for data in (b"one", b"two"):
        os.utime(film(here / "1.dcm", data), ns=(1, 1))
        stamps += [Source(here / "1.dcm").stamp]

    assert len(set(stamps)) == 4


def test_garbage_in_the_journal_costs_its_own_film_only(here, fake, server):
    film(here / "d/1.dcm", b"one"), film(here / "d/2.dcm", b"two")
    run(["d"], here / "r.csv", server, in_flight=1)
    journal = here / "r.csv.journal"
    first, second = journal.read_bytes().splitlines()
    old = json.dumps({"film": "d/2.dcm", "status": "ok", "grader": None, "rows": []}).encode()  # of 0.3.0
    journal.write_bytes(b"\n".join([b"\0" * 50, first, b"{no", b"[]", b"7", old, second[:-9]]))

    summary = run(["d"], here / "r.csv", server, in_flight=1)

    assert (fake.seen[b"one", "detector"], fake.seen[b"two", "detector"]) == (1, 2)
    assert (summary.films, summary.before, summary.unread) == (2, 1, 5)
    assert len(rows(here / "r.csv")) == 2


@pytest.mark.parametrize("name", ["r.csv", "r.csv.part", "r.csv.journal"])
def test_results_do_not_replace_what_is_not_ours(here, fake, server, name):
    film(here / "d/1.dcm")
    (here / name).write_text("my own notes\n")

    for command in (["batch"], ["grade"] if name != "r.csv.journal" else ["batch"]):
        assert kneeoa([*command, "d", "--out", "r.csv"]) == 2

    assert (here / name).read_text() == "my own notes\n"
    assert not fake.seen


# --- outputs


def test_figures_never_replace_the_films(here, fake):
    path = film(here / "d/film.png", b"one")

    assert kneeoa(["grade", "d", "--figures", "d"]) == 2

    assert path.read_bytes() == b"one"
    assert not fake.seen


def test_outputs_replace_ours_and_nothing_else(here, tmp_path):
    outputs, reply = Outputs(frozenset()), json.dumps(envelope(REPLY_SCHEMA), indent=2).encode()
    target, link = film(tmp_path / "elsewhere.json", reply), here / "link.json"
    link.symlink_to(target)
    outputs.write(here / "1.json", reply)
    outputs.write(here / "1.json", reply + b"\n")

    for path in (film(here / "2.json", b"{}"), link):
        with pytest.raises(Taken):
            outputs.write(path, b"new")
    with pytest.raises(Taken, match="one of the radiographs"):
        Outputs.beside([Source(here / "1.json")]).write(here / "1.json", b"new")

    assert target.read_bytes() == reply
    assert sorted(path.name for path in here.iterdir()) == ["1.json", "2.json", "link.json"]


def test_names_are_bounded_and_distinct(here):
    names = [
        "x" * 250 + ".dcm",
        "x" * 249 + "y.dcm",
        "ä" * 120 + ".dcm",
        "A.dcm",
        "b/a.dcm",
        "e\x1b[31m.dcm",
        "n\udcff.dcm",
    ]
    stems = distinct_stems([Source(here / name) for name in names]).values()

    assert len({stem.casefold() for stem in stems}) == len(names)
    assert max(len(stem.encode()) for stem in stems) <= LONGEST + 9
    assert all(stem.isprintable() for stem in stems)


def test_a_long_name_costs_no_row(here):
    """A 250-character name lost the whole table: its reply's file could not be written."""
    film(here / "d" / ("x" * 250 + ".dcm"), b"one"), film(here / "d/y.dcm", b"two")

    assert kneeoa(["grade", "d", "--out", "r.csv", "--json", "replies"]) == 1

    assert len(rows(here / "r.csv")) == 2
    assert len(list((here / "replies").iterdir())) == 2


def test_rows_come_one_by_one_and_stay_when_the_server_goes(here, fake):
    for i, data in enumerate((b"one", b"two", b"three")):
        film(here / f"d/{i}.dcm", data)
    fake.script[b"three"] = (0, 10**6)

    assert kneeoa(["grade", "d", "--out", "r.csv"]) == 2

    assert {row["file"] for row in rows(here / "r.csv")} == {"d/0.dcm", "d/1.dcm"}
    fake.script |= dict.fromkeys((b"one", b"two"), (0, 10**6))
    assert kneeoa(["grade", "d", "--out", "r.csv"]) == 2
    assert len(rows(here / "r.csv")) == 2  # nothing new: earlier results stay


def test_rows_are_on_disk_before_the_last_one(here):
    reply = envelope(REPLY_SCHEMA, CorruptImage())
    for name in ("r.csv", "r.jsonl", "r.parquet"):
        with Results(here / name, Outputs(frozenset())) as written:
            written.add(rows_of("film", reply), rank=1)
            written.add(rows_of("first", reply), rank=0)
            assert "corrupt_image" in (here / f"{name}.part").read_text()
        text = (here / name).read_bytes()
        assert text.index(b"first") < text.rindex(b"film")
        with Results(here / name, Outputs(frozenset())) as written:  # ours: again
            written.add(rows_of("film", reply))
        assert not (here / f"{name}.part").exists()


# --- inputs


def test_pipes_links_and_odd_names_do_not_stop_a_run(here, fake, tmp_path, capsys):
    film(here / "d/1.dcm", b"one"), film(tmp_path / "secret.dcm", b"secret")
    film(here / os.fsdecode(b"d/\xff.dcm"), b"two"), film(here / "d/\x1b]0;owned\x07.dcm", b"three")
    os.mkfifo(here / "d/pipe"), os.mkfifo(here / "d/pipe.zip")
    (here / "d/link.dcm").symlink_to(tmp_path / "secret.dcm")
    (here / "d/inside.dcm").symlink_to("1.dcm")
    film(here / "d/broken.zip", b"PK no")

    assert kneeoa(["grade", "d", "--out", "r.csv"]) == 1
    assert kneeoa(["grade", "d"]) == 1

    found = {row["file"]: row["error_code"] for row in rows(here / "r.csv")}
    unreadable = ("d/pipe", "d/pipe.zip", "d/broken.zip", "d/link.dcm")
    assert found == {
        "d/1.dcm": "corrupt_image",
        "d/\\udcff.dcm": "corrupt_image",
        "d/\\x1b]0;owned\\x07.dcm": "corrupt_image",
        **dict.fromkeys(unreadable, "unreadable_file"),
    }
    assert b"secret" not in {film for film, _ in fake.seen}
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("parts", [["..", "..", "SECRET"], ["LINK"], ["/", "SECRET"]])
def test_a_dicomdir_stays_in_its_folder(here, tmp_path, parts):
    secret = film(tmp_path / "SECRET", b"secret")
    (here / "cd").mkdir()
    (here / "cd/LINK").symlink_to(secret)
    record, directory = Dataset(), Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2"
    with config.disable_value_validation():
        parts = [str(secret)] if parts[0] == "/" else parts
        record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", parts
        directory.DirectoryRecordSequence = [record]
        directory.save_as(here / "cd/DICOMDIR", enforce_file_format=True)

    (listed,) = walk([str(here / "cd/DICOMDIR")])

    with pytest.raises(UnreadableFile):
        listed.read()


def test_pipes_by_name_are_told_at_once(here):
    os.mkfifo(here / "DICOMDIR")
    with pytest.raises(SourceError):
        list(walk(["DICOMDIR"]))


def test_names_neither_calculate_nor_steer():
    reply = envelope(REPLY_SCHEMA, CorruptImage())
    name = "d/=1\x1b[2J\u202egnp.dcm"

    assert cell("=cmd|' /C calc'!A0.dcm") == "'=cmd|' /C calc'!A0.dcm"
    assert [cell(text)[0] for text in ("+1", "-1", "@x", " =1")] == ["'"] * 4
    assert cell("a;=1+1.dcm") == "a;'=1+1.dcm"
    assert cell("a=b-c.dcm") == "a=b-c.dcm"
    assert printable("Knie-ä 1.dcm") == "Knie-ä 1.dcm"
    assert not set("\x1b\u202e") & set(table({name: reply}) + rows_of(name, reply)[0]["file"])


def test_a_journal_that_is_a_link_is_not_followed(here):
    (here / "r.csv.journal").symlink_to(here / "other")
    with pytest.raises(OSError, match="symbolic"), Journal(here / "r.csv"):
        pass
    assert not (here / "other").exists()
