"""From releases on a disk to the paper's tables, and the report of what the detector found."""

import json

import pandas as pd
import pytest

from kneeoa.tasks import TASKS
from tests.conftest import ROOT
from tests.unit.releases import phantom, write_most, write_oai
from training.data.report_detection import write_detection
from training.experiments.reproduce import TRANSFER, main, report


@pytest.mark.slow
def test_from_the_releases_to_the_papers_tables_and_again(tmp_path, monkeypatch):
    write_oai(tmp_path / "disk/OAI", subjects=9, draw=phantom, implants={(2, "L"): ("BLRP", 1)})
    write_most(tmp_path / "disk/MOST", subjects=9, visits=[0], draw=phantom)
    folders = ["--oai", str(tmp_path / "disk"), "--most", str(tmp_path / "disk/MOST")]
    call = [
        *folders,
        "--out",
        str(tmp_path / "out"),
        "--config",
        str(ROOT / "training/configs/tiny.yaml"),
        "--workers",
        "1",
    ]

    main(call)

    found = json.loads((tmp_path / "out/reproduction.json").read_text())
    assert found["knees"]["OAI"]["knees"] == 17
    assert found["knees"]["MOST"]["knees"] == 18
    for numbers in found["knees"].values():
        assert numbers["train"] + numbers["val"] + numbers["test"] == numbers["found"] >= 16
    for name, knees in (("OAI", "test"), ("MOST", "test"), (TRANSFER, "found")):
        expected = found["knees"]["MOST" if name == TRANSFER else name][knees]
        assert {row: metrics["KL"]["n"] for row, metrics in found[name].items()} == dict.fromkeys(
            ("Siamese", "ensemble"), expected
        )
    text = (tmp_path / "out/reproduction.md").read_text()
    assert "| OAI, the paper | 24319 | 24265 | 13472 | 2732 | 8061 | 99.78 % |" in text
    assert pd.read_csv(tmp_path / "out/OAI.left_out.csv")["reason"].tolist() == ["implant"]

    monkeypatch.setattr("training.data.cut_crops.cut_film", lambda *args: pytest.fail("cut again"))
    main(call)  # finished networks are read, not trained again
    assert json.loads((tmp_path / "out/reproduction.json").read_text()) == found


def test_ours_and_the_papers_numbers_stand_side_by_side():
    ours = {task.name: {"top1": 0.5, "top1_pm1": 0.9, "kappa_quadratic": 0.4} for task in TASKS}
    numbers = {"knees": 200, "found": 199, "train": 110, "val": 22, "test": 67}

    text = report(dict.fromkeys(("OAI", "MOST"), numbers), dict.fromkeys(("OAI", "MOST", TRANSFER), {"Siamese": ours}))

    oai, most, across = (
        text.split("## Learned")[0].split("## MOST")[0],
        text.split("## MOST")[1],
        text.split("## Learned")[1],
    )
    assert "| OAI, here | 200 | 199 | 110 | 22 | 67 | 99.50 % |" in oai
    assert "| Siamese, here | 0.5 |" in oai
    assert "| Siamese, the paper | 0.7632 |" in oai
    assert "| ensemble, the paper | 0.7786 |" in most
    assert "| Tiulpin & Saarakkala 2020 | 0.82 | – |" in across
    assert "the paper |" not in across


def test_detection_is_counted_by_visit_view_and_site(tmp_path):
    rows = [
        {"cohort": "OAI", "visit": visit, "view": "", "site": site, "path": "gone.dcm", "side": "R", "reason": reason}
        for visit, site, reason in (("V00", "A", ""), ("V00", "B", "low_score"), ("V01", "A", ""), ("V01", "", ""))
    ]

    write_detection(tmp_path, pd.DataFrame(rows), tmp_path)

    text = (tmp_path / "detection.md").read_text()
    assert "all knees: 3 of 4 found (75.00 %)" in text
    assert "| OAI | V00 | 2 | 1 | 50.00 % |" in text
    assert "| OAI | unknown | 1 | 1 | 100.00 % |" in text
    assert "| OAI | V00 | B | 1 | 0 | 0.00 % |" in text
    assert "| cohort | view |" not in text
    assert "- low_score: 1" in text
    assert not (tmp_path / "not_found.png").exists()  # a film that cannot be read is not shown
