"""What docs/python.md shows is run."""

import re
from pathlib import Path

import kneeoa
from tests.conftest import ROOT

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
