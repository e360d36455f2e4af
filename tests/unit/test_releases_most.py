"""What is known of MOST's real releases, a test a fact; and of both cohorts together."""

import pandas as pd
import pytest

from tests.unit.release_facts import noted, reasons
from tests.unit.releases import write_film, write_most, write_oai, write_xport
from training.data.manifest import ManifestError, check
from training.data.most import read_most
from training.data.oai import read_oai


@pytest.fixture
def most(tmp_path):
    write_most(tmp_path)
    return tmp_path


def test_most_as_released(most):
    """IDs are an M and four digits, and a visit has one beam angle, PA10 or another."""
    release = read_most(most)

    frame = release.knees
    assert len(frame) == 16
    assert set(frame["visit"]) == {"V0", "V5"}
    assert frame["path"].iloc[0] == "XR/M2001_HNSH/V0/14001/PA15/140010"
    assert frame.drop_duplicates("subject")["view"].tolist() == ["PA15", "PA10", "PA05", "PA10"]
    right, left = (frame[(frame["subject"] == "M2004") & (frame["side"] == side)].iloc[0] for side in "RL")
    assert (right["KL"], right["OA"], right["TM"]) == (4, 1, 1)
    assert frame[["JSN_L", "JSN_M"]].isna().all(axis=None)  # the codes 8 and X
    assert left["KL"] == 2
    check(frame, most, decode=True)


def test_most_of_several_beam_angles_pa10_is_taken_and_views_chooses(most):
    write_film(most / "XR/M2001_HNSH/V0/14001/PA10/140011")

    def views(release):
        return release.knees.drop_duplicates(["subject", "visit"]).groupby("view").size().to_dict()

    assert views(read_most(most)) == {"PA10": 5, "PA15": 1, "PA05": 2}
    assert views(read_most(most, views=["PA15", "PA05"])) == {"PA15": 2, "PA05": 2}
    only = read_most(most, views=["PA10"])
    assert reasons(only) == {"no film": 6}
    assert noted(only, "films of other views than PA10") == 4


def test_most_files_that_are_no_films_lie_about(most):
    """.DS_Store, landmarks and an empty file lie beside each film that `write_most` writes."""
    release = read_most(most)

    assert release.left_out.empty
    assert noted(release, "files among the films that are none") == 8  # the empty ones; the others' names tell


def test_most_a_damaged_film_alone_is_named(most):
    (most / "XR/M2002_HNSH/V0/14002/PA10/140020").write_bytes(b"not DICOM")

    release = read_most(most)

    assert reasons(release) == {"unreadable film": 2}
    assert set(release.left_out["subject"]) == {"M2002"}


def test_most_two_bundles_side_by_side_hold_one_film_twice(tmp_path):
    write_most(tmp_path / "MOST_1", visits=[0])
    write_most(tmp_path / "MOST_2", visits=[0])

    release = read_most(tmp_path)

    assert len(release.knees) == 8
    assert noted(release, "films that are there more than once") == 4


@pytest.mark.parametrize(("kl_19", "kl", "oa"), [("1", 1, 0), ("2", 2, 1), ("drop", pd.NA, pd.NA)])
def test_most_kl_19_is_doubtful_and_what_it_is_taken_for_can_be_chosen(most, kl_19, kl, oa):
    left = read_most(most, kl_19=kl_19).knees.query("side == 'L'")

    assert left["KL"].unique().tolist() == [kl]
    assert left["OA"].unique().tolist() == [oa]
    assert left["TM"].tolist() == [1] * 8


def test_most_a_knee_with_an_implant_at_that_visit_is_left_out(tmp_path):
    write_most(tmp_path, implants={(1, "R"): 5, (2, "L"): 1})
    table = tmp_path / "MOSTV01235XRAY.txt"
    lines = table.read_text().splitlines()
    cells = lines[3].split("\t")
    cells[1] = "P"  # V0XRKL of the third subject
    table.write_text("\n".join([*lines[:3], "\t".join(cells), *lines[4:]]))

    release = read_most(tmp_path)

    assert release.left_out[["subject", "side", "visit", "reason"]].to_numpy().tolist() == [
        ["M2001", "R", "V5", "implant"],
        ["M2002", "L", "V5", "implant"],
        ["M2003", "R", "V0", "implant"],
    ]


def test_most_table_as_sas_transport_says_the_same(tmp_path):
    write_most(tmp_path, visits=[0], tables=[0])
    expected = read_most(tmp_path).knees
    header, *lines = (tmp_path / "MOSTV01235XRAY.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    cells = [[row[0], *(None if cell == "X" else float(cell) for cell in row[1:])] for row in rows]
    write_xport(tmp_path / "mostv01235xray.xpt", header.split("\t"), cells)
    (tmp_path / "MOSTV01235XRAY.txt").unlink()

    pd.testing.assert_frame_equal(read_most(tmp_path).knees, expected)


def test_most_wrong_or_partial_folders_say_what_is_missing(tmp_path):
    with pytest.raises(ManifestError, match="expected MOSTV01235XRAY"):
        read_most(tmp_path)
    write_most(tmp_path, subjects=2)
    with pytest.raises(ManifestError, match="expected KL columns such as V0XRKL for V4"):
        read_most(tmp_path, ["V4"])
    for folder in tmp_path.glob("XR/*/V5/*/PA*"):
        folder.rename(folder.with_name("AP"))
    assert set(read_most(tmp_path).knees["visit"]) == {"V0"}
    with pytest.raises(ManifestError, match="no film of visit V5"):
        read_most(tmp_path, ["V0", "V5"])


def test_both_cohorts_under_one_folder(tmp_path):
    write_oai(tmp_path / "OAI", subjects=2)
    write_most(tmp_path / "MOST", subjects=2)

    assert set(read_oai(tmp_path).knees["cohort"]) == {"OAI"}
    assert len(read_most(tmp_path).knees) == 8


def test_a_dry_run_looks_into_no_film(tmp_path, monkeypatch):
    write_oai(tmp_path)
    write_most(tmp_path)
    monkeypatch.setattr("training.data.stored.film_bytes", lambda *args: pytest.fail("a film was opened"))

    assert len(read_oai(tmp_path, headers=False).knees) == 10
    assert len(read_most(tmp_path, headers=False).knees) == 16
