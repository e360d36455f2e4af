"""The output of an archive's run: what is written whole, what a later run knows of it, what is in the way."""

import json
import resource

import pytest

pytest.importorskip("pyarrow")

from pyarrow import dataset

from kneeoa.reporting.tables import COLUMNS
from kneeoa_cli.files.parts import Entry, Parts, digest, prefix_of


def entry(place, stamp="1", code=None, grader="0.4.0 abc"):
    return Entry(place, stamp, "error" if code else "ok", code, grader, 1)


def row(name, **values):
    return dict.fromkeys(COLUMNS) | {"file": name, "knee": "R"} | values


def written(out):
    """File and KL of every row, as any reader of data sets finds them."""
    table = dataset.dataset(out, partitioning="hive").to_table()
    assert table.column_names == [*COLUMNS, "prefix"]
    return sorted(zip(table["file"].to_pylist(), table["KL"].to_pylist(), strict=True))


def run_of(out, *films):
    parts = Parts(str(out))
    parts.load()
    for film, grade in films:
        parts.add("a", film, [row(film.place, KL=grade)])
    parts.flush()
    settled = list(parts.settle())
    parts.close()
    return parts, settled


def test_a_later_run_knows_what_an_earlier_one_wrote(tmp_path):
    run_of(tmp_path / "out", (entry("a"), 1), (entry("b", code="unreadable_file"), None), (entry("c"), 3))
    parts = Parts(str(tmp_path / "out"))
    parts.load()

    stamps = {place: parts.known.get(digest(place)) for place in "abcd"}
    assert stamps == {"a": "1", "b": "", "c": "1", "d": None}  # b: the disk's fault, tried again


def test_the_newest_rows_of_a_film_replace_the_others(tmp_path):
    run_of(tmp_path, (entry("a"), 1), (entry("b", code="internal_error"), None), (entry("c"), 3))
    _, settled = run_of(tmp_path, (entry("a", stamp="2"), 4), (entry("b"), 2))

    assert written(tmp_path) == [("a", 4), ("b", 2), ("c", 3)]
    assert sorted(film.place for film in settled) == ["a", "b", "c"]


def test_what_a_killed_run_left_is_out_of_the_way_and_counted(tmp_path):
    run_of(tmp_path, (entry("a"), 1))
    (whole,) = tmp_path.rglob("part-*.parquet")
    whole.with_name("part-f-000001.parquet").write_bytes(whole.read_bytes()[:-50])
    whole.with_name(".kneeoa-0123").write_bytes(b"half")
    parts, _ = run_of(tmp_path)

    assert parts.unread == 2
    assert written(tmp_path) == [("a", 1)]
    assert (whole.parent / "_unreadable-part-f-000001.parquet").exists()  # moved, not deleted


@pytest.mark.parametrize(
    ("there", "identify", "told"),
    [
        ("thesis.docx", False, "did not write"),
        ("_kneeoa.json", False, "0.1.0 whose columns differ"),
        ("ours", True, "with --identify, or without"),
        ("ours", False, "another run writes"),
    ],
)
def test_another_output_in_the_way_is_told_and_stays(tmp_path, there, identify, told):
    if there == "ours":
        held = Parts(str(tmp_path))
    else:
        (tmp_path / there).write_text(json.dumps({"kneeoa": "0.1.0", "columns": ["file"]}))
    before = sorted(tmp_path.iterdir())

    with pytest.raises(ValueError, match=told):
        Parts(str(tmp_path), identify)
    assert sorted(tmp_path.iterdir()) == before
    if there == "ours":
        held.close()


def test_a_full_disk_is_a_sentence_and_costs_nothing(tmp_path):
    """The limit on a file's size stands for the disk: the same call fails."""
    run_of(tmp_path, (entry("a"), 1))
    parts = Parts(str(tmp_path))
    parts.load()
    parts.add("a", entry("b"), [row("b", KL=2)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ValueError, match=r"^cannot write to .*: .*File too large"):
            parts.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert written(tmp_path) == [("a", 1)]
    assert not list(tmp_path.rglob(".kneeoa-*"))
    parts.flush()
    assert written(tmp_path) == [("a", 1), ("b", 2)]
    parts.close()


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("s3://b/2026-11/x.dcm", "2026"),
        ("s3://b/a.zip!köpf/1.dcm", "a_zi"),
        ("/films/x.dcm", "x_dc"),
        ("/elsewhere/y.dcm", "y_dc"),
    ],
)
def test_partitions_are_named_by_the_first_letters_below_the_source(name, prefix):
    assert prefix_of(name, ["s3://b", "/films"]) == prefix
