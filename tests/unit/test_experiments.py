"""From a manifest of films to crops, and experiments on a folder of them: training, ablation, synthetic sets."""

import json
import subprocess
import sys
from io import BytesIO

import pandas as pd
import pydicom
import pytest
import yaml

from kneeoa.grading.network import build_network
from kneeoa.tasks import TASKS, Laterality
from kneeoa.weights import save_weights
from tests.conftest import ROOT
from training.data.cut_crops import main as cut_crops
from training.data.knee_kl import read_knee_kl
from training.data.manifest import as_manifest, write_manifest
from training.evaluation.evaluate import main as evaluate
from training.evaluation.evaluate_films import grade_films, phantom_films
from training.experiments.ablate import STEPS
from training.experiments.ablate import main as ablate
from training.fitting.train_grader import main as train_grader
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.make_synthetic import main as make_synthetic
from training.synthesis.phantom import draw_film

pytestmark = pytest.mark.slow

TINY = str(ROOT / "training/configs/tiny.yaml")


@pytest.fixture
def films(tmp_path, rng):
    """A manifest of two phantom films, the second one swapped, a film of one knee, and one that was cut off."""
    rows = []
    for number in range(2):
        film = draw_film(rng, spacing_mm=0.5)
        ds = pydicom.dcmread(BytesIO(to_dicom(film, monochrome1=bool(number))))
        ds.PatientOrientation = [("L", "R")[number], "F"]
        ds.save_as(tmp_path / f"{number}.dcm")
        rows += [
            {"cohort": "OAI", "subject": f"900000{number}", "side": k.side.value, "visit": "V00", "kind": "film"}
            | {"path": f"{number}.dcm", "split": ("train", "val")[number]}
            | {t.name: k.grades[t.name] for t in TASKS}
            for k in film.knees
        ]
    rows.append(rows[-1] | {"subject": "9000009", "path": "blank.dcm"})
    film = draw_film(rng, spacing_mm=0.5)
    film.pixels[:, film.pixels.shape[1] // 2 :] *= 0
    (tmp_path / "blank.dcm").write_bytes(to_dicom(film))
    rows.append(rows[-1] | {"subject": "9000008", "path": "cut.dcm"})
    (tmp_path / "cut.dcm").write_bytes(to_dicom(film)[:-9000])
    write_manifest(as_manifest(pd.DataFrame(rows)), tmp_path / "manifest.parquet")
    return tmp_path


def test_a_manifest_of_films_becomes_a_folder_to_train_on(films, tmp_path, capsys, monkeypatch):
    out, call = tmp_path / "crops", [str(films / "manifest.parquet"), "--data", str(films), "--workers", "1"]

    cut_crops([*call, "--out", str(out)])

    knees = read_knee_kl(out, None)
    assert [(k.subject, k.side, k.cohort) for k in knees] == [
        (subject, side, "OAI") for subject in ("9000000", "9000001") for side in (Laterality.RIGHT, Laterality.LEFT)
    ]
    assert all(set(k.grades) == {t.name for t in TASKS} for k in knees)
    assert not any(k.subject in k.name for k in knees)
    printed = capsys.readouterr().out
    assert "4 of 6 knees" in printed
    assert "rows run to the patient's right, listed in swapped.csv: 1" in printed
    assert printed.splitlines()[-1].startswith("left out  2: ")
    assert "900000" not in printed
    left_out = pd.read_csv(out / "left_out.csv", dtype=str).set_index("path")
    assert left_out[["subject", "side"]].to_dict("index") == {
        "blank.dcm": {"subject": "9000009", "side": "L"},
        "cut.dcm": {"subject": "9000008", "side": "L"},
    }
    assert left_out.loc["cut.dcm", "reason"] == "corrupt_image"
    assert pd.read_csv(out / "swapped.csv")["path"].tolist() == ["1.dcm"]
    assert "all knees: 4 of 6 found (66.67 %)" in (out / "detection.md").read_text()
    assert (out / "not_found.png").stat().st_size > 1000

    before = {path: path.stat().st_mtime_ns for path in out.glob("*.png") if path.stem != "not_found"}
    monkeypatch.setattr("training.data.cut_crops.cut_film", lambda *args: pytest.fail("cut again"))
    cut_crops([*call, "--out", str(out)])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    evaluate(["--data", str(out), "--split", "val", "--out", str(tmp_path / "e")])
    assert "Wang et al. 2021 on OAI" in (tmp_path / "e/report.md").read_text()


@pytest.fixture(scope="module")
def knees(tmp_path_factory):
    """Twelve phantom crops to learn from and four held out."""
    out = tmp_path_factory.mktemp("phantoms")
    make_synthetic(["--number", "16", "--style", "train", "--out", str(out)])
    labels = pd.read_csv(out / "labels.csv").assign(split=["train"] * 12 + ["val"] * 4, subject=range(16))
    labels.to_csv(out / "labels.csv", index=False)
    return out


def test_the_ablation_trains_each_network_and_writes_the_table(knees, tmp_path):
    ablate(["--data", str(knees), "--config", TINY, "--out", str(tmp_path)])

    found = json.loads((tmp_path / "ablation.json").read_text())
    assert list(found) == [*STEPS, "ensemble"]
    assert [("OA" in metrics) for metrics in found.values()] == [False, False, True, True, True]
    assert all(metrics["KL"]["n"] == 4 for metrics in found.values())
    assert "| + gate |" in (tmp_path / "ablation.md").read_text()


def test_two_processes_train_one_network(knees, tmp_path):
    command = ["-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "training", "train-grader"]
    options = ["--data", str(knees), "--config", TINY, "--out", str(tmp_path)]

    done = subprocess.run([sys.executable, *command, *options], cwd=ROOT, capture_output=True, text=True, timeout=300)

    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "grader.safetensors").exists()
    assert (tmp_path / "training.png").exists()


def faulty(path, **changes):
    path.write_text(yaml.safe_dump(yaml.safe_load((ROOT / "training/configs/tiny.yaml").read_text()) | changes))
    return str(path)


@pytest.mark.parametrize(
    "fault", ["leak", "small", "key", "architecture", "preprocessing", "twice", "unreadable", "grade"]
)
def test_what_cannot_be_trained_on_is_told_before_training(fault, knees, tmp_path, capsys):
    folder = tmp_path / "data"
    folder.mkdir()
    for image in knees.glob("*.png"):
        (folder / image.name).symlink_to(image)
    labels = pd.read_csv(knees / "labels.csv")
    config, init, told = TINY, [], {"leak": "1 subjects are in train", "twice": "twice", "unreadable": "cannot read"}
    if fault == "leak":
        labels.loc[15, "subject"] = 0
    elif fault == "twice":
        labels.loc[1, "file"] = labels.loc[0, "file"]
    elif fault == "unreadable":
        (folder / labels.loc[3, "file"]).unlink()
        (folder / labels.loc[3, "file"]).write_bytes(b"not an image")
    elif fault == "grade":
        labels.loc[2, "KL"] = 7
    elif fault == "small":
        config = faulty(tmp_path / "c.yaml", batch=64)
    elif fault == "key":
        config = faulty(tmp_path / "c.yaml", learning_rate=1)
    else:
        network = build_network(gate="scalar" if fault == "architecture" else "vector")
        stored = {"contrast": "none", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "mirror_left": True}
        if fault == "architecture":
            stored["contrast"] = "equalize"
        metadata = {"kind": "grader", "version": "0", "preprocessing": stored | {"patch": 32}}
        save_weights(tmp_path / "w.safetensors", network.state_dict(), metadata)
        init = ["--init", str(tmp_path / "w.safetensors")]
    labels.to_csv(folder / "labels.csv", index=False)
    told |= {"small": "more than the 12 knees", "key": "learning_rate", "architecture": "does not fit"}
    told |= {"preprocessing": "prepared differently: contrast", "grade": "one of 0 … 4"}

    with pytest.raises(SystemExit):
        train_grader(["--data", str(folder), "--config", config, "--out", str(tmp_path / "run"), *init])

    assert told[fault] in capsys.readouterr().err
    assert not (tmp_path / "run/last.ckpt").exists()


def test_phantom_films_are_measured_from_their_bytes_on(service):
    (film,) = films = phantom_films(1, seed=0)

    result = grade_films(films, [service.grade(to_dicom(film.film, **film.stored)).message])

    assert (result["knees"], result["found"]) == (2, 1.0)
    assert result["iou"] > 0.7
    assert result["key_point_error_percent_of_w"] < 8
    assert "KL" not in result


def test_lesions_drawn_into_real_knees_are_a_folder_to_evaluate_on(knee_kl, tmp_path):
    make_synthetic(["--data", str(knee_kl), "--number", "4", "--out", str(tmp_path)])

    assert [set(k.grades) for k in read_knee_kl(tmp_path, "val")] == [{"JSN_L", "JSN_M", "FL", "FM", "TL", "TM"}] * 4
