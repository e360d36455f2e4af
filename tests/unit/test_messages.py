import base64
import re

import numpy as np
import pytest

from kneeoa import errors
from kneeoa.errors import BY_CODE, BadRequest, CorruptImage, KneeOaError
from kneeoa.geometry import KEY_POINTS, Box, KeyPoints
from kneeoa.incoming import DETECTION
from kneeoa.messages import (
    DETECTION_SCHEMA,
    MAX_CROP,
    REPLY_SCHEMA,
    DetectedKnee,
    decode_png,
    encode_png,
    envelope,
    parse_side,
    parse_tasks,
    preview_of,
    shown_as,
)
from kneeoa.remarks import FILM_WARNINGS, KNEE_WARNINGS, REASONS
from kneeoa.tasks import Laterality
from tests.conftest import ROOT


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


def _documented(row: str) -> list[str]:
    """The codes in a row of the table of a reply's fields."""
    (line,) = [line for line in (ROOT / "docs/api.md").read_text().splitlines() if line.startswith(f"| {row}")]
    return re.findall(r"`([a-z_]+)`", line.split("|")[2])


def test_reasons_and_warnings_are_one_list_in_code_schema_and_docs():
    knee, film = DETECTION["properties"]["knees"]["items"]["properties"], DETECTION["properties"]["film"]["properties"]
    statuses = {"graded", "not_found", "rejected"}

    assert knee["reason"]["enum"] == [None, *REASONS]
    assert film["warnings"]["items"]["enum"] == list(FILM_WARNINGS)
    assert set(_documented("`knees[].status`, `reason`")) - statuses == set(REASONS)
    assert set(_documented("`film.warnings`")) - {"unknown"} == set(FILM_WARNINGS)
    assert set(KNEE_WARNINGS) <= set(_documented("`knees[].oa_kl_consistent`, `warnings`"))
    assert {reason.upper() for reason in REASONS} <= set(
        re.findall(r"`([A-Z_]+)`", (ROOT / "docs/dicom.md").read_text())
    )


def test_the_detector_says_all_that_is_listed_and_nothing_else():
    source = "".join(path.read_text() for path in (ROOT / "model_src/kneeoa/detection").glob("*.py"))

    assert not [word for word in (*REASONS, *FILM_WARNINGS) if f'"{word}"' not in source]
    with pytest.raises(ValueError, match="reason"):
        DetectedKnee(Laterality.RIGHT, "position", False, "rejected", "mood")


def test_a_found_knee_in_words(rng):
    knee = DetectedKnee(
        Laterality.RIGHT,
        "request",
        True,
        "found",
        score=0.98765,
        box=Box(1.004, 2, 3.006, 4),
        key_points=KeyPoints(tuple((i + 0.126, i + 0.5) for i in range(6))),
        main_joint=Box(1, 2.118, 3, 4),
        crop=rng.integers(0, 255, (3, 4), np.uint8),
    )

    told = knee.to_json()

    assert (told["knee"], told["side_source"], told["mirrored"], told["status"]) == ("R", "request", True, "found")
    assert (told["score"], told["box"], told["main_joint"]) == (0.9877, [1.0, 2.0, 3.01, 4.0], [1.0, 2.12, 3.0, 4.0])
    assert list(told["key_points"]) == list(KEY_POINTS)
    assert told["key_points"]["femur_notch"] == [1.13, 1.5]
    assert (decode_png(told["crop"]) == knee.crop).all()


def test_a_knee_that_was_not_found_in_words():
    told = DetectedKnee(Laterality.UNKNOWN, "unknown", False, "not_found", "no_knee_like_region", score=0.0).to_json()

    assert told["score"] == 0.0
    assert [told[name] for name in ("box", "key_points", "main_joint", "crop")] == [None] * 4


def test_every_answer_has_the_same_shape():
    failed = envelope(DETECTION_SCHEMA, CorruptImage("damaged"))
    answer = envelope(REPLY_SCHEMA, film={"width": 1}, model={"grader": "ours"})

    assert failed["error"] == {"code": "corrupt_image", "message": "damaged", "stage": "decode", "http_status": 422}
    assert (failed["status"], failed["knees"], failed["film"]) == ("error", [], None)
    assert failed["model"] == {"detector": None}
    assert (answer["status"], answer["error"], answer["film"]) == ("ok", None, {"width": 1})
    assert answer["model"] == {"detector": None, "grader": "ours"}


@pytest.mark.parametrize(
    ("side", "mirrored", "looks"), [("R", False, "R"), ("R", True, "L"), ("unknown", True, "unknown")]
)
def test_a_mirrored_knee_looks_like_the_other_one(side, mirrored, looks):
    assert shown_as({"knee": side, "mirrored": mirrored}).value == looks
    assert shown_as({"knee": side}).value == side


@pytest.mark.parametrize(("shape", "scale", "small"), [((700, 2800), 0.5, (350, 1400)), ((1400, 90), 1, (1400, 90))])
def test_a_preview_is_as_large_as_the_figure_needs(rng, shape, scale, small):
    film = rng.integers(0, 255, shape, np.uint8)

    preview = preview_of(film)

    assert preview["scale"] == scale
    assert decode_png(preview["film"]).shape == small
    if scale < 1:  # the mean of each four pixels
        means = film.reshape(350, 2, 1400, 2).mean((1, 3))
        assert np.abs(decode_png(preview["film"]) - means).max() <= 0.5
    assert preview_of(np.zeros((2100, 3), np.uint8))["scale"] == 0.666667
    assert preview_of(np.zeros((900, 20), np.uint8))["scale"] == 1


def test_sides_and_tasks_are_asked_for_by_name():
    assert [parse_side(name) for name in (None, "R", "L")] == [None, Laterality.RIGHT, Laterality.LEFT]
    for wrong in ("unknown", "r", ""):
        with pytest.raises(BadRequest, match="X-Knee-Side"):
            parse_side(wrong)
    assert parse_tasks(" KL, FM,,", {}) == {"KL", "FM"}
    assert parse_tasks(None, {}) == parse_tasks("", {}) == set()
    assert parse_tasks(None, {"preview": {"film": ""}}) == {"KL"}
    assert parse_tasks("FM", {"preview": {"film": ""}}) == {"FM"}
    with pytest.raises(BadRequest, match="X-Kneeoa-Explain"):
        parse_tasks("KL,knee", {})


def header(width: int, height: int) -> str:
    """A PNG that says how large it is, and ends there."""
    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(8) + size).decode()


@pytest.mark.parametrize("size", [(0, 9), (9, 0), (MAX_CROP + 1, 9), (9, MAX_CROP + 1)])
def test_a_crop_of_no_size_or_too_large_a_size_is_not_decoded(size):
    with pytest.raises(CorruptImage, match="at most 4096") as caught:
        decode_png(header(*size))

    assert caught.value.stage == "grade"


def test_the_largest_crop_is_decoded():
    with pytest.raises(CorruptImage, match="could not be decoded") as caught:
        decode_png(header(MAX_CROP, MAX_CROP))
    assert caught.value.stage == "grade"

    assert decode_png(encode_png(np.zeros((1, MAX_CROP), np.uint8))).shape == (1, MAX_CROP)
    assert decode_png(encode_png(np.zeros((MAX_CROP, 1), np.uint8))).shape == (MAX_CROP, 1)
