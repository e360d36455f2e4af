"""What must not be graded is said: knees that are turned, cut by the film's edge, or a child's."""

import html
import json
from dataclasses import replace

import numpy as np
import pytest

from kneeoa.detection.cascade import Found
from kneeoa.detection.growth_plates import shows_growth_plates
from kneeoa.detection.scope import out_of_scope, tilt_of
from kneeoa.geometry import KeyPoints
from kneeoa.imaging.inputs import read
from kneeoa.imaging.radiograph import Radiograph
from kneeoa.remarks import WORDS
from kneeoa.tasks import Laterality
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.files.tables import rows_of, table
from kneeoa_cli.html_pages import write_report
from tests.conftest import ROOT
from training.data.knee_kl import read_knee_kl
from training.synthesis.out_of_scope import EDGES, Single, cut, single, with_growth_plates
from training.synthesis.phantom import draw_film

POINTS = KeyPoints(((260, 390), (300, 370), (340, 390), (260, 396), (300, 388), (340, 396)))
WHOLE = slice(0, 800), slice(0, 600)


def on_film(points: KeyPoints, field=WHOLE, **how) -> str | None:
    found = Found(1.0, points.knee_box(), points, **how)
    return out_of_scope(found, (800, 600), field, (1.0, 1.0))


def film_of(pixels: np.ndarray) -> Radiograph:
    return replace(read(np.ascontiguousarray(pixels)), polarity="monochrome2")


@pytest.fixture(scope="module")
def phantom():
    return draw_film(np.random.default_rng(5), spacing_mm=0.8, style="test", sides=[Laterality.RIGHT])


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("degrees", "reason"), [(0, None), (13, None), (15, "rotated"), (40, "rotated")])
def test_a_knee_may_lean_a_little_to_either_side(sign, degrees, reason):
    leaning = POINTS.turned(-sign * degrees)

    assert tilt_of(leaning) == pytest.approx(sign * degrees)
    assert on_film(leaning) == reason


def test_key_points_in_a_wrong_order_are_no_knee_however_they_are_turned():
    xy = POINTS.as_array()

    assert on_film(KeyPoints.from_array(xy[[0, 1, 2, 4, 3, 5]])) == "implausible_key_points"
    assert on_film(KeyPoints.from_array(xy[[3, 1, 5, 0, 4, 2]])) == "implausible_key_points"  # the tibia above


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ((slice(0, 800), slice(259, 600)), None),
        ((slice(0, 800), slice(261, 600)), "cut_off"),
        ((slice(0, 800), slice(0, 339)), "cut_off"),
        ((slice(361, 800), slice(0, 600)), None),
        ((slice(363, 800), slice(0, 600)), "cut_off"),
        ((slice(0, 403), slice(0, 600)), "cut_off"),
    ],
)
def test_a_joint_ends_before_the_exposed_field_does(field, reason):
    assert on_film(POINTS, field) == reason


@pytest.mark.parametrize("degrees", [0, 8, -8])
def test_an_upright_phantom_is_found(detector, phantom, degrees):
    facts, (knee,) = detector.detect(film_of(single(phantom, 0, degrees).pixels))

    assert (knee.status, knee.reason) == ("found", None)
    assert "growth_plates" not in facts["warnings"]


@pytest.mark.parametrize(
    ("degrees", "reason"), [(24, "rotated"), (-45, "rotated"), (90, "rotated"), (180, "upside_down")]
)
def test_a_turned_film_is_told_as_one(detector, phantom, degrees, reason):
    _, knees = detector.detect(film_of(single(phantom, 0, degrees).pixels))

    assert {(knee.status, knee.reason) for knee in knees} == {("rejected", reason)}


@pytest.mark.parametrize("edge", EDGES[:2])
def test_a_joint_at_the_films_edge_is_told_as_cut_and_one_beside_it_is_found(detector, phantom, edge):
    film = single(phantom, 0)

    cut_off, beside = (detector.detect(film_of(cut(film, edge, share)))[1] for share in (0.15, -0.1))

    assert [(knee.status, knee.reason) for knee in cut_off] == [("rejected", "cut_off")]
    assert [(knee.status, knee.reason) for knee in beside] == [("found", None)]


def test_a_doubtful_knee_is_looked_at_turned(detector, phantom):
    upright, leaning = (single(phantom, 0, degrees) for degrees in (0, 30))
    image = [np.uint8(255 * film.pixels) for film in (upright, leaning)]
    doubtful = Found(0.95, upright.key_points.knee_box(), upright.key_points)

    assert detector.cascade.leans(image[1], doubtful)
    assert not detector.cascade.leans(image[0], replace(doubtful, score=0.99999))


@pytest.mark.parametrize("style", ["ragged", "arched"])
def test_a_phantom_with_growth_plates_gets_a_warning(detector, phantom, style):
    pixels = with_growth_plates(np.random.default_rng(3), single(phantom, 0), style)

    facts, (knee,) = detector.detect(film_of(pixels))

    assert knee.status == "found"
    assert "growth_plates" in facts["warnings"]


def test_real_knees_are_told_from_those_with_growth_plates(knee_kl):
    knees = [knee for knee in read_knee_kl(knee_kl, "val") if knee.well_marked and knee.mm_per_px]
    films = [Single(np.float32(k.image() / 255), k.key_points, k.mm_per_px) for k in knees]
    rng = np.random.default_rng(0)
    assert len(films) > 20

    alarms = [shows_growth_plates(film.pixels, film.key_points) for film in films]
    caught = [shows_growth_plates(with_growth_plates(rng, film, "arched"), film.key_points) for film in films]

    assert np.mean(alarms) <= 0.01
    assert np.mean(caught) >= 0.8


def test_a_joint_without_contrast_has_no_growth_plates():
    assert not shows_growth_plates(np.zeros((80, 80), np.float32), KeyPoints.from_array(np.ones((6, 2))))


def test_a_warning_of_the_film_is_beside_each_of_its_grades(tmp_path):
    reply = json.loads((ROOT / "samples/bilateral.json").read_text())
    reply["film"]["warnings"] = ["growth_plates"]
    reply["knees"][0]["warnings"] = ["oa_kl_disagree"]

    write_report(Outputs(frozenset()), tmp_path, {"film.dcm": reply}, {})

    assert [row["warnings"] for row in rows_of("film.dcm", reply)] == ["growth_plates; oa_kl_disagree", "growth_plates"]
    for shown in (table({"film.dcm": reply}), html.unescape((tmp_path / "index.html").read_text())):
        assert shown.count(WORDS["growth_plates"]) == 2
