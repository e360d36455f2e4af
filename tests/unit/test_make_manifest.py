"""make manifest: what it writes and says, and that it goes on where it was cut off."""

import os

import pandas as pd
import pytest

from tests.unit.releases import write_csv, write_most, write_oai
from training.data.make_manifest import main
from training.data.manifest import read_manifest
from training.data.resumed import resumed
from training.data.schema import KNEE
from training.data.splits import split_hash


def test_the_command_writes_a_checked_manifest(tmp_path, capsys):
    write_oai(tmp_path, subjects=9)

    main(["oai", str(tmp_path), "--out", str(tmp_path / "m.parquet"), "--seed", "4", "--workers", "1"])

    frame = read_manifest(tmp_path / "m.parquet")
    printed = capsys.readouterr().out
    assert frame.attrs["split"]["method"] == "by-subject"
    assert f"hash      {split_hash(frame)}" in printed
    assert "subjects  9" in printed
    assert "TM 0" in printed
    assert "9000001" not in printed


def test_the_command_joins_oai_and_most(tmp_path):
    write_oai(tmp_path / "OAI", subjects=6)
    write_most(tmp_path / "MOST", subjects=3)

    main(
        ["oai-most", str(tmp_path), "--out", str(tmp_path / "m.parquet"), "--split", "across-cohorts", "--workers", "1"]
    )

    frame = read_manifest(tmp_path / "m.parquet")
    assert set(frame[frame["split"] == "test"]["cohort"]) == {"MOST"}
    assert set(frame[frame["split"] != "test"]["cohort"]) == {"OAI"}
    assert not frame.duplicated(KNEE).any()


def test_one_truncated_film_is_left_out_named_and_counted_and_the_next_run_goes_on(tmp_path, capsys, monkeypatch):
    write_oai(tmp_path, subjects=9)
    film = "images/00m/0.C.2/9000007/20050112/00000700/001"
    (tmp_path / film).write_bytes((tmp_path / film).read_bytes()[:-1000])
    call = ["oai", str(tmp_path), "--out", str(tmp_path / "m.parquet"), "--workers", "1"]

    main(call)

    assert len(read_manifest(tmp_path / "m.parquet")) == 16
    left_out = pd.read_csv(tmp_path / "m.left_out.csv", dtype=str)
    assert left_out[["path", "subject", "side", "reason"]].to_numpy().tolist() == [
        [film, "9000007", side, "unreadable film (corrupt_image)"] for side in "LR"
    ]
    printed = capsys.readouterr().out
    last = printed.splitlines()[-1]
    assert last == f"left out  2: unreadable film (corrupt_image) 2 ({tmp_path / 'm.left_out.csv'})"
    assert "9000007" not in printed

    monkeypatch.setattr("training.data.make_manifest.why_unreadable", lambda path: pytest.fail("decoded again"))
    main(call)
    assert len(read_manifest(tmp_path / "m.parquet")) == 16


def test_a_film_that_was_replaced_is_decoded_again(tmp_path):
    write_oai(tmp_path, subjects=9)
    film = tmp_path / "images/00m/0.C.2/9000007/20050112/00000700/001"
    whole = film.read_bytes()
    film.write_bytes(whole[:-1000])
    call = ["oai", str(tmp_path), "--out", str(tmp_path / "m.parquet"), "--workers", "1"]

    main(call)
    film.write_bytes(whole)
    main(call)

    assert len(read_manifest(tmp_path / "m.parquet")) == 18


def test_check_says_what_would_be_used_and_writes_nothing(tmp_path, capsys):
    write_oai(tmp_path, implants={(2, "L"): ("BLRP", 1)})
    before = sorted(tmp_path.rglob("*"))

    main(["oai", str(tmp_path), "--check"])

    printed = capsys.readouterr().out
    assert "knees     9" in printed
    assert "sites     OAI A 2  OAI B 2  OAI C 1  OAI D 2  OAI E 2" in printed
    assert "note      readings of V10, of which there is no film: 11" in printed
    assert "left out  1: implant 1" in printed
    assert sorted(tmp_path.rglob("*")) == before


def test_quick_decodes_nothing_and_the_options_reach_the_readers(tmp_path, monkeypatch):
    write_oai(tmp_path / "OAI", subjects=6, visits={"00": "00m/0.C.2", "01": "12m/1.C.2"})
    write_most(tmp_path / "MOST", subjects=8)
    monkeypatch.setattr("training.data.make_manifest.why_unreadable", lambda path: pytest.fail("decoded"))
    options = ["--visits", "v01", "V0", "--views", "PA10", "--kl-19", "1", "--projects", "15", "--quick"]

    main(["oai-most", str(tmp_path), "--out", str(tmp_path / "m.parquet"), *options])

    frame = read_manifest(tmp_path / "m.parquet")
    assert set(frame["visit"]) == {"V01", "V0"}
    assert set(frame[frame["cohort"] == "MOST"]["view"]) == {"PA10"}
    assert set(frame[(frame["cohort"] == "MOST") & (frame["side"] == "L")]["KL"]) == {1}


def test_the_command_says_what_is_wrong_and_writes_nothing(tmp_path):
    path = write_csv(tmp_path, "path,side,kl,split\na.png,R,1,train\ngone.png,L,1,val\n")

    with pytest.raises(SystemExit, match="(?s)error: .*the file is missing"):
        main(["table", str(path), "--out", str(tmp_path / "m.parquet")])
    assert not (tmp_path / "m.parquet").exists()


# --- work that goes on where it was cut off


def halved(number: int) -> list:
    return [number / 2, os.getpid()]


@pytest.mark.parametrize("workers", [1, 2])
def test_work_is_done_once_and_written_as_it_comes(tmp_path, workers):
    jobs = {f"job {i}": (i,) for i in range(20)}
    journal = tmp_path / "journal"

    answers = resumed(halved, jobs, journal, workers)

    assert {key: answer[0] for key, answer in answers.items()} == {f"job {i}": i / 2 for i in range(20)}
    assert (os.getpid() in {answer[1] for answer in answers.values()}) == (workers == 1)
    journal.write_bytes(journal.read_bytes()[:-9])  # cut off while the last answer was written
    again = resumed(lambda number: [number / 2, "again"], jobs | {"new": (8,)}, journal, 1)
    assert sorted(key for key, answer in again.items() if answer[1] == "again") == sorted(["new", [*answers][-1]])
    assert resumed(lambda number: pytest.fail("done again"), jobs | {"new": (8,)}, journal, 1) == again


def test_after_an_error_the_answers_so_far_are_kept(tmp_path):
    def half(number):
        return number / 2 if number < 3 else 1 / 0

    with pytest.raises(ZeroDivisionError):
        resumed(half, {str(i): (i,) for i in range(5)}, tmp_path / "journal", 1)

    assert list(resumed(lambda number: -1, {str(i): (i,) for i in range(4)}, tmp_path / "journal", 1).values()) == [
        0,
        0.5,
        1,
        -1,
    ]
