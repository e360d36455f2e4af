import base64
import re

import numpy as np
import pytest

from kneeoa import errors
from kneeoa.errors import BY_CODE, CorruptImage, KneeOaError
from kneeoa.incoming import DETECTION
from kneeoa.messages import DetectedKnee, decode_png, encode_png
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
