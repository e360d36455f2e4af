"""What a grader's request may hold. Each of `KILLERS` cost version 0.3.0 a worker, a minute, gigabytes or a 500."""

import json
import time
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from kneeoa.errors import BY_CODE, BadRequest, CorruptImage, EmptyBody
from kneeoa.messages import DETECTION_SCHEMA, REPLY_SCHEMA, encode_png, envelope, parse_detection
from kneeoa.torchserve.request import answer, body_of
from tests.corpus import MEBI

PNG = encode_png(np.zeros((40, 80), np.uint8))
FOUND = {"knee": "R", "status": "found", "crop": PNG}


def message(**changes):
    return {"schema": DETECTION_SCHEMA, "knees": [FOUND], **changes}


def failed(**changes):
    error = {"code": "corrupt_image", "message": "damaged", "stage": "decode", "http_status": 422, **changes}
    return message(status="error", knees=[], error=error)


WARNINGS = {"preview": {"film": PNG, "scale": 1}, "film": {"width": 80, "height": 40, "warnings": ["w" * 2 * MEBI]}}
KILLERS = {
    "an impossible HTTP status": json.dumps(failed(http_status=-1)).encode(),
    "an HTTP status of 31 digits": json.dumps(failed(http_status=10**30)).encode(),
    "an HTTP status that is no whole number": json.dumps(failed(http_status=422.0)).encode(),
    "a line break in the code": json.dumps(failed(code="a\r\nX-Evil: 1")).encode(),
    "a code beyond ASCII": json.dumps(failed(code="sch\u00f6n")).encode(),
    "two megabytes of warnings for a figure": json.dumps(message(**WARNINGS)).encode(),
    "a million warnings": json.dumps(message(film={"warnings": ["w"] * MEBI})).encode(),
    "a number that means bytes": 8_000_000_000,
    "a broken number": 1.5,
    "a negative number": -1,
    "not a number": float("nan"),
    "infinity": float("inf"),
    "true": True,
    "nothing": None,
    "a number as text": b"8000000000",
    "infinity by another name": json.dumps(message(film={"depth": "N"})).replace('"N"', "1e400").encode(),
    "minus infinity": json.dumps(message(film={"depth": "N"})).replace('"N"', "-1e400").encode(),
    "a number beyond floats": json.dumps(message(film={"depth": 10**400})).encode(),
}


@pytest.mark.parametrize("name", KILLERS)
def test_two_hundred_bytes_kill_nothing(name):
    tracemalloc.start()
    began = time.process_time()

    with pytest.raises((BadRequest, EmptyBody)) as caught:
        parse_detection(body_of({"body": KILLERS[name]}))

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.http_status == 400
    assert peak < 16 * MEBI
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "change",
    [
        {"knees": [{**FOUND, "score": 2}]},
        {"knees": [{**FOUND, "box": [1, 2, 3]}]},
        {"knees": [{**FOUND, "box": [1, 2, 3, 1e9]}]},
        {"knees": [{**FOUND, "key_points": {"femur_left": [1, 2]}}]},
        {"knees": [{**FOUND, "side_source": "DOE^JOHN"}]},
        {"knees": [{**FOUND, "note": "x" * 257}]},
        {"knees": [{**FOUND, "note\n": 1}]},
        {"knees": [{**FOUND, "note": [[["\x00"]]]}]},
        {"knees": [FOUND] * 3},
        {"status": "fine"},
        {"status": "error"},
        {"error": failed()["error"]},
        {"preview": {"film": PNG, "scale": 0}},
        {"preview": {"film": PNG, "scale": "1"}},
        {"film": {"warnings": "none"}},
        {"film": {"warnings": ["mood"]}},
        {"knees": [{"knee": "R", "status": "rejected", "reason": "mood"}]},
        {"film": {"width": 0}},
        {"model": []},
        {f"x{i}": 1 for i in range(40)},
    ],
)
def test_what_is_outside_the_lists_is_refused_without_being_quoted(change):
    with pytest.raises(BadRequest) as caught:
        parse_detection(json.dumps(message(**change)).encode())

    assert "DOE" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", BY_CODE.values())
def test_every_error_of_the_detector_passes_as_it_is(kind):
    sent = envelope(DETECTION_SCHEMA, kind(), model={"detector": {"version": "1", "sha256": "0"}})

    assert parse_detection(json.dumps(sent).encode()) == sent


def test_a_detection_may_grow_by_fields_that_are_small():
    sent = message(film={"width": 80, "upright": True}, knees=[{**FOUND, "seen": [0.5, {"at": "the left"}]}])

    assert parse_detection(json.dumps(sent).encode()) == sent


def test_many_small_values_are_refused_before_they_become_objects():
    body = b'{"schema":"' + b"[[],[],[]]," * MEBI
    tracemalloc.start()

    with pytest.raises(BadRequest):
        parse_detection(body)

    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MEBI


def test_a_reply_never_holds_a_number_that_json_has_not():
    good = envelope(REPLY_SCHEMA, model={"grader": {}}, film={"depth": 1.5})
    bad = envelope(REPLY_SCHEMA, model={"grader": {}}, film={"depth": float("inf")})
    refused = envelope(REPLY_SCHEMA, CorruptImage(), model={"grader": {}})
    told = {}
    context = SimpleNamespace(
        set_response_status=lambda code, phrase, idx: told.update({idx: (code, phrase)}),
        set_response_content_type=lambda *_: None,
    )

    first, second, third = (json.loads(reply) for reply in answer([good, bad, refused], context))

    assert first == good
    assert second["error"]["code"] == "internal_error"
    assert told == {1: (500, "internal_error"), 2: (422, "corrupt_image")}
    assert third["status"] == "error"
