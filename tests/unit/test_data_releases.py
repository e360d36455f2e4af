"""What is known of OAI's real tables, a test a fact; the generator writes releases of these shapes."""

import numpy as np
import pandas as pd
import pytest

from tests.unit.release_facts import noted, path_of, put_back, reasons, table_of
from tests.unit.releases import BUNDLE, OAI_FEATURES, SCORING, write_film, write_oai
from training.data.manifest import ManifestError, check
from training.data.most import read_most
from training.data.oai import read_oai
from training.data.schema import COLUMNS, LABELS

FOLDER = "images/00m/0.C.2/{}/20050112/{}/001"


@pytest.fixture
def oai(tmp_path):
    write_oai(tmp_path)
    return tmp_path


def test_oai_as_released(oai):
    release = read_oai(oai)

    frame = release.knees
    assert list(frame) == COLUMNS
    assert (frame.dtypes[LABELS] == "Int8").all()
    assert len(frame) == 10
    left = frame[(frame["subject"] == "9000003") & (frame["side"] == "L")].iloc[0]
    assert (left["visit"], left["view"], left["site"]) == ("V00", "fixed flexion", "D")
    assert left["path"] == FOLDER.format(9000003, "00000300")  # the knees' film, not the hand's
    assert left[LABELS[:-1]].tolist() == [3, 1, 0, 1, 1, 2, 3]  # KL OA JSN_L JSN_M FL FM TL; JSN 1.4 is rounded
    assert pd.isna(left["TM"])  # ".: Missing Form"
    assert release.left_out.empty
    check(frame, oai, decode=True)


def test_oai_all_visits_are_found_by_months_or_by_release(tmp_path):
    write_oai(tmp_path, subjects=2, visits={"00": "00m/0.C.2", "03": "24m/24m/3.E.1", "10": "10.C.2", "06": "OAI_48m"})

    frame = read_oai(tmp_path).knees

    assert sorted(set(frame["visit"])) == ["V00", "V03", "V06", "V10"]
    assert len(frame) == 16
    assert (frame["path"].str.contains("24m") == (frame["visit"] == "V03")).all()


def test_oai_of_all_tables_those_of_visits_with_films_are_used_and_the_others_counted(oai):
    """Owners have the baseline disks and the full bundle of tables, among them KXR_SQ_BU12."""
    release = read_oai(oai)

    assert set(release.knees["visit"]) == {"V00"}
    assert [noted(release, f"readings of V{n}, of which there is no film") for n in BUNDLE[1:-1]] == [11] * 6
    assert any("KXR_SQ_BU12.txt is of no visit that was filmed" in text for text in release.notes)
    with pytest.raises(ManifestError, match="no film of visit V01 is below"):
        read_oai(oai, ["V00", "V01"])


def test_oai_films_of_a_visit_without_a_table_are_counted(oai):
    path_of(oai, "01").unlink()
    write_film(oai / "images/12m/1.C.1/9000001/20060112/00000101/001")

    assert noted(read_oai(oai), "X-ray files of visits without readings") == 1
    with pytest.raises(ManifestError, match="no reading table for V01; there are tables for V00"):
        read_oai(oai, ["V01"])


def test_oai_readings_of_project_43_and_others_are_counted_and_never_abort(oai):
    put_back(oai, pd.concat([table_of(oai), table_of(oai).head(1).assign(readprj="other", V00XRKL="4")]))

    release = read_oai(oai)

    assert noted(release, "readings of other projects than 15, 37, 42") == 2
    assert release.knees.set_index(["subject", "side"]).loc[("9000001", "R"), "KL"] == 1


def test_oai_projects_can_be_chosen(oai):
    release = read_oai(oai, projects=["43"])

    assert release.knees["KL"].tolist() == [4]


def test_oai_codes_above_the_scale_and_missing_features_are_na(oai):
    table = table_of(oai).drop(columns=["V00XROSFL"])
    table.loc[0, ["V00XRKL", "V00XRJSM", "V00XROSFM"]] = "8", "2.2", ".A: Not Expected"
    put_back(oai, table)

    frame = read_oai(oai).knees

    knee = frame[(frame["subject"] == "9000001") & (frame["side"] == "R")].iloc[0]
    assert knee[["KL", "OA", "FL", "FM"]].isna().all()
    assert knee["JSN_M"] == 2
    assert frame["FL"].isna().all()


@pytest.mark.parametrize(("partial", "grade"), [("1.2", 1), ("1.4", 1), ("2.2", 2), ("2.4", 2)])
def test_oai_partial_grades_of_narrowing_are_rounded(oai, partial, grade):
    put_back(oai, table_of(oai).assign(V00XRJSM=partial))

    assert set(read_oai(oai).knees["JSN_M"]) == {grade}


def test_oai_a_knee_read_by_two_projects_keeps_project_15(oai):
    table = table_of(oai)
    other = table.head(2).assign(readprj=["37", "42"], V00XRKL="4", V00XROSFL="")
    put_back(oai, pd.concat([other, table.iloc[1:]]))

    frame = read_oai(oai).knees.set_index(["subject", "side"])

    assert frame.loc[("9000001", "R"), "KL"] == 4  # read by project 37 alone
    assert frame.loc[("9000001", "L"), "KL"] == 1
    assert frame.loc[("9000001", "L"), "FL"] == 1
    assert not frame.index.duplicated().any()


def test_oai_an_empty_reading_of_project_15_hides_no_other(oai):
    table = table_of(oai)
    other = table.head(1).assign(readprj="37", V00XRKL="4")
    table.loc[0, [f"V00{name}" for name in OAI_FEATURES]] = ""
    put_back(oai, pd.concat([table, other]))

    release = read_oai(oai)

    assert release.knees.set_index(["subject", "side"]).loc[("9000001", "R"), "KL"] == 4
    assert release.left_out.empty


def test_oai_a_knee_read_twice_with_different_grades_is_left_out(oai):
    put_back(oai, pd.concat([table_of(oai), table_of(oai).iloc[[3]].assign(V00XRKL="4")]))

    release = read_oai(oai)

    assert reasons(release) == {"contradictory readings": 1}
    assert len(release.knees) == 9


def test_oai_tables_as_sas_say_the_same(oai, monkeypatch):
    """Nothing free writes sas7bdat, and OAI's names are too long for a transport file: pandas' part is played here."""
    expected = read_oai(oai).knees
    columns = ["ID", "SIDE", "READPRJ", "V00BARCDBU", *(f"V00{name}" for name in OAI_FEATURES)]
    rows = [
        [9000000.0 + i, side, "15", f"016600{i:04d}00", i % 5, 5.4e-79, 1.4, 1.0, 2.0, 3.0, np.nan]
        for i in range(1, 6)
        for side in (1.0, 2.0)
    ]
    for number in BUNDLE:
        path_of(oai, number).unlink(missing_ok=True)
    (oai / SCORING / "kxr_sq_bu00.sas7bdat").write_bytes(b"SAS")
    monkeypatch.setattr(pd, "read_sas", lambda path, encoding: pd.DataFrame(rows, columns=columns))

    pd.testing.assert_frame_equal(read_oai(oai).knees, expected)


def test_text_goes_before_sas_and_a_copy_in_another_bundle_is_the_same_table(oai):
    (oai / "sas").mkdir()
    (oai / "sas/kxr_sq_bu00.sas7bdat").write_bytes(b"not read at all")
    (oai / "OAICompleteData_ASCII").mkdir()
    (oai / "OAICompleteData_ASCII/KXR_SQ_BU00.txt").write_bytes(path_of(oai).read_bytes())

    assert len(read_oai(oai).knees) == 10


def nameless_folders(root):
    for folder in (root / "images/00m").iterdir():
        folder.rename(root / "images" / folder.name.replace(".", ""))


def no_baseline_table(root):
    path_of(root).unlink()
    for number in BUNDLE[1:]:
        (root / SCORING / f"kXR_SQ_BU{number}.txt").unlink(missing_ok=True)
    (root / SCORING / "KXR_SQ_BU12.txt").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_baseline_table, "no reading table .* expected kxr_sq_bu00 .* or NDA's oai_kxrsemiquant01"),
        (lambda root: path_of(root).write_bytes(b""), "kXR_SQ_BU00.txt cannot be read as a table"),
        (lambda root: path_of(root).rename(path_of(root).with_suffix(".sas7bdat")), "BU00.sas7bdat cannot be read as a table"),
        (lambda root: (root / "kxr_sq_bu00.txt").write_bytes(b"ID|x\n"), "are one reading table but differ; keep one"),
        (lambda root: (root / "images").rename(root / "elsewhere.zip"), None),
        (lambda root: (root / "images/00m").rename(root / "images/x"), None),
        (nameless_folders, "name no visit"),
        (lambda root: (root / "images").rename(root.parent / f"{root.name}_away"), "no film of visit V00"),
        (lambda root: put_back(root, table_of(root).drop(columns="V00XRKL")), "has no column V00XRKL"),
        (lambda root: put_back(root, table_of(root).assign(side="3: Both")), "no row has an ID and a SIDE of 1"),
    ],
)  # fmt: skip
def test_oai_a_wrong_or_partial_folder_says_what_is_missing(oai, spoil, message):
    spoil(oai)

    if message is None:  # folders may be moved as long as their names say subject and visit
        assert len(read_oai(oai).knees) == 10
    else:
        with pytest.raises(ManifestError, match=message):
            read_oai(oai)


def test_a_missing_folder_is_named(tmp_path):
    for reader in (read_oai, read_most):
        with pytest.raises(ManifestError, match="there is no folder .*nowhere"):
            reader(tmp_path / "nowhere")
