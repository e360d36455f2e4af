"""Shared fixtures. Real data live outside the repository: KNEEOA_DATA, or ../shared/data beside the checkout."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from kneeoa.detection.detector import Detector
from kneeoa.grading.grader import Grader
from kneeoa.pipeline import KneeOA
from tests.tools import pytest_sessionfinish, pytest_terminal_summary  # noqa: F401  (hooks)

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("KNEEOA_DATA", ROOT.parent / "shared/data"))
WEIGHTS = ROOT / "model_src/weights"
# not imported to find out: kneeoa does so without its telemetry
openvino = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="openvino is not installed")


def _data(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"real data are absent: no {name} folder in KNEEOA_DATA or ../shared/data")
    return DATA / name


@pytest.fixture(scope="session")
def knee_kl() -> Path:
    return _data("knee-kl")


@pytest.fixture(scope="session")
def real_dicoms() -> list[Path]:
    return sorted(_data("dicom").glob("*.dcm"))


@pytest.fixture(scope="session")
def sample() -> bytes:
    return (ROOT / "samples/bilateral.dcm").read_bytes()


@pytest.fixture(scope="session")
def detector() -> Detector:
    return Detector.from_file(WEIGHTS / "detector.safetensors")


@pytest.fixture(scope="session")
def grader() -> Grader:
    return Grader.from_file(WEIGHTS / "grader.safetensors")


@pytest.fixture(scope="session")
def service(detector, grader) -> KneeOA:
    return KneeOA(detector=detector, grader=grader)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
