import numpy as np
import pytest

from kneeoa.imaging import prepare
from kneeoa.imaging.field import blank_half, field_of


def _noise(shape=(90, 120)):
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5, 7.0])
@pytest.mark.parametrize("borders", [(0, 0, 0, 0), (9, 0, 0, 50), (5, 6, 7, 8), (0, 0, 120, 0)])
def test_constant_borders_are_cut_to_the_pixel(borders, value):
    top, bottom, left, right = borders
    film = np.pad(_noise(), ((top, bottom), (left, right)), constant_values=value)

    assert np.array_equal(film[field_of(film)], _noise())


def test_borders_of_several_greys_are_cut_whatever_encloses_what():
    inner = np.pad(_noise(), ((4, 0), (0, 9)), constant_values=0.2)
    film = np.pad(np.pad(inner, ((0, 0), (8, 8)), constant_values=1), ((3, 3), (0, 0)), constant_values=0)

    assert np.array_equal(film[field_of(film)], _noise())


def test_a_blank_film_stays_whole():
    assert field_of(np.zeros((20, 30), np.float32)) == (slice(None), slice(None))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (slice(0, 500), True),
        (slice(500, 1000), True),
        (slice(503, 990), True),
        (slice(400, 1000), False),
        (slice(250, 750), False),
        (slice(None), False),
    ],
)
def test_a_half_is_blank_where_the_field_is_the_other(columns, expected):
    assert blank_half(columns, 1000) is expected


def test_the_polarity_of_an_undeclared_film_is_that_of_its_field():
    film = np.full((200, 120), 0.1, np.float32) + 0.02 * _noise((200, 120))
    film[:, 40:80] = 0.7 + 0.1 * _noise((200, 40))
    bordered = np.pad(film, 150, constant_values=1)

    assert prepare.correct_polarity(bordered, None)[1] == prepare.correct_polarity(film, None)[1] == "as_is"
