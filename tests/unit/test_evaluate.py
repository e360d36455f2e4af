"""The evaluation command on a small folder of phantom crops in the form of the public KL set."""

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from kneeoa.tasks import TASKS, Laterality
from training.data.knee_kl import LANDMARKS, SIX, DataError, read_knee_kl
from training.evaluation.evaluate import contradictions, grade_crops
from training.evaluation.evaluate import main as evaluate
from training.synthesis.phantom import draw_joint


@pytest.fixture
def folder(tmp_path, rng):
    """Six knees of three people, three in val, with all labels but some, and landmarks of two."""
    labels, marks = [], []
    for number in range(6):
        side = (Laterality.RIGHT, Laterality.LEFT)[number % 2]
        image, knee = draw_joint(rng, side=side, spacing_mm=0.5)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image)
        row = {"file": f"{number}.png", "split": "val" if number < 4 else "train", "subject": number // 2}
        labels.append(
            row | {"side": side.value} | {t.name.lower(): knee.grades[t.name] for t in TASKS if t.name != "OA"}
        )
        points = dict(zip(SIX, knee.key_points.points, strict=True))
        corners = {
            f"{name}{axis}": points.get(i, (0, 0))[j] for i, name in enumerate(LANDMARKS) for j, axis in enumerate("xy")
        }
        marks.append({"file": f"{number}.png", "fit_score": 3.0, "mm_per_px": 0.5} | corners)
    labels[0]["fl"] = ""
    for name, rows in (("labels", labels), ("landmarks", marks[:2])):
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return tmp_path


@pytest.mark.slow
def test_evaluate_writes_metrics_predictions_and_a_report(folder, tmp_path):
    out = tmp_path / "out"

    wanted = ["--tasks", "KL,OA,FL", "--corrupt", "blur:3", "noise"]
    evaluate(["--data", str(folder), "--split", "val", "--out", str(out), *wanted])

    metrics = json.loads((out / "metrics.json").read_text())
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = ["KL", "OA", "FL", "detection", "agreement", "contradictions", "corruptions"]
    assert [name for name in names if name in metrics] == list(metrics)
    assert list(metrics["corruptions"]) == ["blur:3", "noise:2"]
    assert (out / "mistakes.png").stat().st_size > 10_000
    assert metrics["agreement"]["osteophytes_vs_KL"]["n"] == 4
    assert [metrics[name]["n"] for name in ("KL", "OA", "FL")] == [4, 4, 3]
    assert {"top1", "top1_pm1", "kappa_quadratic", "kappa", "mse", "ece", "ci95"} <= set(metrics["KL"])
    assert metrics["detection"]["n"] == 2
    assert metrics["detection"]["key_point_error_percent_of_w"] < 8
    assert len(rows) == 4
    for row in rows:
        p = np.array([float(row[f"KL_p{grade}"]) for grade in range(5)])
        assert int(row["KL"]) == p.argmax()
        assert float(row["KL_expected"]) == pytest.approx(p @ np.arange(5), abs=1e-3)
    assert rows[0]["FL_label"] == ""
    assert metrics["KL"]["top1"] == pytest.approx(np.mean([row["KL"] == row["KL_label"] for row in rows]), abs=1e-4)
    report = (out / "report.md").read_text()
    assert "not a medical device" in report
    for picture in ("KL.png", "OA.png", "FL.png"):
        assert f"({picture})" in report
        assert cv2.imread(str(out / picture)) is not None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "labels.csv").unlink(), "labels.csv is missing"),
        (lambda f: (f / "1.png").unlink(), "line 3: no file 1.png"),
        (lambda f: _change(f, "file,", "name,"), "a column 'file'"),
        (lambda f: _change(f, "2.png,val,1,R,", "2.png,val,1,R,9"), "line 4, column kl: a grade must be one of 0 … 4"),
        (lambda f: _change(f, "2.png,val,1,R,", "2.png,val,1,1,"), "line 4: side must be R, L or empty"),
        (lambda f: _change(f, ",val,", ",test,"), "no knee of the split 'val'"),
    ],
)
def test_a_wrong_folder_is_told_before_anything_runs(folder, damage, message):
    damage(folder)

    with pytest.raises(DataError, match=message):
        read_knee_kl(folder, "val")


def test_a_folder_without_kl_still_has_the_other_labels(folder):
    labels = [
        task.name for task in TASKS if task.name not in ("KL", "OA", "FL")
    ]  # OA is KL's; the first knee has no FL
    _change(folder, "subject,side,kl", "subject,side,grade")

    assert list(read_knee_kl(folder, "val")[0].grades) == labels


def _change(folder, old: str, new: str) -> None:
    text = (folder / "labels.csv").read_text()
    assert old in text
    (folder / "labels.csv").write_text(text.replace(old, new))


def test_unknown_tasks_are_named(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        evaluate(["--data", str(folder), "--out", str(tmp_path / "o"), "--tasks", "KL,XY"])

    assert "XY" in capsys.readouterr().err


def test_grades_that_kl_rules_out_are_counted(folder, detector, grader):
    results = grade_crops(read_knee_kl(folder, None), detector, grader)
    sure = {task.name: np.eye(task.grades) for task in TASKS}

    def graded(result, kl, **grades):
        probabilities = {task.name: sure[task.name][grades.get(task.name, 0)] for task in TASKS}
        knee = replace(result.knee, grades={"KL": kl})
        return replace(result, knee=knee, graded=replace(result.graded, probabilities=probabilities))

    told = [(0, {"FL": 1}), (0, {"TM": 2}), (2, {"TM": 3}), (3, {}), (4, {"JSN_M": 1}), (3, {"FL": 3})]
    found = contradictions([graded(r, kl, **grades) for r, (kl, grades) in zip(results, told, strict=True)])

    assert {name: (each["n"], each["share"]) for name, each in found.items()} == {
        "KL 0 with a feature of grade 2 or more": (2, 0.5),
        "KL 3 or 4 without narrowing": (3, 0.6667),
    }
