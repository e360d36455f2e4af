"""R and L on a film: read where they are clear, whatever their font, and nothing else is."""

from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from kneeoa.detection.markers import Letter, Markers
from kneeoa.geometry import Box
from kneeoa.imaging import decode
from kneeoa.tasks import Laterality
from training.data.knee_kl import read_knee_kl

R, L, UNKNOWN = Laterality.RIGHT, Laterality.LEFT, Laterality.UNKNOWN
FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"  # none is the one that the templates are drawn with
PAIR = [(Box(100, 200, 300, 400), R), (Box(450, 200, 650, 400), L)]
ALONE = Box(200, 200, 400, 400)


@pytest.fixture(scope="module")
def markers() -> Markers:
    return Markers()


def _film(*texts, size=24, font="DejaVuSans-Bold.ttf", angle=0.0, brightness=1.0, plate=False, mirrored=False):
    """A film 760 × 600 with knees' boxes of 200 px, and texts at places (x, y)."""
    film = np.full((600, 760), 0.3, np.float32)
    for centre in (200, 550):
        cv2.rectangle(film, (centre - 60, 0), (centre + 60, 600), 0.6, -1)
    film = cv2.GaussianBlur(film, (0, 0), 15) + np.random.default_rng(0).normal(0, 0.01, film.shape).astype(np.float32)
    for text, x, y in texts:
        paper = Image.new("L", (120, 120))
        ImageDraw.Draw(paper).text((60, 60), text, 255, ImageFont.truetype(str(FONTS / font), size), "mm")
        ink = np.asarray(paper.rotate(angle, Image.Resampling.BICUBIC), np.float32) / 255
        ink = ink[:, ::-1] if mirrored else ink
        if plate:
            tile = np.zeros_like(ink)
            cv2.rectangle(tile, (60 - size // 2,) * 2, (60 + size // 2,) * 2, 1, -1)
            ink = tile - np.minimum(ink, tile)
        part = film[y - 60 : y + 60, x - 60 : x + 60]
        part += ink * (brightness - part)
    return film


def _read(markers, film) -> list[tuple[Laterality, bool]]:
    return [(letter.side, letter.mirrored) for letter in markers.read(film, [box for box, _ in PAIR])]


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("side", [R, L])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"size": 34, "font": "cmss10.ttf"},
        {"size": 21},
        {"angle": 12},
        {"angle": -12, "font": "DejaVuSansMono-Bold.ttf"},
        {"brightness": 0.75},
        {"plate": True, "size": 33},
    ],
    ids=str,
)
def test_letters_are_read_upright_and_mirrored(markers, how, side, mirrored):
    film = _film((side.value, 380, 100), mirrored=mirrored, **how)

    (letter,) = markers.read(film, [box for box, _ in PAIR])

    assert (letter.side, letter.mirrored) == (side, mirrored)
    assert (letter.x, letter.y) == pytest.approx((380, 100), abs=5)


@pytest.mark.parametrize("text", [*"BPKFEAHDNTJ17", "RL", "LEFT", "R 12", "AP"])
def test_other_letters_and_words_are_not(markers, text):
    assert _read(markers, _film((text, 380, 100))) == []
    assert _read(markers, _film((text, 380, 100), mirrored=True)) == []


@pytest.mark.parametrize(
    "how", [{"brightness": 0.4}, {"size": 8}, {"size": 70}, {"angle": 90}, {"angle": 180}], ids=str
)
def test_nor_are_faint_small_large_or_turned_ones(markers, how):
    assert not {(R, False), (R, True)} & set(_read(markers, _film(("R", 380, 100), **how)))


def test_nor_is_anything_within_a_knees_box(markers):
    assert _read(markers, _film(("R", 200, 300))) == []


@pytest.mark.parametrize(
    ("texts", "doubt"),
    [
        ([("R", 90, 100), ("L", 680, 500)], False),
        ([("L", 90, 100), ("R", 680, 500)], True),
        ([("L", 90, 100)], True),
        ([("R", 90, 100)], False),
        ([("L", 90, 100), ("L", 680, 500)], False),  # one of them is another thing
        ([("L", 375, 100)], False),  # between the knees
        ([], False),
    ],
    ids=str,
)
def test_beside_two_knees_letters_must_be_theirs_however_they_lie(markers, texts, doubt):
    for mirrored in (False, True):
        film = _film(*texts, mirrored=mirrored)

        assert markers.doubt(film, PAIR, False) is doubt
        assert not markers.doubt(film, [(box, UNKNOWN) for box, _ in PAIR], False)


def test_a_mirrored_film_of_two_knees_is_doubted(markers):
    film = np.ascontiguousarray(_film(("R", 90, 100), ("L", 680, 500))[:, ::-1])
    shown = [(box.mirrored(film.shape[1]), side) for box, side in reversed(PAIR)]

    assert not markers.doubt(film, shown, False)
    assert markers.doubt(film, [(box, side.other) for box, side in shown], False)


@pytest.mark.parametrize(
    ("side", "mirrored", "swapped", "doubt"),
    [
        (R, False, False, False),
        (L, False, False, True),
        (R, True, False, True),
        (R, True, True, False),
        (L, True, True, True),
    ],
)
def test_of_a_knee_alone_the_letter_must_also_read_as_the_film_is_shown(markers, side, mirrored, swapped, doubt):
    assert markers.doubt(_film(("R", 320, 100), mirrored=mirrored), [(ALONE, side)], swapped) is doubt
    assert not markers.doubt(_film(("R", 600, 100), mirrored=mirrored), [(ALONE, side)], swapped)  # too far away


def test_a_film_without_contrast_has_none(markers):
    assert markers.read(np.zeros((300, 300), np.float32), [Box(50, 50, 150, 150)]) == []


def test_real_films(markers, real_dicoms):
    """Two of the four carry an R on a grey plate, mirrored, as their Patient Orientation says; the others no letter."""
    read = {path.stem: set() for path in real_dicoms}
    for path in real_dicoms:
        film = decode(path.read_bytes())
        for share in (0.15, 0.2, 0.3, 0.4):
            width = share * film.pixels.shape[1]
            for letter in markers.read(film.pixels, [Box(-width, 0, 0, width)]):
                read[path.stem].add((letter.side, letter.mirrored))
                knee = [(Box.square((letter.x - width, letter.y), width), R)]
                assert not markers.doubt(film.pixels, knee, film.rows_run_to_right)
                assert markers.doubt(film.pixels, knee, not film.rows_run_to_right)

    assert read == {"RG1_J2KI": set(), "dx_chest": set(), "RG3_J2KI": {(R, True)}, "RG3_J2KR": {(R, True)}}


def test_what_real_joints_show_is_hardly_ever_a_letter(markers, knee_kl):
    crops = [knee.image().astype(np.float32) for knee in read_knee_kl(knee_kl, "val")[::4]]

    read: list[list[Letter]] = [markers.read(crop, [Box(-crop.shape[1], 0, 0, crop.shape[1])]) for crop in crops]

    assert sum(map(bool, read)) <= 0.01 * len(crops)
