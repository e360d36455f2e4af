import pandas as pd
import pytest

from tests.unit.releases import invented, write_film
from training.data.manifest import ManifestError, check, read_manifest, write_manifest
from training.data.schema import LABELS
from training.data.splits import across_cohorts, by_subject, check_leaks, per_knee, split_hash


@pytest.fixture
def good(tmp_path):
    """Four knees on two films, ready to be spoilt."""
    frame = invented(subjects=2, visits=1)
    for path in frame["path"].unique():
        write_film(tmp_path / path)
    return frame


# --- the manifest


def test_a_manifest_survives_parquet_with_its_split(good, tmp_path):
    frame = per_knee(pd.concat([good, invented(20, first=50)], ignore_index=True), seed=3)
    write_manifest(frame, tmp_path / "m.parquet")

    read = read_manifest(tmp_path / "m.parquet")

    pd.testing.assert_frame_equal(read, frame, check_dtype=False)
    assert (read.dtypes[LABELS] == "Int8").all()
    assert read.attrs["split"] == {"method": "per-knee", "seed": 3, "hash": split_hash(frame)}


def test_a_changed_split_and_a_foreign_file_are_refused(tmp_path, monkeypatch):
    frame = by_subject(invented(), seed=0)
    monkeypatch.setattr("training.data.manifest.split_hash", lambda frame: "0" * 64)
    write_manifest(frame, tmp_path / "changed.parquet")
    monkeypatch.undo()
    frame.to_parquet(tmp_path / "foreign.parquet")
    (tmp_path / "text.parquet").write_text("KL\n")

    for name, message in (
        ("changed", "not the one that was saved"),
        ("foreign", "not a manifest"),
        ("text", "cannot read"),
    ):
        with pytest.raises(ManifestError, match=message):
            read_manifest(tmp_path / f"{name}.parquet")


def test_a_good_manifest_passes(good, tmp_path):
    check(good, tmp_path, decode=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"KLG": 1}, "unknown columns: KLG"),
        ({"KL": 5}, r"KL is off its scale: rows 0, 1, 2, 3 \(4 in all\); use 0 … 4"),
        ({"FM": 1.5}, "FM is off its scale"),
        ({"FM": "mild"}, "FM is off its scale"),
        ({"OA": 1}, "OA does not follow from KL"),
        ({"OA": pd.NA}, "OA does not follow from KL"),
        ({"side": "unknown"}, "unknown side: .* use R or L"),
        ({"side": "R"}, "a knee is there twice: rows 0, 1, 2, 3"),
        ({"kind": "hip"}, "unknown kind"),
        ({"kind": "crop"}, "several knees share one crop"),
        ({"subject": ""}, "subject is empty"),
        ({"path": "absent.dcm"}, "the file is missing or cannot be opened: rows 0, 1, 2, 3"),
        ({"path": pd.NA}, "path is empty"),
        ({"split": "dev"}, "unknown split"),
        ({"split": ["train", "test", "train", "train"]}, r"a subject is in two splits: rows 0, 1 \(2 in all\)"),
    ],
)
def test_bad_input_is_named_before_training(good, tmp_path, change, message):
    with pytest.raises(ManifestError, match=message):
        check(good.assign(**change), tmp_path)


def test_all_faults_come_at_once(good, tmp_path):
    with pytest.raises(ManifestError, match="(?s)unknown side.*KL is off.*missing"):
        check(good.assign(side="B", KL=9, path="absent.dcm"), tmp_path)


def test_missing_columns_and_no_rows(good, tmp_path):
    with pytest.raises(ManifestError, match="columns are missing: side, TM"):
        check(good.drop(columns=["side", "TM"]), tmp_path)
    with pytest.raises(ManifestError, match="it has no rows"):
        check(good.head(0), tmp_path)


def test_empty_and_damaged_files_are_named_without_what_they_hold(good, tmp_path):
    first, second = (tmp_path / path for path in good["path"].unique())
    first.write_bytes(b"")
    second.write_bytes(second.read_bytes()[:-4000])

    with pytest.raises(ManifestError, match=r"the file is empty: rows 0, 1 \(2 in all\)$"):
        check(good, tmp_path)
    with pytest.raises(ManifestError) as error:
        check(good, tmp_path, decode=True)
    assert "the image cannot be read (corrupt_image): rows 2, 3" in str(error.value)
    assert "Bilateral" not in str(error.value)


# --- splits


@pytest.mark.parametrize("method", [by_subject, per_knee])
def test_splits_keep_shares_and_grades_whatever_the_rows_order(method):
    frame = invented(360)

    split = method(frame, seed=1)

    sizes = split["split"].value_counts(normalize=True)
    assert sizes.reindex(["train", "val", "test"]).tolist() == pytest.approx([5 / 9, 1 / 9, 3 / 9], abs=0.005)
    kl = pd.crosstab(split["split"], split["KL"], normalize="index")
    assert (kl.max() - kl.min()).max() < 0.02
    assert split_hash(method(frame, seed=1)) == split_hash(split) != split_hash(method(frame, seed=2))
    shuffled = frame.sample(frac=1, random_state=0, ignore_index=True)
    assert split_hash(method(shuffled, seed=1)) == split_hash(split)
    if method is by_subject:
        check_leaks(split)
    else:
        with pytest.raises(ManifestError, match="subjects are in more than one split"):
            check_leaks(split)


def test_a_per_knee_split_passes_the_check_and_says_what_it_is(good, tmp_path):
    frame = good.assign(split=["train", "test", "train", "train"])
    frame.attrs["split"] = {"method": "per-knee", "seed": 0}

    check(frame, tmp_path)


def test_the_hash_is_of_who_is_where_alone():
    frame = by_subject(invented(), seed=0)

    assert split_hash(frame.sample(frac=1, random_state=0).assign(path="x", KL=0)) == split_hash(frame)
    moved = frame.copy()
    moved.loc[0, "split"] = "val" if moved.loc[0, "split"] == "train" else "train"
    assert split_hash(moved) != split_hash(frame)


def test_across_cohorts_trains_on_one_and_tests_on_the_other():
    both = pd.concat([invented(), invented(40, "MOST"), invented(9, "TABLE")], ignore_index=True)

    split = across_cohorts(both, seed=0)

    assert pd.crosstab(split["cohort"], split["split"]).to_dict("index") == {
        "MOST": {"test": 160, "train": 0, "val": 0},
        "OAI": {"test": 0, "train": 300, "val": 60},
    }
    check_leaks(split)


def test_across_cohorts_of_the_same_people_is_refused():
    both = pd.concat([invented(), invented(20, "KNEE_KL", visits=1)], ignore_index=True)

    with pytest.raises(ManifestError, match="20 subjects are in more than one split"):
        across_cohorts(both, test="KNEE_KL")
    with pytest.raises(ManifestError, match="no knee of MOST"):
        across_cohorts(both)


def test_too_few_subjects_are_refused():
    with pytest.raises(ManifestError, match=r"too few to split \(1\)"):
        by_subject(invented(1), seed=0)
