from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from kneeoa.errors import NotARadiograph
from kneeoa.imaging import decode, prepare
from kneeoa.imaging.radiograph import as_levels

SHARED = Path(__file__).parents[3] / "shared/data/dicom"


def _film(bilateral, collimation=None, depth=0.1, across="lt"):
    """Bright bones in grey legs on dark air; ``collimation`` is the grey level of a border at the left/right or top."""
    h, w = 400, 640 if bilateral else 310
    y, x = np.mgrid[:h, :w]
    film = np.full((h, w), 0.06)
    for knee in (w / 4, 3 * w / 4) if bilateral else (w / 2,):
        film[abs(x - knee) < 0.17 * h + 0.03 * h * np.sin(y / h * 6)] = 0.35
        bone = abs(x - knee) < 0.07 * h + 0.05 * h * np.exp(-(((y - h / 2) / (0.12 * h)) ** 2))
        film[bone & (abs(y - h / 2) > 0.01 * h)] = 0.75
    film = cv2.GaussianBlur(film, (0, 0), 2) + np.random.default_rng(0).normal(0, 0.02, film.shape)
    if collimation is not None:
        d = round(depth * h)
        field = np.zeros((h, w))
        field[
            d if "t" in across else 0 : h - d if "t" in across else h,
            d if "l" in across else 0 : w - d if "l" in across else w,
        ] = 1
        field = cv2.GaussianBlur(field, (0, 0), 5)  # the penumbra
        film = field * film + (1 - field) * collimation
    return (1000 * film).astype(np.float32)


FILMS = [(b, None, 0.0, "") for b in (False, True)] + list(
    product((False, True), (0.0, 1.0), (0.03, 0.1, 0.2), ("l", "t", "lt"))
)


@pytest.mark.parametrize("shape", FILMS)
def test_undeclared_polarity_is_found_whatever_the_collimation(shape):
    film = _film(*shape)

    kept, kept_rule = prepare.correct_polarity(film, None)
    turned, turned_rule = prepare.correct_polarity(-film, None)

    assert (kept_rule, turned_rule) == ("as_is", "frame_brighter")
    assert kept is film
    assert np.allclose(turned - turned.min(), film - film.min(), atol=0.01)


@pytest.mark.parametrize("shape", FILMS)
def test_a_right_declaration_always_stands(shape):
    film = _film(*shape)

    pixels, rule = prepare.correct_polarity(film, "monochrome1")

    assert rule == "monochrome1"
    assert pixels is film


def test_a_declaration_stands_whatever_the_picture_looks_like():
    film = -_film(True)

    pixels, rule = prepare.correct_polarity(film, "monochrome2")

    assert rule == "monochrome2"
    assert pixels is film


def test_inverting_twice_is_nothing(rng):
    film = rng.normal(0, 1, (5, 7)).astype(np.float32)

    assert np.allclose(prepare.inverted(prepare.inverted(film)), film, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (64, 64)])
def test_a_blank_or_tiny_film_keeps_its_polarity(shape):
    assert prepare.correct_polarity(np.zeros(shape, np.float32), None)[1] == "as_is"


def test_polarity_of_a_real_limb_with_wide_white_collimation():
    path = SHARED / "RG3_J2KR.dcm"
    if not path.exists():
        pytest.skip("the real radiographs in ../shared/data/dicom are not on this machine")
    film = decode(path.read_bytes())

    rules = [
        prepare.correct_polarity(pixels, declared)[1]
        for pixels, declared in (
            (film.pixels, film.polarity),
            (film.pixels, None),
            (prepare.inverted(film.pixels), None),
        )
    ]

    assert rules == ["monochrome1", "as_is", "frame_brighter"]


def test_to_8bit_clips_to_the_5th_and_99th_percentile():
    pixels = np.arange(101, dtype=np.float32).reshape(1, 101)

    image = prepare.to_8bit(pixels)[0]

    assert image.dtype == np.uint8
    assert (image[5], image[52], image[99]) == (0, 128, 255)  # 52 is the middle of 5 … 99: 127.5 rounds to even
    assert not image[:5].any()
    assert (image[99:] == 255).all()


def test_to_8bit_does_not_change_with_brightness_and_contrast():
    pixels = _film(False)

    assert np.abs(prepare.to_8bit(3 * pixels - 500).astype(int) - prepare.to_8bit(pixels)).max() <= 1


def test_to_8bit_survives_values_that_are_not_numbers():
    pixels = np.arange(101, dtype=np.float32).reshape(1, 101)
    holed = np.concatenate([pixels, [[np.nan, np.inf, -np.inf]]], axis=1)

    image = prepare.to_8bit(holed)[0]

    assert image.tolist() == [*prepare.to_8bit(pixels)[0].tolist(), 0, 255, 0]


@pytest.mark.parametrize("pixels", [np.full((80, 80), 7.0), np.full((80, 80), np.nan), np.eye(1000)])
def test_no_contrast_is_not_a_radiograph(pixels):
    with pytest.raises(NotARadiograph):
        prepare.to_8bit(pixels.astype(np.float32))


@pytest.mark.parametrize("scale", [1, 655.0, 1e-6, 1e7])
def test_levels_keep_order_and_distances(scale):
    pixels = scale * np.array([[-20, 0, 1, 40, 80]], np.float32)

    levels = as_levels(pixels).astype(int)[0]

    assert levels[0] == 0
    assert 32_000 < levels[-1] < 65_536
    assert levels / levels[-1] == pytest.approx([0, 0.2, 0.21, 0.6, 1], abs=1e-4)


def test_stored_integers_are_their_own_levels():
    stored = np.array([[3, 65535]], np.uint16)

    assert as_levels(stored) is stored


def test_equalize_is_the_global_histogram_equalisation():
    image = np.repeat(np.array([10, 20, 30, 40], np.uint8), 100).reshape(20, 20)

    assert np.unique(prepare.equalize(image)).tolist() == [0, 85, 170, 255]


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_the_table_of_a_film_is_its_percentiles_and_its_histogram(kind):
    """One look-up table gives what clipping, stretching and OpenCV's equalisation give one after the other."""
    pixels = np.rint(_film(True).clip(0)).astype(kind)
    low, high = np.percentile(pixels, prepare.CLIP_PERCENTILES)
    stretched = np.rint((pixels.clip(low, high) - low) * 255 / (high - low)).astype(np.uint8)

    assert np.abs(prepare.to_8bit(pixels).astype(int) - stretched).max() <= 1
    assert np.abs(prepare.equalize(stretched).astype(int) - cv2.equalizeHist(stretched)).max() <= 1
    difference = np.abs(prepare.prepare_single(pixels).astype(int) - cv2.equalizeHist(stretched))
    assert difference.mean() < 0.5
    assert difference.max() <= 8


@pytest.mark.parametrize(
    ("width", "overlap", "expected"),
    [
        (10, 0.0, ((0, 5), (5, 10))),
        (11, 0.0, ((0, 6), (5, 11))),
        (100, 0.05, ((0, 55), (45, 100))),
        (101, 0.05, ((0, 56), (45, 101))),
    ],
)
def test_split_bilateral(width, overlap, expected):
    assert prepare.split_bilateral(width, overlap) == expected


@pytest.mark.parametrize("overlap", [-0.1, 0.5])
def test_split_bilateral_refuses_a_senseless_overlap(overlap):
    with pytest.raises(ValueError, match="overlap"):
        prepare.split_bilateral(100, overlap)


@pytest.mark.parametrize(("h", "w", "expected"), [(100, 80, True), (100, 79, False), (100, 120, True)])
def test_looks_bilateral(h, w, expected):
    assert prepare.looks_bilateral(h, w) is expected


def test_each_half_is_prepared_by_itself():
    film = 10 * np.rint(_film(True).clip(0)).astype(np.uint16)
    left, right = prepare.split_bilateral(film.shape[1])
    darker_right = film.copy()
    darker_right[:, slice(*right)] //= 10

    images = [prepare.prepare_single(darker_right, columns) for columns in (left, right)]

    assert images[0].shape == (400, 320)
    for image, columns in zip(images, (left, right), strict=True):
        assert np.abs(image.astype(int) - prepare.prepare_single(film[:, slice(*columns)])).max() <= 1


def test_a_strip_is_not_a_radiograph():
    with pytest.raises(NotARadiograph, match="10 times"):
        prepare.prepare_single(np.random.default_rng(0).random((64, 16384), np.float32))


@pytest.mark.parametrize(("shape", "columns"), [((63, 200), None), ((200, 63), None), ((200, 126), (0, 63))])
def test_too_small_is_not_a_radiograph(shape, columns):
    pixels = np.random.default_rng(0).random(shape, np.float32)

    with pytest.raises(NotARadiograph, match="64 pixels"):
        prepare.prepare_single(pixels, columns)
