"""What is inside the archives: code, weights, nothing else."""

import zipfile

import pytest
import yaml

from deploy.archives import BESIDE, build, stale
from tests.conftest import ROOT


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
