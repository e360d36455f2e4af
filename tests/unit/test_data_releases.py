import numpy as np
import pandas as pd
import pytest

from tests.unit.releases import OAI_FEATURES, write_film, write_most, write_oai, write_text, write_xport
from training.data.manifest import ManifestError, check
from training.data.most import read_most
from training.data.oai import read_oai
from training.data.schema import COLUMNS, LABELS


@pytest.fixture
def oai(tmp_path):
    write_oai(tmp_path)
    return tmp_path


def table_of(root) -> pd.DataFrame:
    return pd.read_csv(root / "tables/kXR_SQ_BU00.txt", sep="|", dtype=str)


def put_back(root, table: pd.DataFrame) -> None:
    write_text(root / "tables/kXR_SQ_BU00.txt", list(table), table.fillna("").to_numpy())


def test_oai_as_released(oai):
    frame = read_oai(oai)

    assert list(frame) == COLUMNS
    assert (frame.dtypes[LABELS] == "Int8").all()
    assert len(frame) == 10
    left = frame[(frame["subject"] == "9000003") & (frame["side"] == "L")].iloc[0]
    assert left["visit"] == "V00"
    assert left["path"] == "images/00m/0.C.2/9000003/20050112/00000300/001"  # the knees' film, not the hand's
    assert left[LABELS[:-1]].tolist() == [3, 1, 0, 1, 1, 2, 3]  # KL OA JSN_L JSN_M FL FM TL; JSN 1.4 is rounded
    assert pd.isna(left["TM"])  # ".: Missing Form"
    check(frame, oai, decode=True)


def test_oai_all_visits_are_found_by_months_or_by_release(tmp_path):
    write_oai(tmp_path, subjects=2, visits={"00": "00m/0.C.2", "03": "24m/24m/3.E.1", "10": "10.C.2", "06": "OAI_48m"})

    frame = read_oai(tmp_path)

    assert sorted(set(frame["visit"])) == ["V00", "V03", "V06", "V10"]
    assert len(frame) == 16
    assert (frame["path"].str.contains("24m") == (frame["visit"] == "V03")).all()


def test_oai_codes_above_the_scale_and_missing_features_are_na(oai):
    table = table_of(oai).drop(columns=["V00XROSFL"])
    table.loc[0, ["V00XRKL", "V00XRJSM", "V00XROSFM"]] = "8", "2.2", ".A: Not Expected"
    put_back(oai, table)

    frame = read_oai(oai)

    knee = frame[(frame["subject"] == "9000001") & (frame["side"] == "R")].iloc[0]
    assert knee[["KL", "OA", "FL", "FM"]].isna().all()
    assert knee["JSN_M"] == 2
    assert frame["FL"].isna().all()


def test_oai_a_knee_read_by_two_projects_keeps_project_15(oai):
    table = table_of(oai)
    other = table.head(2).assign(readprj=["37", "42"], V00XRKL="4", V00XROSFL="")
    put_back(oai, pd.concat([other, table.iloc[1:]]))

    frame = read_oai(oai).set_index(["subject", "side"])

    assert frame.loc[("9000001", "R"), "KL"] == 4  # read by project 37 alone
    assert frame.loc[("9000001", "L"), "KL"] == 1
    assert frame.loc[("9000001", "L"), "FL"] == 1
    assert not frame.index.duplicated().any()


def test_oai_of_two_films_the_one_with_the_barcode_read_is_taken(oai):
    again = "images/00m/0.C.2/{}/20050112/00999900/001"
    write_film(oai / again.format(9000001), barcode="016600999900")
    table = table_of(oai)
    table.loc[table["ID"] == "9000001", "V00BARCDBU"] = "16600999900"  # its leading 0 lost
    table.loc[table["ID"] == "9000002", "V00BARCDBU"] = ""
    put_back(oai, table)
    write_film(oai / again.format(9000002), barcode="016600999901")

    frame = read_oai(oai)

    assert set(frame[frame["subject"] == "9000001"]["path"]) == {again.format(9000001)}
    assert "9000002" not in set(frame["subject"])
    assert frame.attrs["dropped"] == {"no grade": 0, "no film": 0, "several films": 2}


def test_oai_knees_without_a_film_are_left_out_and_counted(oai):
    (oai / "images/00m/0.C.2/9000004/20050112/00000400/001").unlink()

    frame = read_oai(oai)

    assert len(frame) == 8
    assert frame.attrs["dropped"]["no film"] == 2


def test_oai_tables_as_sas_say_the_same(oai, monkeypatch):
    """Nothing free writes sas7bdat, and OAI's names are too long for a transport file: pandas' part is played here."""
    expected = read_oai(oai)
    columns = ["ID", "SIDE", "READPRJ", "V00BARCDBU", *(f"V00{name}" for name in OAI_FEATURES)]
    rows = [
        [9000000.0 + i, side, "15", f"016600{i:04d}00", i % 5, 5.4e-79, 1.4, 1.0, 2.0, 3.0, np.nan]
        for i in range(1, 6)
        for side in (1.0, 2.0)
    ]
    (oai / "tables/kXR_SQ_BU00.txt").rename(oai / "tables/kxr_sq_bu00.sas7bdat")
    monkeypatch.setattr(pd, "read_sas", lambda path, encoding: pd.DataFrame(rows, columns=columns))

    pd.testing.assert_frame_equal(read_oai(oai), expected)


def test_text_goes_before_sas(oai):
    (oai / "sas").mkdir()
    (oai / "sas/kxr_sq_bu00.sas7bdat").write_bytes(b"not read at all")

    assert len(read_oai(oai)) == 10


def test_a_damaged_sas_table_is_named(oai):
    (oai / "tables/kXR_SQ_BU00.txt").rename(oai / "tables/kxr_sq_bu00.sas7bdat")

    with pytest.raises(ManifestError, match="kxr_sq_bu00.sas7bdat cannot be read as a table"):
        read_oai(oai)


def spoil_side(root):
    put_back(root, table_of(root).assign(side="3: Both"))


def spoil_twice(root):
    put_back(root, pd.concat([table_of(root), table_of(root).tail(1).assign(V00XRKL="4")]))


def spoil_kl(root):
    put_back(root, table_of(root).drop(columns="V00XRKL"))


def spoil_header(root):
    (root / "images/00m/0.C.2/9000001/20050112/00000100/001").write_bytes(b"not DICOM")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "tables/kXR_SQ_BU00.txt").unlink(), "no reading table .* expected kxr_sq_bu00"),
        (lambda root: (root / "tables/kXR_SQ_BU00.txt").write_bytes(b""), "kXR_SQ_BU00.txt cannot be read as a table"),
        (lambda root: (root / "tables/kxr_sq_bu00.txt").write_bytes(b""), "the same reading table twice"),
        (lambda root: (root / "images").rename(root / "elsewhere.zip"), None),
        (lambda root: (root / "images/00m").rename(root / "images/x"), None),
        (lambda root: (root / "images/00m/0.C.2").rename(root / "images/baseline"), "name no visit; expected 00m"),
        (lambda root: (root / "images").rename(root.parent / f"{root.name}_away"), "no film of visit V00"),
        (lambda root: write_film(root / "images/12m/1.C.1/9000001/20060112/00000101/001"), "no reading table for V01"),
        (spoil_kl, "has no column V00XRKL"),
        (spoil_side, "unknown SIDE in rows 0, 1, 2, 3, 4, … .10 in all"),
        (spoil_twice, "read twice with different grades"),
        (spoil_header, "1 X-ray files are not readable DICOM, the first is images/00m/0.C.2/9000001/"),
    ],
)
def test_oai_a_wrong_or_partial_folder_says_what_is_missing(oai, spoil, message):
    spoil(oai)

    if message is None:  # folders may be moved as long as their names say subject and visit
        assert len(read_oai(oai)) == 10
    else:
        with pytest.raises(ManifestError, match=message):
            read_oai(oai)


def test_a_missing_folder_is_named(tmp_path):
    for reader in (read_oai, read_most):
        with pytest.raises(ManifestError, match="there is no folder .*nowhere"):
            reader(tmp_path / "nowhere")


def test_oai_one_visit_can_be_used_without_the_others_films(oai):
    write_oai(oai / "more", subjects=2, visits={"01": "12m/1.C.1"})
    (oai / "more/images").rename(oai.parent / f"{oai.name}_away")

    with pytest.raises(ManifestError, match="no film of visit V01 .* or name the visits to use"):
        read_oai(oai)
    assert set(read_oai(oai, ["V00"])["visit"]) == {"V00"}


def test_most_as_released(tmp_path):
    write_most(tmp_path)

    frame = read_most(tmp_path)

    assert len(frame) == 16
    assert set(frame["visit"]) == {"V0", "V5"}
    assert frame["path"].str.contains("/PA10/").all()
    right, left = (frame[(frame["subject"] == "MB00004") & (frame["side"] == side)].iloc[0] for side in "RL")
    assert (right["KL"], right["OA"], right["TM"]) == (4, 1, 1)
    assert (left["KL"], left["OA"]) == (2, 1)  # a partial 1.9
    assert frame[["JSN_L", "JSN_M"]].isna().all(axis=None)  # the codes 8 and X
    check(frame, tmp_path, decode=True)


def test_most_table_as_sas_transport_says_the_same(tmp_path):
    write_most(tmp_path, visits=[0])
    expected = read_most(tmp_path)
    header, *lines = (tmp_path / "MOSTV01235XRAY.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines]
    cells = [[row[0], *(None if cell == "X" else float(cell) for cell in row[1:])] for row in rows]
    write_xport(tmp_path / "mostv01235xray.xpt", header.split("\t"), cells)
    (tmp_path / "MOSTV01235XRAY.txt").unlink()

    pd.testing.assert_frame_equal(read_most(tmp_path), expected)


def test_most_wrong_or_partial_folders_say_what_is_missing(tmp_path):
    with pytest.raises(ManifestError, match="expected MOSTV01235XRAY"):
        read_most(tmp_path)
    write_most(tmp_path, subjects=2)
    with pytest.raises(ManifestError, match="expected KL columns as V0XRKL for V3"):
        read_most(tmp_path, ["V3"])
    table = (tmp_path / "MOSTV01235XRAY.txt").read_text()
    (tmp_path / "MOSTV01235XRAY.txt").write_text(table + table.splitlines()[1] + "\n")
    with pytest.raises(ManifestError, match="MOSTID is empty or there twice in rows 0, 2"):
        read_most(tmp_path)
    (tmp_path / "MOSTV01235XRAY.txt").write_text(table)
    for folder in tmp_path.glob("XR/*/V5/a/PA10"):
        folder.rename(folder.with_name("AP"))
    with pytest.raises(ManifestError, match="no film of visit V5"):
        read_most(tmp_path)
    assert len(read_most(tmp_path, ["V0"])) == 4
