"""What the handlers tell TorchServe's metrics, through TorchServe's own code and handlers/metrics.yaml."""

import json
import logging
import re
import time
from collections import defaultdict

import numpy as np
import pytest
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl

from handlers.detector_handler import DetectorHandler
from handlers.grader_handler import GraderHandler
from kneeoa.messages import DETECTION_SCHEMA, encode_png
from kneeoa.torchserve.metrics import WITHIN, Reference, _since
from tests.conftest import ROOT, WEIGHTS
from tests.handlers.test_handlers import Context

# As TorchServe's frontend reads them, org.pytorch.serve.metrics.Metric
LINE = re.compile(
    r"\s*([\w\s]+)\.([\w\s]+):([0-9\-,.e]+)\|#([^|]*)(\|#type:([^|,]+))?\|#hostname:([^,]+),([^,]+)(,(.*))?"
)


class Metrics(logging.Handler):
    """Values by metric and labels, read from the lines that workers send."""

    def __init__(self, **header: str) -> None:
        super().__init__()
        self.context = Context([header] * 8)
        self.context.model_name = header.pop("model", "knee_oa__detector")
        self.context.metrics = MetricsCacheYamlImpl(str(ROOT / "handlers/metrics.yaml"))
        self.context.metrics.initialize_cache()
        self.values = defaultdict(list)

    def emit(self, record: logging.LogRecord) -> None:
        found = LINE.fullmatch(record.getMessage().removeprefix("[METRICS]"))
        assert found, record.getMessage()
        labels = [pair.split(":") for pair in found[4].split(",") if pair]
        assert all(len(pair) == 2 and pair[1] for pair in labels), found[4]  # anything else breaks the frontend
        self.values[found[1], tuple(value for _, value in labels)].append(float(found[3]))

    def __getitem__(self, key: tuple[str, ...]) -> float:
        return sum(self.values.get((key[0], key[1:]), []))


@pytest.fixture
def metrics():
    """Makes what a worker would send readable."""
    source, attached = logging.getLogger("ts.metrics.caching_metric"), []
    source.setLevel(logging.INFO)

    def listen(**header: str) -> Metrics:
        attached.append(Metrics(**header))
        source.addHandler(attached[-1])
        return attached[-1]

    yield listen
    for handler in attached:
        source.removeHandler(handler)


def ready(handler, seen: Metrics):
    handler.initialize(seen.context)
    return handler


@pytest.fixture(scope="module")
def detection(sample) -> bytes:
    handler = DetectorHandler()
    handler.initialize(Context())
    return handler.handle([{"body": sample}], Context())[0]


def test_the_detector_tells_of_films_knees_and_stages(metrics, sample):
    seen = metrics()
    detect = ready(DetectorHandler(), seen)

    detect.handle([{"body": sample}, {"body": b"no film"}], seen.context)

    assert seen["kneeoa_requests_total", "workflow", "detector", "ok", "none"] == 1
    assert seen["kneeoa_requests_total", "workflow", "detector", "error", "unsupported_media_type"] == 1
    assert seen["kneeoa_knees_total", "found", "position"] == 2
    assert seen["kneeoa_inputs_total", "JPEG_2000_Image_Compression__Lossless_Only_", "12", "monochrome2"] == 1
    assert seen["kneeoa_batch_size", "detector"] == 2
    for stage in ("decode", "prepare", "detect", "encode"):
        (seconds,) = seen.values["kneeoa_stage_seconds", ("detector", stage)]
        assert 0 < seconds < 30
    assert seen["kneeoa_model_info", "detector", "0.2.0", detect.detector.identity["sha256"][:12], "eager"] == 1


def test_the_grader_tells_of_grades_as_the_reply_has_them(metrics, detection):
    seen = metrics(model="knee_oa__grader")
    grade = ready(GraderHandler(), seen)

    (reply,) = grade.handle([{"body": detection}], seen.context)

    knees = json.loads(reply)["knees"]
    for task in ("KL", "OA", "JSN_M"):
        grades = [knee["grades"][task]["grade"] for knee in knees]
        assert [seen["kneeoa_population_total", task, str(g)] for g in range(2)] == [grades.count(g) for g in range(2)]
        told = seen.values["kneeoa_top_probability", (task,)]
        assert told == [max(knee["grades"][task]["probabilities"]) for knee in knees]
    assert sum(seen["kneeoa_population_total", "intensity", str(i)] for i in range(10)) == 2
    assert sum(seen["kneeoa_population_total", "score", str(i)] for i in range(5)) == 2
    assert seen.values["kneeoa_gate_lateral_share", ()] == [knee["gate_lateral_share"] for knee in knees]
    stored = json.loads((WEIGHTS / "reference.json").read_text())
    assert [seen["kneeoa_reference_share", "KL", str(i)] for i in range(5)] == stored["shares"]["KL"]


def test_a_check_counts_as_such_and_says_nothing_of_films(metrics, sample, detection):
    seen = metrics(**{"X-Kneeoa-Probe": "1"})
    detect, grade = ready(DetectorHandler(), seen), ready(GraderHandler(), seen)
    told = set(seen.values)

    detect.handle([{"body": sample}], seen.context)
    grade.handle([{"body": detection}], seen.context)

    assert seen["kneeoa_requests_total", "probe", "detector", "ok", "none"] == 1
    assert {name for name, _ in set(seen.values) - told} == {"kneeoa_requests_total", "kneeoa_stage_seconds"}
    assert seen["kneeoa_population_total", "KL", "0"] == 0


def test_the_age_of_a_request_falls_into_every_bucket_above_it(metrics):
    asked = time.time() - 1
    seen = metrics(model="detector", **{"X-Request-Start": f"t={1000 * asked:.0f}"})
    detect = ready(DetectorHandler(), seen)

    detect.handle([{"body": b"no film"}], seen.context)

    counted = {limit: seen["kneeoa_requests_within_total", "plain", "detector", str(limit)] for limit in WITHIN}
    age, reached = time.time() - asked, {limit for limit, n in counted.items() if n}
    assert {limit for limit in WITHIN if limit > age} <= reached <= {limit for limit in WITHIN if limit > 0.99}
    assert seen["kneeoa_requests_within_total", "plain", "detector", "+Inf"] == 1


@pytest.mark.parametrize("header", [None, "", "t=", "yesterday", "t=nan", "t=1", f"t={1e15}", "t=-inf"])
def test_an_age_that_cannot_be_is_left_out(header):
    assert _since(header) is None


def test_labels_come_from_closed_lists_whatever_a_client_sends(metrics, detection):
    error = {"code": "DOE^JOHN,a:b|#c", "message": "", "stage": "grade", "http_status": 400}
    failed = {"schema": DETECTION_SCHEMA, "status": "error", "error": error, "knees": []}
    crop = encode_png(np.zeros((40, 80), np.uint8))
    knee = {"knee": "R", "status": "found", "crop": crop, "score": "DOE^JOHN", "side_source": "DOE^JOHN"}
    seen = metrics(model="grader")
    grade = ready(GraderHandler(), seen)

    grade.handle(
        [
            {"body": json.dumps(failed)},
            {"body": json.dumps({**failed, "status": "ok", "error": None, "knees": [knee]})},
        ],
        seen.context,
    )

    assert seen["kneeoa_requests_total", "plain", "grader", "error", "bad_request"] == 2
    assert "DOE" not in str(seen.values)
    assert sum(seen["kneeoa_population_total", "score", str(i)] for i in range(5)) == 0


def test_a_number_that_fails_costs_no_answer(metrics, detection, caplog, monkeypatch):
    seen = metrics()
    grade = ready(GraderHandler(), seen)
    monkeypatch.setattr(grade.telemetry, "_grades", lambda *_: 1 / 0)

    (reply,) = grade.handle([{"body": detection}], seen.context)

    assert json.loads(reply)["status"] == "ok"
    assert "telemetry failed: ZeroDivisionError" in caplog.text


def test_other_weights_have_no_reference(tmp_path):
    assert Reference.from_file(WEIGHTS / "reference.json", "other") == Reference()
    assert Reference.from_file(tmp_path / "none.json", "") == Reference()
