"""What a grader's request may hold, as a JSON schema: types, closed lists and sizes. Nothing outside it reaches the grader.

A detection may have more fields than are named here, so that the detector can grow, but none that is large.
"""

from itertools import pairwise
from typing import Any, get_args

from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import extend

from kneeoa.errors import BY_CODE
from kneeoa.geometry import KEY_POINTS
from kneeoa.remarks import FILM_WARNINGS, REASONS
from kneeoa.tasks import Laterality
from kneeoa.wire import SideSource

DETECTION_SCHEMA = "kneeoa.detection/1"
STAGES = ("receive", "decode", "prepare", "detect", "grade")
MAX_VALUES = 4096  # in a message; a detection has some two hundred
MAX_PNG = 24_000_000  # characters: 4096² pixels that cannot be compressed

Schema = dict[str, Any]
_SMALL: Schema = {
    "maxLength": 256,
    "pattern": r"^[^\x00-\x1f\x7f-\x9f]*\Z",
    "minimum": -1e9,
    "maximum": 1e9,
    "maxItems": 32,
    "items": {"$ref": "#/$defs/small"},
    "maxProperties": 32,
    "propertyNames": {"pattern": r"^\w{1,64}\Z"},
    "additionalProperties": {"$ref": "#/$defs/small"},
}
_OTHER: Schema = {key: _SMALL[key] for key in ("maxProperties", "propertyNames", "additionalProperties")}
_WORD: Schema = {"type": "string", "pattern": r"^[a-z0-9_]{1,64}\Z"}
_NUMBER: Schema = {"type": "number", "minimum": -1e6, "maximum": 1e6}
_PNG: Schema = {"type": "string", "maxLength": MAX_PNG}


def _optional(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def _numbers(count: int) -> Schema:
    return {"type": "array", "items": _NUMBER, "minItems": count, "maxItems": count}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": properties, **_OTHER}


_KNEE = {
    **_object(
        knee={"enum": [side.value for side in Laterality]},
        side_source={"enum": [*get_args(SideSource)]},
        mirrored={"type": "boolean", "description": "mirrored must be true or false"},
        status={
            "enum": ["found", "not_found", "rejected"],
            "description": "each knee needs a status: found, not_found or rejected",
        },
        reason={"enum": [None, *REASONS], "description": "a reason must be one of those in docs/api.md"},
        score=_optional({"type": "number", "minimum": 0, "maximum": 1}),
        box=_optional(_numbers(4)),
        main_joint=_optional(_numbers(4)),
        key_points=_optional(_object(KEY_POINTS, **dict.fromkeys(KEY_POINTS, _numbers(2)))),
        crop=_optional(_PNG),
        required=("knee", "status"),
    ),
    "description": "each knee needs a knee field, R, L or unknown, and a status, found, not_found or rejected",
    "if": {"properties": {"status": {"const": "found"}}},
    "then": {
        "required": ["crop"],
        "properties": {"crop": {"type": "string"}},
        "description": "a found knee needs a crop: a base64 PNG of its main joint",
    },
}
_ERROR = {
    "type": "object",
    "required": ["code", "message", "stage", "http_status"],
    "properties": {
        "http_status": {"type": "integer"},
        "stage": {"enum": [*STAGES]},
        "message": {"type": "string", "maxLength": 500},
    },
    "maxProperties": 4,
    "anyOf": [
        {"properties": {"code": {"const": kind.code}, "http_status": {"const": kind.http_status}}}
        for kind in BY_CODE.values()
    ],
    "description": "an error has a code of the list in docs/api.md, the HTTP status that belongs to it, a stage and a message",
}
_FILM = _object(
    width={"type": "integer", "minimum": 1, "maximum": 10**6},
    height={"type": "integer", "minimum": 1, "maximum": 10**6},
    spacing_mm=_optional(_numbers(2)),
    warnings={
        "type": "array",
        "items": {"enum": list(FILM_WARNINGS)},
        "maxItems": 16,
        "description": "warnings must be a list of those in docs/api.md",
    },
)
_PREVIEW = _object(film=_PNG, scale={"type": "number", "exclusiveMinimum": 0, "maximum": 1}, required=("film", "scale"))
DETECTION: Schema = {
    "$defs": {"small": _SMALL},
    **_object(
        schema={
            "const": DETECTION_SCHEMA,
            "description": f"the grader expects a message with schema {DETECTION_SCHEMA}",
        },
        status={"enum": ["ok", "error"]},
        error={},
        film=_optional(_FILM),
        knees={
            "type": "array",
            "maxItems": 2,
            "items": _KNEE,
            "description": "knees must be a list of at most two",
        },
        model={**_object(), "description": "model must be an object"},
        preview=_PREVIEW,
        disclaimer={"type": "string", "maxLength": 500},
        required=("schema", "knees"),
    ),
    "description": f"the grader expects a message with schema {DETECTION_SCHEMA} and a list of knees",
    "if": {"required": ["status"], "properties": {"status": {"const": "error"}}},
    "then": {"required": ["error"], "properties": {"error": _ERROR}},
    "else": {
        "properties": {"error": {"type": "null"}},
        "description": "a message of status error, and no other, has an error",
    },
}
_Strict = extend(  # JSON Schema takes 400.0 for an integer, and TorchServe's protocol does not
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)
_VALIDATOR = _Strict(DETECTION)


def objection(message: Any) -> str | None:
    """What is wrong with a request, in our words, or None."""
    error = next(_VALIDATOR.iter_errors(message), None)
    return None if error is None else _told(error)


def _told(error: ValidationError) -> str:
    said = error.schema.get("description") if isinstance(error.schema, dict) else None
    where = ".".join(str(name) for before, name in pairwise(error.absolute_schema_path) if before == "properties")
    return str(said or f"the grader does not expect this value of {where or 'a field'}")
