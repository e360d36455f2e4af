"""What is known of the films on disks with OAI, NDA's packaging included, a test a fact."""

import pytest

from tests.unit.release_facts import noted, put_back, reasons, table_of
from tests.unit.releases import PA, write_archive, write_film, write_nda, write_oai, write_text
from training.data.manifest import check
from training.data.oai import read_oai
from training.data.schema import LABELS

FOLDER = "images/00m/0.C.2/{}/20050112/{}/001"


@pytest.fixture
def oai(tmp_path):
    write_oai(tmp_path)
    return tmp_path


def test_oai_of_two_films_the_one_with_the_barcode_read_is_taken(oai):
    write_film(oai / FOLDER.format(9000001, "00999900"), barcode="016600999900")
    table = table_of(oai)
    table.loc[table["ID"] == "9000001", "V00BARCDBU"] = "16600999900"  # its leading 0 lost
    table.loc[table["ID"] == "9000002", "V00BARCDBU"] = ""
    put_back(oai, table)
    write_film(oai / FOLDER.format(9000002, "00999901"), barcode="016600999901")

    release = read_oai(oai)

    assert set(release.knees.query("subject == '9000001'")["path"]) == {FOLDER.format(9000001, "00999900")}
    assert reasons(release) == {"several films": 2}
    row = release.left_out.iloc[0]
    assert (row["subject"], row["side"], row["path"]) == (
        "9000002",
        "L",
        f"{FOLDER.format(9000002, '00000200')} | {FOLDER.format(9000002, '00999901')}",
    )


def test_oai_the_same_film_twice_is_one_and_the_whole_copy_is_taken(oai):
    """0.C.2 lies also under 0.C.1."""
    whole = oai / FOLDER.format(9000001, "00000100")
    copy = oai / "images/00m/0.C.9/9000001/20050112/00000100/001"
    assert copy.read_bytes() == whole.read_bytes()
    whole.write_bytes(whole.read_bytes()[:-500])

    release = read_oai(oai)

    assert set(release.knees.query("subject == '9000001'")["path"]) == {copy.relative_to(oai).as_posix()}
    assert noted(release, "films that are there more than once") == 1
    assert release.left_out.empty


def test_oai_copies_of_a_film_without_a_barcode_are_told_by_their_series(oai):
    for path in oai.glob("images/00m/*/9000001/20050112/00000100/001"):
        write_film(path)

    assert noted(read_oai(oai), "films that are there more than once") == 1


def test_oai_a_readings_barcode_that_is_not_the_films_is_counted(oai):
    table = table_of(oai)
    table.loc[table["ID"] == "9000004", "V00BARCDBU"] = "016600777700"
    put_back(oai, table)

    release = read_oai(oai)

    assert noted(release, "another barcode than the one that was read") == 2
    assert len(release.knees) == 10


def test_oai_knees_without_a_film_are_left_out_and_named(oai):
    (oai / FOLDER.format(9000004, "00000400")).unlink()

    release = read_oai(oai)

    assert len(release.knees) == 8
    assert release.left_out[["path", "subject", "side", "reason"]].to_numpy().tolist() == [
        ["", "9000004", side, "no film"] for side in "LR"
    ]


def test_oai_a_film_whose_header_cannot_be_read_is_left_out_and_named(oai):
    path = FOLDER.format(9000001, "00000100")
    for copy in oai.glob("images/00m/*/9000001/20050112/00000100/001"):
        copy.write_bytes(b"not DICOM")

    release = read_oai(oai)

    assert len(release.knees) == 8
    assert reasons(release) == {"unreadable film": 2}
    assert release.left_out["path"].tolist() == [path, path]


def test_oai_files_that_are_no_films_lie_about(oai):
    folder = (oai / FOLDER.format(9000002, "00000200")).parent
    for name, data in (
        (".DS_Store", b"\0\0\0\1Bud1"),
        ("001.pts", b"version: 1"),
        ("hand", b""),
        ("notes", b"no film"),
    ):
        (folder / name).write_bytes(data)

    release = read_oai(oai)

    assert len(release.knees) == 10
    assert noted(release, "files among the films that are none") == 2  # the others' names tell


def test_oai_a_knee_with_an_implant_at_that_visit_is_left_out(tmp_path):
    implants = {(1, "R"): ("BLRP", 1), (2, "L"): ("VSPR", 1), (3, "L"): ("VSPR", 3)}
    write_oai(tmp_path, subjects=3, visits={"00": "00m/0.C.2", "03": "24m/3.C.2"}, implants=implants)

    release = read_oai(tmp_path)

    assert release.left_out[["subject", "side", "visit", "reason"]].to_numpy().tolist() == [
        ["9000001", "R", "V00", "implant"],
        ["9000001", "R", "V03", "implant"],
        ["9000002", "L", "V03", "implant"],
    ]


def test_oai_a_replacement_that_was_not_confirmed_is_none_and_one_without_a_date_is_counted(oai):
    path = oai / "General_ASCII/Outcomes99.txt"
    names = ["id", "V99ERKRPCF", "V99ELKRPCF", "V99ERKDAYS", "V99ELKDAYS"]
    rows = [[9000001, "0: failed to confirm", "3: confirmed", 0, ""], [9000002, "1: reported", "", -5, ""]]
    write_text(path, names, rows)

    release = read_oai(oai)

    assert release.left_out[["subject", "side"]].to_numpy().tolist() == [["9000002", "R"]]
    assert noted(release, "knee replacements of an unknown date") == 1


def test_oai_a_prosthetic_joint_is_an_implant_and_without_an_outcome_table_that_is_said(oai):
    table = table_of(oai)
    table.loc[0, "V00XRKL"] = ".P: Prosthetic"
    put_back(oai, table)
    (oai / "General_ASCII/Outcomes99.txt").unlink()

    release = read_oai(oai)

    assert reasons(release) == {"implant": 1}
    assert any("no outcome table" in text for text in release.notes)


def test_views_of_oai_other_than_the_knees_are_not_taken(oai):
    write_film(oai / FOLDER.format(9000002, "00000200"), view=PA.replace("Bilateral", "Right"))

    assert reasons(read_oai(oai)) == {"no film": 2}


# --- OAI from NDA


def test_ndas_packaging_is_read_in_place(tmp_path):
    """One tab-separated table with a line that explains its columns; a tar.gz a series, with macOS's shadows in it."""
    write_nda(tmp_path)

    release = read_oai(tmp_path)

    assert len(release.knees) == 9
    assert reasons(release) == {"implant": 1}  # oai_outcome01's lkblrp
    knee = release.knees.query("subject == '9000003' and side == 'L'").iloc[0]
    assert knee[LABELS[:-1]].tolist() == [3, 1, 0, 1, 1, 2, 3]
    assert knee["path"].endswith("/00m/0.C.2/9000003/20050112/00000300.tar.gz")
    assert release.knees["site"].iloc[0] == "E"
    check(release.knees, tmp_path, decode=True)


def test_ndas_series_lie_one_folder_deeper_once_unpacked(tmp_path):
    write_nda(tmp_path, unpacked=True, visits={"00": "00m/0.C.2", "06": "48m/6.C.1"})

    frame = read_oai(tmp_path).knees

    assert frame["path"].str.endswith("/00000200/00000200/001").sum() == 2
    assert set(frame["visit"]) == {"V00", "V06"}


@pytest.mark.parametrize("damage", ["cut", "empty", "no film"])
def test_a_damaged_archive_is_left_out_and_named(tmp_path, damage):
    write_nda(tmp_path)
    (path,) = tmp_path.rglob("00000400.tar.gz")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:40])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        write_archive(path, {"00000400/._001": b"\0\5\26\7"})

    release = read_oai(tmp_path)

    assert reasons(release) == {"unreadable film": 2, "implant": 1}
    assert release.left_out["path"].str.endswith("00000400.tar.gz").sum() == 2
