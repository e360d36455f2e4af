"""The batch's journal, line by line."""

import json

import pytest

from kneeoa.errors import CorruptImage, InternalError
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa_cli.files.identity import IDENTITY
from kneeoa_cli.files.inputs import Source
from kneeoa_cli.files.journal import Journal

GRADER = {"grader": {"version": "1.2", "sha256": "0123456789abcdef"}}


def answer(error=None, model=None):
    return envelope(REPLY_SCHEMA, error, model=model or {})


@pytest.fixture
def films(tmp_path) -> list[Source]:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(name.encode())
    return [Source(tmp_path / name) for name in ("a", "b", "c")]


def opened(tmp_path, identify=False) -> Journal:
    return Journal(tmp_path / "r.csv", identify)


def test_an_answer_is_kept_at_once_and_found_again(films, tmp_path):
    with opened(tmp_path) as journal:
        assert not journal.knows(films[0])
        journal.add(films[0], answer(CorruptImage(), GRADER))
        assert journal.knows(films[0])
        line = journal.path.read_bytes()  # while the journal is open
        with pytest.raises(ValueError, match="answered before"):
            journal.add(films[0], answer(CorruptImage()))
    assert journal.path.name == "r.csv.journal"
    assert line.startswith(b'{"film": ')
    assert line.endswith(b"}\n")

    with opened(tmp_path) as again:
        assert again.knows(films[0])
        assert not again.knows(films[1])
        assert (again.added, again.unread) == (0, 0)
        (entry,) = again.entries()
    assert (entry["film"], entry["status"], entry["grader"]) == (films[0].name, "error", "1.2 0123456789ab")
    assert entry["rows"][0]["error_code"] == "corrupt_image"


def test_a_failure_of_the_server_is_a_row_of_this_run_only(films, tmp_path):
    with opened(tmp_path) as journal:
        journal.add(films[0], answer(InternalError()))
        journal.add(films[1], answer(CorruptImage()))
        assert not journal.knows(films[0])
        assert [entry["film"] for entry in journal.entries()] == [films[1].name, films[0].name]
        journal.add(films[0], answer(CorruptImage()))
        assert journal.added == 3
        assert not journal.failed
        assert [row["error_code"] for row in journal.rows()] == ["corrupt_image"] * 2

    with opened(tmp_path) as journal:
        journal.add(films[2], answer(InternalError()))
        assert list(journal.failed) == [films[2].place]
    assert journal.path.read_bytes().count(b"\n") == 2


def test_a_film_that_changed_is_another_one_and_has_the_last_word(films, tmp_path):
    with opened(tmp_path) as journal:
        for film in films:
            journal.add(film, answer(CorruptImage()))
        films[1].path.write_bytes(b"another film")
        changed = Source(films[1].path)
        assert not journal.knows(changed)
        journal.add(changed, answer(CorruptImage(), GRADER))
        graders = [(entry["film"], entry["grader"]) for entry in journal.entries()]

    with opened(tmp_path) as again:
        assert again.knows(changed)
        assert [(entry["film"], entry["grader"]) for entry in again.entries()] == graders
    assert graders == [(films[0].name, None), (films[2].name, None), (films[1].name, "1.2 0123456789ab")]


def test_a_line_that_was_cut_off_is_taken_away_and_the_next_one_is_whole(films, tmp_path):
    with opened(tmp_path) as journal:
        for film in films[:2]:
            journal.add(film, answer(CorruptImage()))
    journal.path.write_bytes(journal.path.read_bytes()[:-10])

    with opened(tmp_path) as journal:
        assert [journal.knows(film) for film in films] == [True, False, False]
        assert journal.unread == 0
        for film in films[1:]:
            journal.add(film, answer(CorruptImage()))
        assert [entry["film"] for entry in journal.entries()] == [film.name for film in films]
    with opened(tmp_path) as again:
        assert all(map(again.knows, films))
        assert len(list(again.entries())) == 3


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda entry: entry | {"film": 1},
        lambda entry: entry | {"place": None},
        lambda entry: entry | {"stamp": 7},
        lambda entry: {key: value for key, value in entry.items() if key != "status"},
        lambda entry: {key: value for key, value in entry.items() if key != "grader"},
        lambda entry: entry | {"rows": 3},
        lambda entry: entry | {"rows": [{"=cmd": 1}]},
        lambda entry: [entry],
    ],
)
def test_a_line_that_is_none_of_ours_costs_its_own_film_only(spoilt, films, tmp_path):
    with opened(tmp_path) as journal:
        for film in films[:2]:
            journal.add(film, answer(CorruptImage()))
    first, second = journal.path.read_text().splitlines()
    journal.path.write_text(json.dumps(spoilt(json.loads(first))) + "\n" + second + "\n")

    with opened(tmp_path) as again:
        assert [again.knows(film) for film in films[:2]] == [False, True]
        assert again.unread == 1
        assert [entry["film"] for entry in again.entries()] == [films[1].name]


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "r.csv.journal").write_text("dear diary\n")

    with pytest.raises(ValueError, match="not a kneeoa journal"), opened(tmp_path):
        pass

    assert (tmp_path / "r.csv.journal").read_text() == "dear diary\n"


def test_one_run_at_a_time(tmp_path):
    with opened(tmp_path), pytest.raises(ValueError, match="another run"), opened(tmp_path):
        pass
    with opened(tmp_path):
        pass


def test_films_answered_without_identity_are_asked_for_again_with_it(films, tmp_path):
    with opened(tmp_path) as journal:
        journal.add(films[0], answer(CorruptImage()), b"data that are not asked for")
    with opened(tmp_path, identify=True) as journal:
        assert journal.anonymous == {films[0].place}
        assert not journal.knows(films[0])
        journal.add(films[0], answer(CorruptImage()), b"no DICOM")
        assert journal.knows(films[0])
    for identify in (True, False):
        with opened(tmp_path, identify) as again:
            assert again.knows(films[0])
            ((row,),) = [entry["rows"] for entry in again.entries()]
            assert set(IDENTITY) <= set(row)


def test_films_named_alike_are_told_apart_by_their_places(films, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a").write_bytes(b"other")
    with opened(tmp_path) as journal:
        for folder in (tmp_path, tmp_path / "other"):
            monkeypatch.chdir(folder)
            film = Source(type(folder)("a"))
            assert film.place == str(folder / "a")
            journal.add(film, answer(CorruptImage()))
        journal.add(films[1], answer(CorruptImage()))

        assert [row["file"] for row in journal.rows()] == [
            str(tmp_path / "a"),
            str(tmp_path / "other/a"),
            films[1].name,
        ]
