"""Every answer, whatever became of the film, is of the schema that comes with the package."""

import json
from importlib import import_module
from io import BytesIO
from pkgutil import walk_packages
from types import SimpleNamespace
from typing import get_args, get_type_hints

import jsonschema
import numpy as np
import pytest
from pydicom import Dataset, dcmread

import kneeoa_cli
import kneeoa_client
from deploy.gateway.launcher import REFUSALS, refusal
from handlers.grader_handler import GraderHandler
from kneeoa.disclaimer import DISCLAIMER
from kneeoa.errors import BY_CODE, KneeOaError
from kneeoa.messages import DETECTION_SCHEMA, REPLY_SCHEMA, encode_png, envelope
from kneeoa.remarks import WORDS
from kneeoa.schemas import schemas, text_of
from kneeoa.torchserve.metrics import Telemetry
from kneeoa.wire import Film, Reply
from tests.conftest import ROOT
from tests.unit.dicom_factory import gradient, make_dicom

PACKAGE = ROOT / "model_src/kneeoa"
REPLY, DETECTION = (json.loads((PACKAGE / f"{name}.schema.json").read_text()) for name in ("reply", "detection"))
KEYS = {"schema", "status", "error", "knees", "film", "model", "disclaimer"}


def check(reply: dict) -> dict:
    """An answer that is of the schema, and has no key that only a detection has."""
    jsonschema.validate(reply, REPLY)
    assert set(reply) - {"figure"} == KEYS
    assert not any("crop" in knee for knee in reply["knees"])
    return reply


def kinds_of(base: type) -> list[type]:
    return [kind for each in base.__subclasses__() for kind in (each, *kinds_of(each))]


def test_the_files_are_what_the_types_say():
    assert {path: path.read_text() for path in schemas()} == {path: text_of(s) for path, s in schemas().items()}


def test_the_types_know_the_schema_and_every_warning():
    assert get_args(get_type_hints(Reply)["schema"]) == (REPLY_SCHEMA,)
    named = {word for part in REPLY["$defs"].values() for word in json.dumps(part).split('"') if word in WORDS}
    assert named == set(WORDS)
    assert set(get_type_hints(Film)) == set(REPLY["$defs"]["Film"]["required"])


@pytest.mark.parametrize("name", ["bilateral", "moderate_oa"])
def test_graded_films(service, name):
    film = ROOT / f"samples/{name}.dcm"

    plain, explained = (check(service.grade(film, explain=tasks).message) for tasks in ((), ("KL", "FM")))

    assert plain["status"] == "ok"
    assert plain["disclaimer"] == DISCLAIMER
    assert not any("explanations" in knee for knee in plain["knees"])
    assert all(set(knee["explanations"]["heat"]) == {"KL", "FM"} for knee in explained["knees"])


def tagged(sample: bytes, keyword: str, value: str) -> Dataset:
    film = dcmread(BytesIO(sample))
    setattr(film, keyword, value)
    return film


def test_films_that_are_graded_in_part_or_not_at_all(service, sample, rng):
    noise = make_dicom(rng.integers(0, 4096, (400, 300), np.uint16), bits=12)

    films = [tagged(sample, "ImageLaterality", "R"), tagged(sample, "ViewPosition", "LL"), noise, b"no film"]

    in_part, rejected, nothing, broken = (check(reply.message) for reply in service.grade_many(films))

    assert in_part["status"] == "partial"
    assert [knee["knee"] for knee in in_part["knees"]] == ["unknown", "unknown"]
    assert (rejected["status"], rejected["knees"][0]["reason"]) == ("not_found", "not_frontal")
    assert nothing["status"] == "not_found"
    assert (broken["status"], broken["film"], broken["knees"]) == ("error", None, [])
    assert set(broken["model"]) == {"detector", "grader"}


@pytest.mark.parametrize("kind", [KneeOaError, *BY_CODE.values()])
def test_every_error_of_the_service(kind):
    check(envelope(REPLY_SCHEMA, kind()))
    failed = envelope(DETECTION_SCHEMA, kind(), model={"detector": {"version": "1", "sha256": "0"}})
    jsonschema.validate(failed, DETECTION)
    assert set(failed) == KEYS


def test_every_error_of_the_client_and_of_the_gateway():
    for package in (kneeoa_client, kneeoa_cli):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    import_module("kneeoa.reporting.dicom")
    ours = [kind for kind in kinds_of(KneeOaError) if kind.__module__.startswith("kneeoa")]

    replies = [check(envelope(REPLY_SCHEMA, kind())) for kind in ours]
    replies += [check(json.loads(refusal(name))) for name in REFUSALS]

    codes = {reply["error"]["code"] for reply in replies}
    assert codes >= {"server_failed", "unreadable_file", "no_dicom_study", "busy", "unauthorized"}
    documented = (ROOT / "docs/api.md").read_text()
    assert all(f"`{code}`" in documented for code in codes)


def test_a_grader_that_is_asked_by_hand(grader):
    """By a detection that says the least, by nonsense, and when its network fails."""
    handler = GraderHandler()
    handler.grader, handler.least_seconds = grader, 0
    context = SimpleNamespace(
        model_name="grader",
        get_all_request_header=lambda _: {},
        set_response_status=lambda **_: None,
        set_response_content_type=lambda *_: None,
    )
    handler.telemetry = Telemetry(context, "grader", grader.identity)
    crop = encode_png(gradient(bits=8).astype(np.uint8))
    least = {"schema": DETECTION_SCHEMA, "knees": [{"knee": "R", "status": "found", "crop": crop}]}
    bodies = [{"body": json.dumps(least).encode()}, {"body": b"nonsense"}]

    graded, refused = (check(json.loads(reply)) for reply in handler.handle(bodies, context))
    handler.grader = SimpleNamespace(
        members=grader.members,
        identity=grader.identity,
        provenance=grader.provenance,
        runtime=grader.runtime,
        grade=lambda *_: 1 / 0,
    )
    failed, _ = (check(json.loads(reply)) for reply in handler.handle(bodies, context))

    assert (graded["status"], graded["model"]["detector"]) == ("ok", None)
    assert graded["knees"][0]["box"] is None
    assert refused["error"]["code"] == "bad_request"
    assert failed["error"]["code"] == "internal_error"


def test_a_detection_is_of_its_schema(service, sample):
    detection = service._detection(sample, SimpleNamespace(spacing_mm=None, side=None, any_view=False))

    jsonschema.validate(detection, DETECTION)
    assert set(detection) == KEYS
