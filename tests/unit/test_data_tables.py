import pandas as pd
import pytest

from tests.unit.releases import write_csv
from training.data.knee_kl import knee_kl_manifest
from training.data.manifest import ManifestError, check
from training.data.splits import check_leaks
from training.data.table import read_table


def test_a_table_with_any_subset_of_labels(tmp_path):
    frame = read_table(write_csv(tmp_path, "path,side,kl,JSN_M,subject\na.png,R,3,,p\nb.png,l,,2,p\n"))

    assert frame["side"].tolist() == ["R", "L"]
    assert frame["KL"].tolist() == [3, pd.NA]
    assert frame["OA"].tolist() == [1, pd.NA]
    assert frame["JSN_M"].tolist() == [pd.NA, 2]
    assert frame[["FL", "FM", "TL", "TM"]].isna().all(axis=None)
    check(frame, tmp_path, decode=True)


def test_oa_alone_is_kept(tmp_path):
    assert read_table(write_csv(tmp_path, "path,side,OA\na.png,R,1\n"))["OA"].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,kl\na.png,1\n", "the column side is missing"),
        ("path,side\na.png,R\n", "no label: give at least one of KL, OA"),
        ("path,side,KLG\na.png,R,1\n", "unknown column klg; known are path, side, KL"),
        ("path,side,kl,KL\na.png,R,1,1\n", "the column KL is there twice"),
        ("path,side,kl\na.png,R,1\nb.png,X,1\n", "column side, line 3: must be one of R, L"),
        ("path,side,kl\na.png,R,5\n", "column KL, line 2: must be 0 … 4"),
        ("path,side,fl\na.png,R,1.5\n", "column FL, line 2: must be 0 … 3"),
        ("path,side,fl\na.png,R,mild\n", "column FL, line 2"),
        ("path,side,kl\n,R,1\n", "column path, line 2: is empty"),
        ("path,side,kl\na.png,R,1\n\nb.png,L,1\n", "column path, line 3: is empty"),
        ("path,side,kl,oa\na.png,R,1,1\n", "column OA, line 2: must be 1 where KL ≥ 2"),
        ("path,side,kl,split\na.png,R,1,dev\n", "column split, line 2: must be one of train, val, test"),
        ("path,side,kl,kind\na.png,R,1,hip\n", "column kind, line 2: must be one of film, crop"),
        ('path,side,kl\n"a.png,R,1\n', "cannot read t.csv as a comma-separated table"),
    ],
)
def test_a_faulty_table_is_named_by_line_and_column(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message):
        read_table(write_csv(tmp_path, text))


def test_knee_kl_with_more_labels(tmp_path):
    write_csv(tmp_path, "").rename(tmp_path / "labels.csv")
    (tmp_path / "labels.csv").write_text(
        "file,split,subject,side,kl,FM,inverted\na.png,train,1,R,2,3,0\nb.png,val,2,L,0,,1\n"
    )

    frame = knee_kl_manifest(tmp_path)

    assert frame["cohort"].unique().tolist() == ["KNEE_KL"]
    assert frame["split"].tolist() == ["train", "val"]
    assert frame["OA"].tolist() == [1, 0]
    assert frame["FM"].tolist() == [3, pd.NA]
    check(frame, tmp_path, decode=True)


def test_the_public_set_as_a_manifest(knee_kl):
    frame = knee_kl_manifest(knee_kl)

    assert frame["split"].value_counts().to_dict() == {"train": 5778, "val": 826}
    assert frame[["KL", "OA"]].notna().all(axis=None)
    check_leaks(frame)
