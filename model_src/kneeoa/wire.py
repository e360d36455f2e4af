"""The reply as types, field by field as it is sent; its JSON Schema is generated from them (`kneeoa.schemas`).

docs/api.md says what each field means.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from kneeoa.geometry import KEY_POINTS
from kneeoa.remarks import FILM_WARNINGS, KNEE_WARNINGS, REASONS
from kneeoa.tasks import TASKS, Laterality

SideSource = Literal["position", "position_swapped", "dicom_tag", "request", "unknown"]
Runtime = Literal["eager", "inductor", "openvino"]
Share = Annotated[float, Meta(ge=0, le=1)]
Point = tuple[float, float]  # x, y in film pixels
Corners = tuple[float, float, float, float]  # x1, y1, x2, y2 in film pixels, half-open


def _one_of(names: Iterable[str]) -> Meta:
    return Meta(extra_json_schema={"enum": list(names)})


def _keys(*names: str) -> Meta:
    """Of an object that has exactly these."""
    return Meta(extra_json_schema={"required": list(names), "propertyNames": {"enum": list(names)}})


@dataclass(frozen=True, kw_only=True)
class Error:
    code: Annotated[str, Meta(pattern="^[a-z_]+$")]
    message: str
    stage: Literal["receive", "decode", "prepare", "detect", "grade", "report", "gateway"]
    http_status: Annotated[int, Meta(ge=400, le=599)]


@dataclass(frozen=True, kw_only=True)
class Film:
    width: int
    height: int
    spacing_mm: tuple[float, float] | None  # row, column
    source: Literal["dicom", "raster", "array"]
    transfer_syntax: str | None
    bits: int
    polarity: Literal["monochrome1", "monochrome2", "frame_brighter", "as_is", "inverted_to_find_knees"]
    layout: Literal["bilateral", "single"]
    warnings: list[Annotated[str, _one_of(FILM_WARNINGS)]]


@dataclass(frozen=True, kw_only=True)
class Grade:
    grade: int | None
    probabilities: list[Share] | None
    withheld: Literal["unknown_side"] | None


@dataclass(frozen=True, kw_only=True)
class Explanations:
    to_film: list[tuple[float, float, float]] | None  # two rows
    heat: dict[str, str]  # by task, base64 PNG


@dataclass(frozen=True, kw_only=True)
class Width:
    mm: Annotated[float, Meta(ge=0)] | None  # along the rows; None without a spacing
    px: Annotated[float, Meta(ge=0)]
    ends: tuple[Point, Point]  # on the condyle, on the plateau


@dataclass(frozen=True, kw_only=True)
class Compartment:
    minimum: Width
    fixed: Width  # at a quarter of the condyles' width from their corner


@dataclass(frozen=True, kw_only=True)
class JointSpace:
    lateral: Compartment
    medial: Compartment


@dataclass(frozen=True, kw_only=True)
class Knee:
    knee: Laterality
    side_source: SideSource
    mirrored: bool
    status: Literal["graded", "not_found", "rejected"]
    reason: Annotated[str, _one_of(REASONS)] | None
    score: Share | None
    box: Corners | None
    key_points: Annotated[dict[str, Point], _keys(*KEY_POINTS)] | None
    main_joint: Corners | None
    grades: Annotated[dict[str, Grade], _keys(*(task.name for task in TASKS))] | None
    gate_lateral_share: Share | None
    oa_kl_consistent: bool | None
    warnings: list[Annotated[str, _one_of(KNEE_WARNINGS)]]
    joint_space: JointSpace | None = None
    explanations: Explanations | None = None


@dataclass(frozen=True, kw_only=True)
class DetectorModel:
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Member:
    network: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class GraderModel:
    version: str
    sha256: str
    members: list[Member]
    provenance: dict[str, str]
    runtime: Runtime = "eager"  # what runs the networks


@dataclass(frozen=True, kw_only=True)
class Model:
    detector: DetectorModel | None
    grader: GraderModel | None


@dataclass(frozen=True, kw_only=True)
class Reply:
    schema: Literal["kneeoa.reply/1"]
    status: Literal["ok", "partial", "not_found", "error"]
    error: Error | None
    knees: list[Knee]
    film: Film | None
    model: Model
    disclaimer: str
    figure: str | None = None
