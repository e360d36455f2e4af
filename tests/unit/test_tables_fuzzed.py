"""Reading tables as spreadsheets, other systems and years of copying leave them: the same knees, or a word why not."""

import codecs

import numpy as np
import pandas as pd
import pytest

from tests.unit.release_facts import noted, path_of, put_back, table_of
from tests.unit.releases import write_most, write_nda, write_oai
from training.data.most import read_most
from training.data.oai import read_oai
from training.data.schema import ManifestError


@pytest.fixture(params=["oai", "nda", "most"])
def release(request, tmp_path):
    """A reader, its folder and its table."""
    if request.param == "oai":
        write_oai(tmp_path)
        return read_oai, tmp_path, path_of(tmp_path)
    if request.param == "nda":
        write_nda(tmp_path)
        return read_oai, tmp_path, next(tmp_path.rglob("oai_kxrsemiquant01.txt"))
    write_most(tmp_path)
    return read_most, tmp_path, tmp_path / "MOSTV01235XRAY.txt"


def cells_of(text: str) -> tuple[list[list[str]], str]:
    separator = max("|\t", key=text.splitlines()[0].count)
    return [line.split(separator) for line in text.splitlines()], separator


def rewritten(text: str, change) -> str:
    rows, separator = cells_of(text)
    return "".join(separator.join(row) + "\r\n" for row in change(rows))


def shuffled(rows):
    order = np.random.default_rng(0).permutation(len(rows[0]))
    return [[row[i] for i in order] for row in rows]


def with_empty_rows(rows):
    return [*rows, *([[""] * len(rows[0])] * 3000)]


def with_words_for_nothing(rows):
    words = ("NaN", "NA", "nan", "", "N/A", "NULL")
    return [*rows, *([[words[i % 6]] * len(rows[0]) for i in range(3000)])]


def with_shuffled_rows(rows):
    body = rows[1:]
    return [rows[0], *(body[i] for i in np.random.default_rng(1).permutation(len(body)))]


FUZZ = {
    "shuffled columns": lambda text: rewritten(text, shuffled).encode(),
    "shuffled rows": lambda text: rewritten(text, with_shuffled_rows).encode(),
    "lower case": lambda text: (text.splitlines(True)[0].lower() + "".join(text.splitlines(True)[1:])).encode(),
    "upper case": lambda text: (text.splitlines(True)[0].upper() + "".join(text.splitlines(True)[1:])).encode(),
    "spaces in the header": lambda text: rewritten(text, lambda rows: [[f" {c} " for c in rows[0]], *rows[1:]]).encode(),
    "LF": lambda text: text.replace("\r\n", "\n").encode(),
    "CR": lambda text: text.replace("\r\n", "\r").encode(),
    "BOM": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16": lambda text: text.encode("utf-16"),
    "UTF-16, no BOM": lambda text: text.encode("utf-16-le"),
    "UTF-16, big endian": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "no newline at the end": lambda text: text.rstrip().encode(),
    "thousands of empty rows": lambda text: rewritten(text, with_empty_rows).encode(),
    "thousands of NaN": lambda text: rewritten(text, with_words_for_nothing).encode(),
    "a column of nothing": lambda text: rewritten(text, lambda rows: [[*row, ""] for row in rows]).encode(),
    "a column twice": lambda text: rewritten(text, lambda rows: [[*row, row[-1]] for row in rows]).encode(),
    "a column twice, once empty": lambda text: rewritten(
        text, lambda rows: [[*rows[0], rows[0][-1]], *([*row, ""] for row in rows[1:])]
    ).encode(),
    "letters beyond ASCII": lambda text: rewritten(
        text, lambda rows: [[*rows[0], "NOTE"], *([*row, "José"] for row in rows[1:])]
    ).encode("latin-1"),
}  # fmt: skip


@pytest.mark.parametrize("name", FUZZ)
def test_a_table_written_otherwise_says_the_same(release, name):
    reader, root, table = release
    expected = reader(root)

    table.write_bytes(FUZZ[name](table.read_bytes().decode("latin-1")))

    found = reader(root)
    pd.testing.assert_frame_equal(found.knees, expected.knees)
    pd.testing.assert_frame_equal(found.left_out, expected.left_out)


def test_a_column_that_is_there_twice_and_says_two_things_is_told(release):
    reader, root, table = release
    text = table.read_bytes().decode("latin-1")
    table.write_text(rewritten(text, lambda rows: [[*rows[0], rows[0][-1]], *([*row, "4"] for row in rows[1:])]))

    with pytest.raises(ManifestError, match="twice, with different contents"):
        reader(root)


def test_rows_without_an_id_are_counted(tmp_path):
    write_oai(tmp_path)
    put_back(tmp_path, pd.concat([table_of(tmp_path), table_of(tmp_path).head(2).assign(ID="", side=["1", "x"])]))

    assert noted(read_oai(tmp_path), "without an ID or a SIDE of 1 or 2") == 2
