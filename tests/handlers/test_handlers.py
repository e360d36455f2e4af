"""The handlers as TorchServe calls them, without TorchServe."""

import json
import time
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import torch
import yaml

from handlers.detector_handler import DetectorHandler
from handlers.grader_handler import GraderHandler
from kneeoa.messages import DETECTION_SCHEMA, decode_png
from tests.conftest import ROOT, WEIGHTS
from tests.corpus import BOMBS
from tests.unit.dicom_factory import make_dicom
from tests.unit.test_incoming import KILLERS


class Context(SimpleNamespace):
    """The part of TorchServe's context that handlers use."""

    def __init__(self, headers: list[dict] | None = None, gpu: int | None = None) -> None:
        super().__init__(
            system_properties={"model_dir": str(WEIGHTS), "gpu_id": gpu}, model_yaml_config={"threads": 1}, status={}
        )
        self.headers = headers

    def get_all_request_header(self, index: int) -> dict:
        return self.headers[index] if self.headers else {}

    def set_response_status(self, code: int, phrase: str, idx: int) -> None:
        self.status[idx] = code, phrase

    def set_response_content_type(self, index: int, value: str) -> None:
        assert value == "application/json"


@pytest.fixture(scope="module")
def detect():
    handler = DetectorHandler()
    handler.initialize(Context())
    return handler


@pytest.fixture(scope="module")
def grade():
    handler = GraderHandler()
    handler.initialize(Context())
    return handler


@pytest.fixture(scope="module")
def detection(detect, sample) -> bytes:
    return detect.handle([{"body": bytearray(sample)}], Context())[0]


def test_film_to_grades(grade, detection):
    context = Context()

    reply = json.loads(grade.handle([{"body": bytearray(detection)}], context)[0])

    assert reply["status"] == "ok"
    assert context.status == {}
    assert [(knee["knee"], knee["status"]) for knee in reply["knees"]] == [("R", "graded"), ("L", "graded")]
    assert "crop" not in reply["knees"][0]
    assert set(reply["model"]) == {"detector", "grader"}


def test_the_library_answers_as_the_handlers_do(grade, detection, service, sample):
    context = Context(headers=[{"X-Kneeoa-Explain": "KL,FM"}])

    (reply,) = grade.handle([{"body": bytearray(detection)}], context)

    assert service.grade(sample, explain=["KL", "FM"]).message == json.loads(reply)


def test_a_detection_that_torchserve_already_parsed_is_graded_alike(grade, detection):
    raw, parsed = grade.handle([{"body": detection}, {"body": json.loads(detection)}], Context())

    assert raw == parsed


def test_bad_items_answer_for_themselves_and_leave_the_batch_unharmed(detect, sample):
    context = Context()
    rows = [{"body": b""}, {"body": sample}, {}, {"body": b"not an image"}, {"body": sample[:5000]}, {"data": sample}]

    replies = [json.loads(reply) for reply in detect.handle(rows, context)]

    codes = [reply["error"] and reply["error"]["code"] for reply in replies]
    assert codes == ["empty_body", None, "empty_body", "unsupported_media_type", "corrupt_image", None]
    assert {i: status for i, (status, _) in context.status.items()} == {0: 400, 2: 400, 3: 415, 4: 422}
    assert replies[1]["knees"] == replies[5]["knees"]


def test_a_detector_error_passes_the_grader_untouched(detect, grade):
    failed = detect.handle([{"body": b"not an image"}], Context())[0]

    reply = json.loads(grade.handle([{"body": failed}], Context())[0])

    assert reply["status"] == "error"
    assert reply["error"] == json.loads(failed)["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"schema": "other"}',
        b"[" * 100_000,
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [{"knee": "R", "status": "found", "crop": "!"}]}).encode(),
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [{"knee": "R", "status": "found"}]}).encode(),
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [{"knee": 1, "status": "found"}]}).encode(),
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [{"knee": [], "status": {}}]}).encode(),
        json.dumps({"schema": DETECTION_SCHEMA, "knees": {}}).encode(),
        # what fuzzing found
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [], "model": True}).encode(),
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [], "status": "error"}).encode(),
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [], "status": "error", "error": {"code": 1}}).encode(),
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [], "error": {}}).encode(),
        json.dumps({"schema": DETECTION_SCHEMA, "knees": [], "film": {"width": float("nan")}}).encode(),
    ],
)
def test_the_grader_answers_nonsense_with_a_code_and_grades_its_neighbour(grade, detection, body):
    bad, good = (json.loads(r) for r in grade.handle([{"body": body}, {"body": detection}], Context()))

    assert bad["status"] == "error"
    assert 400 <= bad["error"]["http_status"] < 500
    assert good["status"] == "ok"


@pytest.mark.parametrize("name", KILLERS)
def test_nothing_that_killed_a_grader_harms_it_or_its_neighbour(grade, detection, name):
    context = Context()

    bad, good = (json.loads(r) for r in grade.handle([{"body": KILLERS[name]}, {"body": detection}], context))

    assert bad["error"]["code"] in ("bad_request", "empty_body")
    assert context.status == {0: (400, bad["error"]["code"])}
    assert good["status"] == "ok"


@pytest.mark.parametrize("body", [8_000_000_000, 1.5, -1, float("nan"), True])
def test_a_number_is_no_film(detect, body):
    (reply,) = detect.handle([{"body": body}], Context())

    assert json.loads(reply)["error"]["code"] == "bad_request"


def test_a_film_that_is_too_expensive_is_an_answer_and_its_neighbour_is_graded(detect, sample):
    context = Context()
    bomb = BOMBS["JPEG of 1000 scans in DICOM"]()

    bad, good = (json.loads(r) for r in detect.handle([{"body": bomb}, {"body": sample}], context))

    assert bad["error"]["code"] == "too_expensive"
    assert context.status == {0: (422, "too_expensive")}
    assert [knee["status"] for knee in good["knees"]] == ["found", "found"]


@pytest.mark.parametrize("shape", [(16384, 64), (64, 16384), (16384, 70)])
def test_a_strip_of_noise_costs_the_detector_nothing(detect, rng, shape):
    """64 × 16384 took 20 s, and the two columns of one are searched no more than a film."""
    strip = make_dicom(rng.integers(0, 4096, shape, np.uint16), bits=12)
    began = time.process_time()

    (reply,) = detect.handle([{"body": strip}], Context())

    assert {knee["status"] for knee in json.loads(reply)["knees"]} <= {"not_found"}
    assert time.process_time() - began < 3


@pytest.mark.parametrize("value", ["left", "X", ""])
def test_a_side_that_is_none_is_refused(detect, sample, value):
    (reply,) = detect.handle([{"body": sample}], Context(headers=[{"X-Knee-Side": value}]))

    assert json.loads(reply)["error"]["code"] == "bad_request"


def test_a_view_from_the_side_is_rejected_unless_asked_for(detect, sample):
    film = pydicom.dcmread(BytesIO(sample))
    film.ViewPosition = "LL"
    film.save_as(lateral := BytesIO())
    context = Context(headers=[{}, {"X-Kneeoa-Any-View": "yes"}, {"X-Kneeoa-Any-View": "1"}])

    plain, asked, refused = map(json.loads, detect.handle([{"body": lateral.getvalue()}] * 3, context))

    assert [(knee["status"], knee["reason"]) for knee in plain["knees"]] == [("rejected", "not_frontal")]
    assert [knee["status"] for knee in asked["knees"]] == ["found", "found"]
    assert refused["error"]["code"] == "bad_request"


def test_an_unforeseen_failure_is_an_answer_without_its_text(detect, sample, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("SECRET^PATIENT")

    monkeypatch.setattr(detect.detector, "detect", fail)

    (reply,) = detect.handle([{"body": sample}], Context())

    assert json.loads(reply)["error"]["code"] == "internal_error"
    assert b"SECRET" not in reply
    assert "SECRET" not in caplog.text
    assert "RuntimeError" in caplog.text


def test_heat_maps_come_for_those_who_ask_and_only_for_them(grade, detection):
    asked = [{}, {"X-Kneeoa-Explain": "KL, JSN_M"}, {"X-Kneeoa-Explain": "KL,knee"}]
    context = Context(headers=asked)

    plain, explained, refused = map(json.loads, grade.handle([{"body": detection}] * 3, context))

    assert not any("explanations" in knee for knee in plain["knees"])
    for knee, same in zip(explained["knees"], plain["knees"], strict=True):
        explanations = knee.pop("explanations")
        assert list(explanations["heat"]) == ["KL", "JSN_M"]
        assert decode_png(explanations["heat"]["KL"]).max() == 255
        assert knee == same
    assert (refused["status"], refused["error"]["code"]) == ("error", "bad_request")
    assert context.status == {2: (400, "bad_request")}


def test_the_figure_comes_for_those_who_ask(detect, grade, sample):
    context = Context(headers=[{"X-Kneeoa-Figure": "png"}, {}, {"X-Kneeoa-Figure": "pdf"}])
    asked, plain, refused = map(json.loads, detect.handle([{"body": sample}] * 3, context))
    assert ("preview" in asked, "preview" in plain) == (True, False)
    assert refused["error"]["code"] == "bad_request"
    height, width = decode_png(asked["preview"]["film"]).shape
    assert (height, width) == (asked["film"]["height"], asked["film"]["width"])

    handmade = {**asked, "preview": {"film": "no PNG", "scale": 0.5}}
    giant = {**asked, "knees": [{**knee, "main_joint": [0, 0, 1e5, 1e5]} for knee in asked["knees"]]}
    bodies = [{"body": json.dumps(message).encode()} for message in (asked, plain, handmade, giant)]
    drawn, without, failed, refused = map(json.loads, grade.handle(bodies, Context()))

    page = decode_png(drawn.pop("figure"))
    assert page.shape == (990, 1760)
    assert page.std() > 20
    assert all(list(knee.pop("explanations")["heat"]) == ["KL"] for knee in drawn["knees"])
    assert drawn == without
    assert failed["status"] == "ok"
    assert failed["figure"] is None
    assert refused["figure"] is None


def test_the_grader_takes_the_gpu_torchserve_assigns_where_there_is_one(monkeypatch, grader):
    asked = []
    monkeypatch.setattr(
        "handlers.grader_handler.Grader.from_file", lambda _, *, device, compiled: asked.append(device) or grader
    )

    for available, gpu in [(True, 1), (True, None), (False, 0)]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda available=available: available)
        GraderHandler().initialize(Context(gpu=gpu))

    assert asked == [torch.device("cuda", 1), torch.device("cpu"), torch.device("cpu")]


def test_no_reply_is_faster_than_the_floor_that_both_archives_set():
    for handler, name in ((DetectorHandler(), "detector"), (GraderHandler(), "grader")):
        context = Context()
        context.model_yaml_config = yaml.safe_load((ROOT / f"handlers/{name}.yaml").read_text())
        handler.initialize(context)
        began = time.monotonic()

        handler.handle([{"body": b""}], context)

        assert context.model_yaml_config["least_seconds"] == 0.02
        assert time.monotonic() - began >= 0.02
