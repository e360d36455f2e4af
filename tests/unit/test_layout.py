from dataclasses import replace

import numpy as np
import pytest

from kneeoa.detection.layout import Place, half_sides, in_conflict, place_among_two, single_side
from kneeoa.geometry import Box
from kneeoa.imaging import Radiograph
from kneeoa.tasks import Laterality

R, L, UNKNOWN = Laterality.RIGHT, Laterality.LEFT, Laterality.UNKNOWN
FILM = Radiograph(
    pixels=np.zeros((64, 64), np.float32),
    spacing_mm=None,
    polarity="monochrome2",
    laterality=UNKNOWN,
    rows_run_to_right=False,
    source="dicom",
    transfer_syntax=None,
    bits=12,
)


def test_sides_of_a_bilateral_film_follow_the_display():
    usual, swapped = (half_sides(replace(FILM, rows_run_to_right=r)) for r in (False, True))

    assert usual == ((R, "position"), (L, "position"))
    assert swapped == ((L, "position_swapped"), (R, "position_swapped"))


@pytest.mark.parametrize(
    ("tag", "requested", "expected"),
    [
        (R, None, (R, "dicom_tag")),
        (R, L, (R, "dicom_tag")),
        (UNKNOWN, L, (L, "request")),
        (UNKNOWN, UNKNOWN, (UNKNOWN, "unknown")),
        (UNKNOWN, None, (UNKNOWN, "unknown")),
    ],
)
def test_side_of_a_single_knee_is_never_guessed(tag, requested, expected):
    assert single_side(replace(FILM, laterality=tag), requested) == expected


@pytest.mark.parametrize(
    ("film", "requested", "seen", "expected"),
    [
        ({}, None, 2, False),
        ({}, L, 1, False),
        ({}, L, 2, True),
        ({"laterality": L}, None, 1, False),
        ({"laterality": L}, None, 2, True),
        ({"bilateral": True}, None, 1, False),
        ({"bilateral": True}, L, 1, True),
        ({"contradictory": True}, None, 0, True),
        ({"contradictory": True}, L, 1, True),
    ],
)
def test_one_side_named_and_two_knees_contradict_each_other(film, requested, seen, expected):
    assert in_conflict(replace(FILM, **film), requested, seen) is expected


ALL = slice(None)


@pytest.mark.parametrize(
    ("x", "columns", "lively", "declared", "expected"),
    [
        (500, ALL, (0.3, 0.7), False, None),  # in the middle
        (250, ALL, (0.0, 0.45), False, None),  # air beside it
        (250, ALL, (0.0, 0.95), False, Place(0, True)),  # something else beside it
        (750, ALL, (0.0, 0.95), False, Place(1, True)),
        (250, slice(0, 500), (0.1, 0.9), False, Place(0, True)),  # the other half is blank
        (700, slice(500, 1000), (0.1, 0.9), False, Place(1, True)),
        (700, slice(450, 1000), (0.1, 0.9), False, None),  # a border
        (650, slice(400, 1000), (0.1, 0.9), True, Place(0, False)),
        (750, ALL, (0.6, 0.9), True, Place(1, True)),
    ],
)
def test_a_knee_seen_alone_leaves_a_gap_where_another_is_expected(x, columns, lively, declared, expected):
    box = Box.square((x, 500), 240)

    assert place_among_two(box, 1000, columns, lively, declared) == expected
