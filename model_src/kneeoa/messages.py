"""What crosses a border, as plain JSON that a person can read: the detector's reply and the grader's reply.

The detector's reply is the grader's request (`kneeoa.incoming`). docs/api.md describes both.
"""

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

import cv2
import numpy as np

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.errors import BadRequest, CorruptImage, KneeOaError
from kneeoa.geometry import KEY_POINTS, Box, KeyPoints
from kneeoa.incoming import DETECTION_SCHEMA as DETECTION_SCHEMA
from kneeoa.incoming import MAX_VALUES, objection
from kneeoa.remarks import REASONS
from kneeoa.tasks import TASKS, Laterality

REPLY_SCHEMA = "kneeoa.reply/1"
NODES = {DETECTION_SCHEMA: ("detector",), REPLY_SCHEMA: ("detector", "grader")}  # whose models a message names
PREVIEW = 1400  # pixels of the longer side: as many as the figure has for a film and its joints
MAX_CROP = 4096  # pixels a side; a larger crop is no main joint of ours

Message = dict[str, Any]


@dataclass(frozen=True)
class DetectedKnee:
    """One expected knee of a film: where it is, or why it is not.

    Attributes
    ----------
    side, side_source : Laterality, str
        ``position``, ``position_swapped``, ``dicom_tag``, ``request`` or ``unknown``.
    mirrored : bool
        Whether the film shows it as a mirror does, so that a right knee looks like a left one.
    status : str
        ``found``, ``not_found`` or ``rejected``.
    reason : str or None
        Why it was not found or was rejected: one of `REASONS`.
    score : float or None
        Knee probability of level 2.
    box, key_points, main_joint
        In film pixels.
    crop : ndarray or None
        The main joint, uint8 (h, w), as displayed: neither mirrored nor split.
    """

    side: Laterality
    side_source: str
    mirrored: bool
    status: str
    reason: str | None = None
    score: float | None = None
    box: Box | None = None
    key_points: KeyPoints | None = None
    main_joint: Box | None = None
    crop: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.reason is not None and self.reason not in REASONS:
            raise ValueError("the reason is not one of REASONS")

    def to_json(self) -> Message:
        return {
            "knee": self.side.value,
            "side_source": self.side_source,
            "mirrored": self.mirrored,
            "status": self.status,
            "reason": self.reason,
            "score": _rounded(self.score, 4),
            "box": _rounded(self.box and self.box.as_tuple()),
            "key_points": self.key_points and dict(zip(KEY_POINTS, map(_rounded, self.key_points.points), strict=True)),
            "main_joint": _rounded(self.main_joint and self.main_joint.as_tuple()),
            "crop": None if self.crop is None else encode_png(self.crop),
        }


def _rounded(value: Any, digits: int = 2) -> Any:
    if isinstance(value, float | int):
        return round(float(value), digits)
    return value and [round(float(v), digits) for v in value]


def envelope(schema: str, error: KneeOaError | None = None, **content: Any) -> Message:
    """The shape of every answer, whatever became of the request: what ``content`` does not say is null, or empty."""
    problem = error and {
        "code": error.code,
        "message": str(error),
        "stage": error.stage,
        "http_status": error.http_status,
    }
    status = "error" if error else "ok"
    content = {"knees": [], "film": None, **content}
    content["model"] = dict.fromkeys(NODES[schema]) | content.get("model", {})
    return {"schema": schema, "status": status, "error": problem, **content, "disclaimer": DISCLAIMER}


def parse_detection(body: bytes) -> Message:
    """A grader request: the detector's reply, or a hand-made one with crops.

    Raises
    ------
    BadRequest
        If it is not JSON of the schema.
    """
    if sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:  # before Python makes an object of each
        raise BadRequest("the detection holds more values than the grader accepts", stage="grade")
    try:
        message = json.loads(body, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise BadRequest("the grader expects the detector's JSON reply", stage="grade") from None
    if problem := objection(message):
        raise BadRequest(problem, stage="grade")
    return message


def shown_as(knee: Message) -> Laterality:
    """The side a knee looks like: R where its lateral compartment lies at the image's left, L where at its right."""
    side = Laterality(knee["knee"])
    return side.other if knee.get("mirrored") else side


def preview_of(film: np.ndarray) -> Message:
    """A film, uint8 (h, w), in the size that the figure needs: a base64 PNG, and its pixels a pixel of the film."""
    scale = min(PREVIEW / max(film.shape), 1.0)
    small = cv2.resize(film, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else film
    return {"film": encode_png(small), "scale": round(scale, 6)}


def parse_side(named: str | None) -> Laterality | None:
    """The side that a request names, if it does.

    Raises
    ------
    BadRequest
        If it is neither R nor L.
    """
    if named not in (None, "R", "L"):
        raise BadRequest("the knee's side (header X-Knee-Side) must be R or L")
    return None if named is None else Laterality(named)


def parse_tasks(named: str | None, message: Message) -> frozenset[str]:
    """The tasks that a request names, ``KL,FM``; without one none, or KL where a figure is to be drawn.

    Raises
    ------
    BadRequest
        If it names anything else.
    """
    asked = named or ("KL" if message.get("preview") else "")
    tasks = frozenset(name.strip() for name in asked.split(",") if name.strip())
    if tasks - {task.name for task in TASKS}:
        raise BadRequest(
            "the tasks to explain (header X-Kneeoa-Explain) must be names of tasks, as in KL,FM", stage="grade"
        )
    return tasks


def _refuse(constant: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not valid JSON")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        _refuse(number)
    return value


def encode_png(image: np.ndarray) -> str:
    """uint8 (h, w) → base64 PNG."""
    return base64.b64encode(cv2.imencode(".png", image)[1].tobytes()).decode("ascii")


def decode_png(text: str) -> np.ndarray:
    """base64 PNG → uint8 (h, w); sizes are read from the header before anything is decoded.

    Raises
    ------
    CorruptImage
        If it is no PNG of at most 4096² pixels.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = b""
    width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
    if data[:8] != b"\x89PNG\r\n\x1a\n" or not (0 < width <= MAX_CROP and 0 < height <= MAX_CROP):
        raise CorruptImage("a crop must be a base64 PNG of at most 4096 × 4096 pixels", stage="grade")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise CorruptImage("a crop could not be decoded", stage="grade")
    return image
