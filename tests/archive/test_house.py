"""The rules of the house (docs/architecture.md) that a machine can check."""

import ast
import json
import re
import socket
import subprocess

import pytest
import yaml
from safetensors import safe_open

import kneeoa
from kneeoa.errors import BY_CODE
from kneeoa.weights import read_weights
from tests.conftest import ROOT, WEIGHTS

TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
PYTHON = [name for name in TRACKED if name.endswith(".py") and (ROOT / name).exists()]
LAYERS = {  # folder → the packages of ours that its files may import
    "kneeoa": {"kneeoa"},
    "handlers": {"kneeoa"},
    "kneeoa_client": {"kneeoa", "kneeoa_client"},
    "kneeoa_cli": {"kneeoa", "kneeoa_client", "kneeoa_cli"},
    "training": {"kneeoa", "training"},
    "deploy": {"kneeoa", "kneeoa_client", "kneeoa_cli", "deploy"},
}
TRAINING = ("data", "synthesis", "evaluation", "fitting", "experiments")  # each may import those before it
CORE = {"tasks", "geometry", "errors", "disclaimer"}  # they import nothing of ours but each other
ROOMS = {"imaging", "detection", "grading", "measurement", "reporting", "torchserve"}
ABOVE = {  # file or folder of kneeoa → the rooms that it must not know
    "messages": ROOMS,
    "incoming": ROOMS,
    "weights": ROOMS,
    "imaging": ROOMS - {"imaging"},
    "detection": ROOMS - {"imaging", "detection"},
    "grading": ROOMS - {"grading"},
    "measurement": ROOMS - {"imaging", "measurement"},
    "reporting": ROOMS - {"imaging", "measurement", "reporting"},
    "torchserve": ROOMS - {"torchserve"},
}
OURS = {"kneeoa", "kneeoa_client", "kneeoa_cli", "handlers", "training", "tests", "deploy", "docs"}


def imports(text: str) -> set[str]:
    """All that a file imports, modules and what is taken from them; a relative import begins with dots."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def layer(name: str) -> str | None:
    return next((part for part in name.split("/")[:2] if part in LAYERS), None)


def trespasses(name: str, text: str) -> set[str]:
    """What the file ``name`` imports and must not."""
    found = imports(text)
    ours = {module for module in found if module.split(".")[0] in OURS}
    wrong = {module for module in found if module.startswith(".")}
    wrong |= {module for module in ours if module.split(".")[0] not in LAYERS[layer(name)]}
    if name.startswith("model_src/kneeoa/"):
        part = name.split("/")[2].removesuffix(".py")
        parts = {module: module.split(".")[1] for module in ours if "." in module}
        wrong |= {module for module, other in parts.items() if other in ABOVE.get(part, ())}
        wrong |= {module for module, other in parts.items() if part in CORE and other not in CORE}
    if name.startswith("training/") and (room := name.split("/")[1]) in TRAINING:
        later = TRAINING[TRAINING.index(room) + 1 :]
        wrong |= {module for module in ours if module.startswith(tuple(f"training.{other}" for other in later))}
    return wrong


@pytest.mark.parametrize("name", [n for n in PYTHON if layer(n) and not n.startswith("tests/")])
def test_imports_point_down_the_corridor(name):
    assert not trespasses(name, (ROOT / name).read_text())


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("imaging/field", "from kneeoa import grading, reporting", {"kneeoa.grading", "kneeoa.reporting"}),
        ("imaging/field", "def f():\n    import kneeoa.detection.detector", {"kneeoa.detection.detector"}),
        ("grading/patches", "import kneeoa.imaging", {"kneeoa.imaging"}),
        ("imaging/field", "from ..reporting import figure", {"..reporting", "..reporting.figure"}),
        ("messages", "from kneeoa import imaging", {"kneeoa.imaging"}),
        ("tasks", "from kneeoa import messages", {"kneeoa.messages"}),
        ("geometry", "from kneeoa_client import web", {"kneeoa_client", "kneeoa_client.web"}),
        ("imaging/field", "from kneeoa import errors\nfrom kneeoa.imaging import raster", set()),
    ],
)  # fmt: skip
def test_an_import_that_points_up_is_seen_however_it_is_written(name, text, found):
    assert trespasses(f"model_src/kneeoa/{name}.py", text) == found


def test_training_rooms_import_those_before_them():
    text = "from training.evaluation import metrics\nfrom training.data import table"

    assert trespasses("training/synthesis/lesions.py", text) == {"training.evaluation", "training.evaluation.metrics"}
    assert not trespasses("training/fitting/losses.py", text)


def test_what_starts_servers_knows_nothing_of_training():
    found = trespasses("deploy/server.py", "from training.synthesis import composed_films")

    assert found == {"training.synthesis", "training.synthesis.composed_films"}


@pytest.mark.parametrize("name", [n for n in PYTHON if not n.startswith(("handlers/", "tests/"))])
def test_only_handlers_may_know_torchserve(name):
    assert not any(module.split(".")[0] == "ts" for module in imports((ROOT / name).read_text()))


@pytest.mark.parametrize("name", [n for n in PYTHON if n.startswith("handlers/")])
def test_a_handler_file_defines_one_class_and_stays_thin(name):
    tree = ast.parse((ROOT / name).read_text())

    assert sum(isinstance(node, ast.ClassDef) for node in tree.body) == 1
    assert len((ROOT / name).read_text().splitlines()) <= 80


@pytest.mark.parametrize("name", PYTHON)
def test_files_are_short_and_never_called_utils(name):
    assert len((ROOT / name).read_text().splitlines()) <= 300
    assert "util" not in name


@pytest.mark.parametrize("name", [n for n in PYTHON if n.startswith(("model_src/", "handlers/", "client/"))])
def test_no_pickle_at_inference(name):
    text = (ROOT / name).read_text()

    assert "torch.load" not in text
    assert "pickle" not in text


def test_weights_are_safetensors_in_half_precision_under_75_mb():
    files = list(WEIGHTS.glob("*.safetensors"))

    assert {file.stem for file in files} == {"detector", "grader"}
    assert sum(file.stat().st_size for file in files) < 75e6
    for file in files:
        with safe_open(file, framework="pt") as opened:
            kinds = {str(opened.get_tensor(key).dtype) for key in opened.keys()}  # noqa: SIM118
        assert kinds <= {"torch.float16", "torch.int64"}


def test_reference_population_and_expected_reply_belong_to_these_weights():
    weights = {name: read_weights(WEIGHTS / f"{name}.safetensors", name).sha256 for name in ("detector", "grader")}
    reference = json.loads((WEIGHTS / "reference.json").read_text())
    expected = json.loads((ROOT / "samples/bilateral.json").read_text())["model"]

    assert {name: reference[name] for name in weights} == weights
    assert {name: expected[name]["sha256"] for name in weights} == weights


def test_the_lock_file_names_no_host():
    text = (ROOT / "requirements.lock").read_text()

    assert "://" not in text
    assert "--hash=sha256:" in text


def test_the_api_page_lists_the_errors_that_there_are():
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", (ROOT / "docs/api.md").read_text(), re.MULTILINE)

    assert {code: int(status) for code, status in rows} == {code: kind.http_status for code, kind in BY_CODE.items()}


def test_changelog_and_citation_name_this_version_and_every_release_has_a_date():
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    released = [heading for heading in headings if heading != "## Unreleased"]

    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == kneeoa.__version__
    assert all(re.fullmatch(r"## \d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", heading) for heading in released)
    assert released[0].split()[1] == kneeoa.__version__


def test_hooks_before_a_commit_fetch_nothing():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())

    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    assert all(hook["entry"].startswith(".venv/bin/") for hook in config["repos"][0]["hooks"])


def test_grpc_listens_where_nobody_can_connect():
    """It cannot be switched off. Were it on loopback, one StreamPredictions call with a token would kill a worker."""
    lines = dict(line.split("=", 1) for line in (ROOT / "config.properties").read_text().splitlines() if "=" in line)

    for service in ("inference", "management"):
        with socket.socket() as server, socket.socket() as client:
            server.bind((lines[f"grpc_{service}_address"], 0))
            server.listen()
            for address in (lines[f"grpc_{service}_address"], "127.0.0.1", "0.0.0.0"):
                with pytest.raises(OSError, match="unreachable|refused"):
                    client.connect((address, server.getsockname()[1]))


def test_torchserve_leaves_json_to_us():
    assert "decode_input_request=false" in (ROOT / "config.properties").read_text().splitlines()
