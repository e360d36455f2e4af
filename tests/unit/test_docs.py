"""What docs/python.md shows is run, and what the pages point at is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kneeoa
from tests.conftest import ROOT

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "model_src/weights/MODEL_CARD.md"]
TEXT = (ROOT / "docs/python.md").read_text()


def test_the_blocks_of_python_md_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names: dict = {}

    for number, block in enumerate(blocks):
        exec(compile(block, f"docs/python.md, block {number}", "exec"), names)

    assert len(blocks) >= 6
    assert Path("bilateral.png").stat().st_size > 10_000


def test_the_public_names_are_documented_and_exist():
    assert all(f"`{name}`" in TEXT for name in kneeoa.__all__)
    assert all(hasattr(kneeoa, name) for name in kneeoa.__all__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_points_at_are_there(page):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text())

    assert not [target for target in targets if not (page.parent / target).exists()]


@pytest.mark.slow
def test_the_pages_make_a_web_site_whose_links_lead_somewhere(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "operations.html").is_file()
