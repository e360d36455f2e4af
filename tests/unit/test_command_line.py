"""What the command line says: at once where the command is wrong, in true words where it was cut off, with counts at the end."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kneeoa.disclaimer import DISCLAIMER
from kneeoa_cli import batch, grading, html_report
from kneeoa_cli.files.inputs import NoRadiographs, walk
from kneeoa_cli.main import main as kneeoa
from tests.conftest import ROOT

SLOW = ("numpy", "cv2", "torch", "matplotlib", "pydicom", "requests", "pynetdicom", "psutil")  # to load


@pytest.fixture
def here(tmp_path, monkeypatch, fake, server):
    """A folder with a radiograph in ``films``, and a server that answers."""
    monkeypatch.setenv("KNEEOA_SERVER", server.url)
    monkeypatch.setenv("KNEEOA_KEY_FILE", str(server.key_file))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films").mkdir()
    (tmp_path / "films/a.dcm").write_bytes(b"film")
    return tmp_path


WRONG = {
    "no such command": (["grad"], "invalid choice"),
    "no such file": (["grade", "absent.dcm"], "no such file or folder: absent.dcm"),
    "unknown task": (["grade", "films", "--explain", "KL,XX"], "no such task: XX; there are KL, OA, JSN_L,"),
    "report, unknown task": (["report", "films", "--html", "h", "--explain", "kl"], "no such task: kl"),
    "opacity": (["grade", "films", "--opacity", "9"], "9 is not a number from 0 to 1"),
    "opacity in words": (["report", "films", "--html", "h", "--opacity", "much"], "much is not a number from 0 to 1"),
    "figures into a file": (["grade", "films", "--figures", "films/a.dcm"], "films/a.dcm is a file; name a folder"),
    "pages into a file": (["report", "films", "--html", "films/a.dcm"], "films/a.dcm is a file; name a folder"),
    "no table": (["batch", "films", "--out", "r.xls"], "ends in .csv, .jsonl, .parquet"),
    "no PACS": (["pacs"], "--peer AET@HOST:PORT"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_with_a_command_is_told_before_anything_is_asked(here, fake, capsys, case):
    command, told = WRONG[case]

    with pytest.raises(SystemExit) as ended:
        kneeoa(command)

    assert ended.value.code == 2
    assert told in capsys.readouterr().err
    assert not fake.seen


def test_what_is_wrong_with_a_command_is_told_before_anything_is_loaded():
    """That takes seconds. Modules are counted, since a busy machine has no seconds to compare with."""
    code = f"""
import sys
from kneeoa_cli.main import main
try:
    main(["grade"])
except SystemExit:
    print(*[name for name in {SLOW} if name in sys.modules])
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)

    assert ran.stdout.split() == []
    assert "PATH" in ran.stderr


def test_grade_says_how_many_there_were_and_what_was_written_where(here, capsys):
    code = kneeoa(["grade", "films", "--out", "r.csv", "--json", "replies"])

    assert code == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 radiograph: 1 ok",
        "wrote r.csv",
        "wrote replies/ (1 file)",
        DISCLAIMER,
    ]


@pytest.mark.parametrize(
    "command", [["grade"], ["grade", "--out", "r.csv"], ["report", "--html", "h"], ["batch", "--out", "r.csv"]]
)
def test_a_folder_without_radiographs_is_told_and_nothing_is_written(here, fake, capsys, command):
    (here / "empty").mkdir()
    (here / "empty/notes.txt").write_text("none")

    assert kneeoa([*command, "empty"]) == 1

    assert capsys.readouterr().err == "kneeoa: no radiographs in empty\n"
    assert sorted(path.name for path in here.iterdir()) == ["empty", "films", "key_file.json"]
    assert not fake.seen


def ours(folder):
    """A report, a page and a figure as kneeoa writes them, as far as a reader at their beginning can tell."""
    for name in ("a.sr.dcm", "a.sc.dcm"):
        (folder / name).write_bytes(b"\0" * 128 + b"DICM...kneeoa: research software")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(folder / "a.png")
    png = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(png[:33] + b"\0\0\0\x0ftEXtSoftware\0kneeoa\0\0\0\0" + png[33:])


def test_what_kneeoa_wrote_is_skipped_and_counted_and_what_others_wrote_is_not(here, fake, capsys):
    ours(here / "films")
    (here / "films/other.sr.dcm").write_bytes(b"somebody else's")
    (here / "films/kneeoa.dcm").write_bytes(b"a film of a phantom of kneeoa")

    kneeoa(["grade", "films", "--out", "r.csv"])
    first = capsys.readouterr().out
    kneeoa(["batch", "films", "--out", "b.csv"])

    assert first.splitlines()[0] == "3 radiographs: 3 ok; 3 files written by kneeoa skipped"
    assert "3 files written by kneeoa skipped" in capsys.readouterr().out.splitlines()
    with pytest.raises(NoRadiographs, match="no radiographs in films/a.png; 1 file written by kneeoa skipped"):
        list(walk(["films/a.png"]))


def test_reports_and_figures_as_they_are_written_are_known_again(sample, service, here, monkeypatch):
    """The other end of the test above: what is looked for is what is there."""
    reply = service.grade(sample, explain="KL").message
    monkeypatch.setattr(grading.Client, "post_patiently", lambda *_, **__: json.loads(json.dumps(reply)))
    (here / "films/a.dcm").write_bytes(sample)

    assert kneeoa(["grade", "films", "--figures", "films", "--dicom", "films"]) == 0

    skipped = []
    assert [film.path.name for film in walk(["films"], skipped)] == ["a.dcm"]
    assert sorted(film.path.name for film in skipped) == ["a.png", "a.sc.dcm", "a.sr.dcm"]


@pytest.mark.parametrize(("command", "words"), [
    (["grade"], "the same command starts over"),
    (["report", "--html", "h"], "the same command starts over"),
    (["batch", "--out", "r.csv"], "the same command goes on where it stopped"),
])  # fmt: skip
def test_an_interrupted_command_says_what_is_left_of_it(here, monkeypatch, capsys, command, words):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    for module in (batch, grading, html_report):
        monkeypatch.setattr(module, "walk", interrupted)

    assert kneeoa([*command, "films"]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(words)


@pytest.mark.parametrize(("command", "option"), [(["grade", "films"], "--server"), (["models"], "--management")])
def test_a_server_that_is_down_is_told_with_what_to_do(here, fake, server, capsys, command, option):
    fake.http.shutdown()
    fake.http.server_close()
    server.key_file.write_text(json.dumps({name: {"key": "key"} for name in ("inference", "management")}))

    assert kneeoa([*command, *(["--management", server.url] if command == ["models"] else [])]) == 2

    assert capsys.readouterr().err == (
        f"kneeoa: no answer from {server.url}: start a server with `make serve`, or name another with {option}\n"
    )
