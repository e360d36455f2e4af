import base64

import jsonschema
import numpy as np
import pytest

from kneeoa import errors
from kneeoa.errors import BY_CODE, CorruptImage, KneeOaError
from kneeoa.geometry import KEY_POINTS
from kneeoa.messages import DISCLAIMER, decode_png, encode_png
from kneeoa.tasks import TASKS
from training.evaluate_films import reply_to

NUMBERS = {"type": ["array", "null"], "items": {"type": "number"}}
GRADE = {
    "type": "object",
    "required": ["grade", "probabilities", "withheld"],
    "properties": {"grade": {"type": ["integer", "null"]}, "probabilities": NUMBERS},
    "additionalProperties": {"enum": [None, "unknown_side"]},
}
REASONS = (
    "no_knee_like_region",
    "low_score",
    "implausible_key_points",
    "implausible_size",
    "upside_down",
    "not_frontal",
)
KNEE = {
    "type": "object",
    "properties": {
        "knee": {"enum": ["R", "L", "unknown"]},
        "side_source": {"enum": ["position", "position_swapped", "dicom_tag", "request", "unknown"]},
        "mirrored": {"type": "boolean"},
        "status": {"enum": ["graded", "not_found", "rejected"]},
        "reason": {"enum": [None, *REASONS]},
        "score": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "box": {**NUMBERS, "minItems": 4, "maxItems": 4},
        "main_joint": {**NUMBERS, "minItems": 4, "maxItems": 4},
        "key_points": {"type": ["object", "null"], "required": list(KEY_POINTS), "additionalProperties": NUMBERS},
        "grades": {"type": ["object", "null"], "required": [t.name for t in TASKS], "additionalProperties": GRADE},
        "gate_lateral_share": {"type": ["number", "null"], "minimum": 0, "maximum": 1},
        "oa_kl_consistent": {"type": ["boolean", "null"]},
        "warnings": {"type": "array", "items": {"enum": ["oa_kl_disagree", "compartment_grades_withheld"]}},
    },
    "additionalProperties": False,
}
KNEE["required"] = list(KNEE["properties"])
KNEE["properties"]["explanations"] = {  # where asked for
    "type": "object",
    "properties": {
        "to_film": {"type": ["array", "null"], "minItems": 2, "maxItems": 2, "items": {"minItems": 3, "maxItems": 3}},
        "heat": {"type": "object", "propertyNames": {"enum": [t.name for t in TASKS]}},
    },
    "required": ["to_film", "heat"],
    "additionalProperties": False,
}
REPLY = {
    "type": "object",
    "properties": {
        "schema": {"const": "kneeoa.reply/1"},
        "status": {"enum": ["ok", "partial", "not_found", "error"]},
        "error": {"type": ["object", "null"], "required": ["code", "message", "stage", "http_status"]},
        "film": {"type": ["object", "null"], "required": ["width", "height", "spacing_mm", "polarity", "layout"]},
        "knees": {"type": "array", "items": KNEE},
        "model": {"type": "object", "required": ["grader"]},
        "disclaimer": {"const": DISCLAIMER},
    },
    "additionalProperties": False,
}
REPLY["required"] = list(REPLY["properties"])
REPLY["properties"]["figure"] = {"type": ["string", "null"]}  # where asked for


@pytest.mark.parametrize("name", ["bilateral", "moderate_oa"])
def test_replies_are_of_the_schema(detector, grader, name):
    from tests.conftest import ROOT

    film = (ROOT / f"samples/{name}.dcm").read_bytes()
    reply, explained = (reply_to(film, detector, grader, tasks) for tasks in ((), ("KL", "FM")))

    jsonschema.validate(reply, REPLY)
    assert reply["status"] == "ok"
    assert not any("explanations" in knee for knee in reply["knees"])
    jsonschema.validate(explained, REPLY)
    assert all(set(knee["explanations"]["heat"]) == {"KL", "FM"} for knee in explained["knees"])


def test_a_crop_survives_the_border(rng):
    image = rng.integers(0, 255, (20, 30), np.uint8)

    assert (decode_png(encode_png(image)) == image).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no base64!",
        base64.b64encode(b"GIF89a").decode(),
        base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 8 + (65535).to_bytes(4, "big") * 2).decode(),
        encode_png(np.zeros((20, 30), np.uint8))[:40],
    ],
)
def test_a_bad_crop_is_a_coded_error(text):
    with pytest.raises(CorruptImage):
        decode_png(text)


def test_every_error_has_its_own_code_and_speaks_for_itself():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not KneeOaError]

    assert [kind.code for kind in kinds] == list(BY_CODE)
    assert all(400 <= kind.http_status <= 500 and str(kind()) for kind in kinds)
