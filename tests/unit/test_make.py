"""What a stranger types first, on a machine that has little: make, and tests without the programs beside Python."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# As if nobody had asked for these tests by make, or in CI.
OURS = {name: text for name, text in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "KNEEOA_REQUIRE"))}
SKIPPING = """
from tests.tools import needs, pytest_sessionfinish, pytest_terminal_summary

@needs("dsrdump", "dciodvfy")
def test_skipped():
    pass

@needs("dsrdump")
def test_skipped_too():
    pass

def test_run():
    pass
"""


@pytest.mark.parametrize(("required", "code"), [({}, 0), ({"KNEEOA_REQUIRE_TOOLS": "1"}, 1)])
def test_what_was_skipped_for_want_of_a_program_is_told_last_and_fails_where_all_are_required(tmp_path, required, code):
    (tmp_path / "conftest.py").write_text(SKIPPING)
    (tmp_path / "test_some.py").write_text("from conftest import *")
    environment = {**OURS, "PATH": "", "PYTHONPATH": f"{tmp_path}:{ROOT}", **required}

    command = [sys.executable, "-m", "pytest", "-ra", "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)

    *_, title, first, second, how, summary = [line for line in ran.stdout.splitlines() if line]
    assert "programs that are missing" in title
    assert first == "dciodvfy (Debian: dicom3tools): 1 test was skipped"
    assert second == "dsrdump (Debian: dcmtk): 2 tests were skipped"
    assert how == "To install them, where apt is there: make test-tools"
    assert "1 passed, 2 skipped" in summary
    assert ran.returncode == code


def test_ci_never_skips_in_silence():
    lines = (ROOT / ".ci/run").read_text().splitlines()

    assert lines.index("make test-tools") < lines.index("KNEEOA_REQUIRE_TOOLS=1 make test")


def test_an_old_python_is_told_in_the_first_line(tmp_path):
    """It took 11 s, and a dependency's words."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old = "import sys; sys.version_info = (3, 9, 18); exec(sys.argv[2])"
    (tmp_path / "old").write_text(f"#!/bin/sh\nexec {sys.executable} -c '{old}' \"$@\"\n")
    (tmp_path / "old").chmod(0o755)

    ran = subprocess.run(["make", "demo", "PYTHON=./old"], cwd=tmp_path, env=OURS, capture_output=True, text=True)

    assert ran.stderr.startswith("kneeoa needs Python ≥ 3.10, and ./old is 3.9")
    assert ran.stdout == ""
    assert not (tmp_path / ".venv").exists()


def test_help_lists_every_target_in_groups_about_a_dozen_of_them_first():
    shown = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, env=OURS, capture_output=True, text=True, check=True
    ).stdout
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    groups = [re.findall(r"^  ([a-z-]+) ", group, re.MULTILINE) for group in shown.strip().split("\n\n")]

    assert sorted(name for group in groups for name in group) == sorted(set(targets) - {"help"})
    assert 10 <= len(groups[0]) <= 14


def test_what_the_readme_writes_is_ignored_by_git():
    commands = [line for line in (ROOT / "README.md").read_text().splitlines() if ".venv/bin/kneeoa" in line]
    written = [path for line in commands for path in re.findall(r"--(?:out|figures|dicom|html|json) (\S+)", line)]

    ignored = subprocess.run(["git", "check-ignore", *written], cwd=ROOT, capture_output=True, text=True).stdout.split()

    assert written
    assert ignored == written


def test_make_reaches_every_option_of_the_cohorts_commands():
    manifest = [
        "KIND=oai",
        "DATA=d",
        "OUT=m",
        "VISITS=V00 V01",
        "PROJECTS=15 37",
        "VIEWS=PA10",
        "KL_19=1",
        "QUICK=1",
        "CHECK=1",
    ]
    crops, paper = ["MANIFEST=m", "DATA=d", "OUT=c", "WORKERS=3"], ["OAI=a", "MOST=b", "SPLIT=by-subject", "KL_19=drop"]
    wanted = {
        (
            "manifest",
            *manifest,
        ): "oai d --out m --visits V00 V01 --projects 15 37 --views PA10 --kl-19 1 --quick --check",
        ("crops", *crops): "m --out c --data d --workers 3",
        ("reproduce-paper", *paper): "--out runs/paper --oai a --most b --split by-subject --kl-19 drop",
    }
    for call, options in wanted.items():
        run = subprocess.run(["make", "-n", *call], cwd=ROOT, env=OURS, capture_output=True, text=True, check=True)
        assert run.stdout.splitlines()[-1].split()[4:] == options.split()
