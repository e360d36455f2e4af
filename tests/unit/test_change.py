"""How fast joint spaces change, and what is noise."""

import numpy as np
import pytest

from kneeoa_cli.change import NOISE_MM, changes, rate

DATES = ["2020-01-01", "2021-01-01", "2022-01-01"]


def test_a_rate_is_the_slope_in_mm_a_year():
    assert rate(DATES, [4.0, 3.5, 3.0]).mm_a_year == pytest.approx(-0.5, rel=0.01)
    assert rate(DATES, [4.0, None, 3.0]).mm_a_year == pytest.approx(-0.5, rel=0.01)


@pytest.mark.parametrize("widths", [[4.0, None, None], [None] * 3])
def test_one_width_has_no_rate(widths):
    assert rate(DATES, widths) is None
    assert rate(["2020-01-01"] * 2, [4.0, 3.0]) is None


@pytest.mark.parametrize("number", [2, 3])
def test_noise_alone_is_beyond_its_band_in_one_of_twenty(number, rng):
    drawn = [rate(DATES[:number], 4 + rng.normal(0, NOISE_MM, number)) for _ in range(4000)]

    assert np.mean([found.beyond for found in drawn]) == pytest.approx(0.05, abs=0.012)
    assert rate(DATES[:2], [4.0, 3.0]).beyond


def test_knees_of_two_dates_are_put_side_by_side_oldest_first():
    def reply(*knees):
        return {"knees": [{"knee": side, "grades": grades} for side, grades in knees]}

    both = reply(("R", {"KL": 1}), ("L", {"KL": 2}))
    one = reply(("R", {"KL": 3}), ("L", None), ("unknown", {"KL": 0}))
    found = changes([("2022-01-01", "b", one), ("2020-01-01", "a", both), ("", "c", both)])

    assert list(found) == ["R"]
    assert [(visit["date"], visit["film"], visit["knee"]["grades"]["KL"]) for visit in found["R"]] == [
        ("2020-01-01", "a", 1),
        ("2022-01-01", "b", 3),
    ]
    assert changes([("2020-01-01", "a", both), ("2020-01-01", "b", both)]) == {}
