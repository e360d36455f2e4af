"""What is inside the archives: code, weights, nothing else."""

import json
import os
import sys
import zipfile

import pytest
import yaml

from deploy import archives
from deploy.archives import BESIDE, build, fastest, main, stale
from kneeoa.grading.runtime import RUNTIMES
from kneeoa.weights import read_weights
from tests.conftest import ROOT, openvino
from tests.unit.weights_factory import small_grader


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    build(folder)
    return folder


@pytest.mark.parametrize("name", ["detector", "grader"])
def test_an_archive_holds_its_handler_the_package_its_weights_and_no_more(store, name):
    members = set(zipfile.ZipFile(store / f"{name}.mar").namelist())

    files = {m for m in members if not m.endswith("/")}
    package = {f"kneeoa/{p.relative_to(ROOT / 'model_src/kneeoa')}" for p in (ROOT / "model_src/kneeoa").rglob("*.py")}
    assert files == package | {
        f"{name}_handler.py",
        f"{name}.safetensors",
        f"{name}.yaml",
        "MAR-INF/MANIFEST.json",
        BESIDE[name],
    }


def test_the_workflow_chains_the_two_archives(store):
    archive = zipfile.ZipFile(store / "knee_oa.war")
    spec = yaml.safe_load(archive.read(next(n for n in archive.namelist() if n.endswith("workflow.yaml"))))

    assert spec["dag"] == {"detector": ["grader"]}
    assert {spec["models"][node]["url"] for node in ("detector", "grader")} == {"detector.mar", "grader.mar"}


def test_fresh_archives_are_not_rebuilt(store, tmp_path):
    assert not stale(store)
    assert stale(tmp_path)


@pytest.mark.parametrize("name", ["detector.mar", "grader.mar", "knee_oa.war"])
def test_an_archive_older_than_a_source_is_rebuilt(store, name):
    newest = max(p.stat().st_mtime for folder in ("model_src", "handlers") for p in (ROOT / folder).rglob("*.py"))
    before = (store / name).stat().st_mtime
    try:
        os.utime(store / name, (newest - 1, newest - 1))
        assert stale(store)
    finally:
        os.utime(store / name, (before, before))
    assert not stale(store)


def test_another_grader_can_be_served_and_the_shipped_one_comes_back(store, tmp_path):
    other = small_grader(tmp_path / "mine.safetensors")
    assert stale(store, other)

    build(tmp_path / "store", grader=other)

    with zipfile.ZipFile(tmp_path / "store/grader.mar") as archive:
        assert archive.read("grader.safetensors") == other.read_bytes()
    assert not stale(tmp_path / "store", other)
    assert stale(tmp_path / "store")


@openvino
def test_a_runtime_comes_with_what_it_runs_and_another_is_built_anew(tmp_path):
    grader = small_grader(tmp_path / "mine.safetensors")

    build(tmp_path, grader=grader, runtime="openvino")

    told = json.loads(zipfile.ZipFile(tmp_path / "grader.mar").read("compiled/runtime.json"))
    assert told == {"runtime": "openvino", "grader": read_weights(grader, "grader").sha256}
    assert {"compiled/0.xml", "compiled/0.bin"} <= set(zipfile.ZipFile(tmp_path / "grader.mar").namelist())
    assert not stale(tmp_path, grader, "openvino")
    assert stale(tmp_path, grader)


def test_a_runtime_that_cannot_be_had_is_told_with_its_code(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    grader = small_grader(tmp_path / "mine.safetensors")

    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path), "--grader", str(grader), "--runtime", "openvino"])

    assert ended.value.code == 1
    assert capsys.readouterr().err == "runtime_refused: OpenVINO is not installed: pip install 'kneeoa[openvino]'\n"
    assert not (tmp_path / "grader.mar").exists()


@pytest.mark.parametrize(("found", "runtime"), [(object(), "openvino"), (None, "eager")])
def test_the_fastest_runtime_that_is_installed_is_taken(monkeypatch, found, runtime):
    monkeypatch.setattr(archives.importlib.util, "find_spec", lambda _: found)

    assert fastest() == runtime


def test_a_grader_that_is_not_there_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--grader", str(tmp_path / "none.safetensors")])

    assert "there is no" in capsys.readouterr().err


def test_the_builder_offers_the_runtimes_there_are():
    assert archives.RUNTIMES == RUNTIMES  # it does not import them: PyTorch takes seconds
