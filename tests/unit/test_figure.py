"""The page that is pinned up: everything on it, readable, in grey too; by property, not by pixel."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from kneeoa.messages import encode_png
from kneeoa.remarks import FILM_WARNINGS, REASONS
from kneeoa.reporting.figure import as_image, displayed, draw_figure
from kneeoa.tasks import TASKS


@pytest.fixture(scope="module")
def bilateral(sample, service):
    reply = service.grade(sample, explain="KL").message
    return displayed(sample, reply), reply


def spoilt(reply: dict, kind: str) -> dict:
    """The reply with one knee that went otherwise."""
    first, second = reply["knees"]
    withheld = {"grade": None, "probabilities": None, "withheld": "unknown_side"}
    compartments = {task.name: withheld for task in TASKS if task.compartment}
    lost = {"status": "not_found", "reason": "no_knee_like_region", "grades": None, "box": None, "main_joint": None}
    knees = {
        "bilateral": [first, second],
        "single": [first],
        "unknown side": [
            {
                **first,
                "knee": "unknown",
                "grades": {**first["grades"], **compartments},
                "warnings": ["oa_kl_disagree", "compartment_grades_withheld"],
            }
        ],
        "one not found": [first, {**second, **lost, "key_points": None, "explanations": {}}],
        "rejected": [{**first, "status": "rejected", "reason": "implausible_key_points", "grades": None}],
    }
    return {**reply, "knees": knees[kind]}


def test_a_film_that_had_to_be_inverted_is_shown_inverted(bilateral, sample):
    film, reply = bilateral
    found = {**reply, "film": {**reply["film"], "polarity": "inverted_to_find_knees"}}

    assert (displayed(sample, found).astype(int) + film).mean() == pytest.approx(255, abs=25)


KINDS = ("bilateral", "single", "unknown side", "one not found", "rejected")


def texts(page) -> list:
    """All that is written, with its place in pixels."""
    as_image(page)
    drawn = [text for axes in page.axes for text in (*axes.texts, axes.title, axes._left_title, axes.xaxis.label)]
    return [(t, t.get_window_extent()) for t in (*drawn, *page.texts) if t.get_text() and t.get_visible()]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [None, (100, 120), (4000, 3300), (1500, 4000)], ids=str)
def test_all_that_is_written_is_on_the_page_and_apart(bilateral, kind, shape):
    film, reply = bilateral
    scale = 1.0
    if shape:
        scale = min(shape[0] / film.shape[0], shape[1] / film.shape[1])
        canvas = np.zeros(shape, np.uint8)
        small = cv2.resize(film, None, fx=scale, fy=scale)[: shape[0], : shape[1]]
        canvas[: small.shape[0], : small.shape[1]] = small
        film = canvas
    page = draw_figure(film, spoilt(reply, kind), scale)

    are_apart(page)


def are_apart(page) -> None:
    written = texts(page)
    width, height = page.get_size_inches() * page.dpi
    assert len(written) > 5
    for text, place in written:
        assert 0 <= place.x0 < place.x1 <= width, text.get_text()
        assert 0 <= place.y0 < place.y1 <= height, text.get_text()
        assert text.get_fontsize() >= 9
    for i, (one, a) in enumerate(written):
        for other, b in written[i + 1 :]:
            assert not a.padded(-1).overlaps(b.padded(-1)), (one.get_text(), other.get_text())


def test_all_warnings_of_a_film_stay_beside_it_and_a_reason_is_told_in_the_joints_place(bilateral):
    film, reply = bilateral
    for reason in ("implant", "cut_off"):
        lost = {**spoilt(reply, "rejected")["knees"][0], "reason": reason}
        warned = {**reply["film"], "warnings": list(FILM_WARNINGS)}
        page = draw_figure(film, {**reply, "film": warned, "knees": [reply["knees"][0], lost]})

        are_apart(page)
        said = [text.get_text().replace("\n", " ") for text, _ in texts(page)]
        assert REASONS[reason] in said
        assert all(any(words in text for text in said) for words in FILM_WARNINGS.values())


def test_the_page_says_who_says_what(bilateral):
    film, reply = bilateral
    said = "\n".join(text.get_text() for text, _ in texts(draw_figure(film, reply)))

    for knee, side in zip(reply["knees"], ("Right", "Left"), strict=True):
        assert f"{side} knee    KL {knee['grades']['KL']['grade']}" in said
    assert reply["disclaimer"] in said
    assert reply["model"]["grader"]["sha256"][:12] in said
    assert "KL, OA: real labels; the six OARSI features: " in said
    assert said.count("OARSI grades, learned from weak and synthetic labels") == 2


def test_the_page_says_in_words_what_was_measured_and_what_to_doubt(bilateral):
    film, reply = bilateral
    first, second = reply["knees"]
    warned = {**reply["film"], "warnings": ["polarity_overridden"]}
    knees = [{**first, "warnings": ["kl_features_disagree"]}, {**second, "joint_space": None}]
    written = texts(draw_figure(film, {**reply, "film": warned, "knees": knees}))
    said = "\n".join(text.get_text() for text, _ in written)

    narrowest = {side: s["minimum"] for side, s in first["joint_space"].items()}
    for side, width in narrowest.items():
        assert f"{side} {width['mm']:.1f} mm" in said
        assert said.count(f"\n{width['mm']:.1f} mm") == 1  # in the joint
    assert "Right knee: lateral" in said
    assert "Left knee: lateral" not in said
    assert "Warning: knees were found on the inverted film only" in said
    assert "KL and the six features contradict each other" in said
    assert "_" not in said
    assert f"Probability of KL 2 or more: {sum(second['grades']['KL']['probabilities'][2:]):.0%}" in said


def test_a_joint_space_is_drawn_where_it_is(bilateral):
    film, reply = bilateral
    axes = draw_figure(film, reply).axes[1]
    knee = reply["knees"][0]
    (x1, y1, *_), drawn = knee["main_joint"], [line.get_xydata() for line in axes.lines]

    for line, space in zip(drawn, knee["joint_space"].values(), strict=True):
        np.testing.assert_allclose(line + (round(x1), round(y1)) + 0.5, space["minimum"]["ends"], atol=0.01)


@pytest.mark.parametrize(("p", "told"), [([0.9, 0.1, 0, 0, 0], "grade is 0"), ([0.2, 0.3, 0.4, 0.1, 0], "unsure")])
def test_heat_is_faint_where_there_is_little_to_see(bilateral, p, told):
    film, reply = bilateral
    pages = {}
    for name, probabilities in (("doubtful", p), ("sure", [1 - sum(p[1:]), *[0] * 3, sum(p[1:])])):
        if name == "sure" and probabilities[0] > 0.5:
            probabilities = probabilities[::-1]
        knee = spoilt(reply, "single")["knees"][0]
        graded = {"grade": int(np.argmax(probabilities)), "probabilities": probabilities, "withheld": None}
        knee = {**knee, "grades": {**knee["grades"], "KL": graded}}
        pages[name] = draw_figure(film, {**reply, "knees": [knee]})

    def strength(page):
        return page.axes[1].images[1].get_array()[..., 3].max()

    labels = {name: page.axes[1].xaxis.label.get_text() for name, page in pages.items()}
    assert told in labels["doubtful"]
    assert all(label.startswith("Grad-CAM, KL") for label in labels.values())
    assert "faint" not in labels["sure"]
    assert strength(pages["doubtful"]) < 0.6 * strength(pages["sure"])


def luminance(colour) -> float:
    """WCAG 2's, 0 … 1."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_what_is_written_stands_out_from_what_it_is_written_on(bilateral):
    film, reply = bilateral
    for grade in range(4):
        for knee in reply["knees"]:
            for task in TASKS[2:]:
                knee["grades"][task.name]["grade"] = grade
        page = draw_figure(film, reply)
        for text, place in texts(page):
            cells = [
                cell
                for axes in page.axes
                for cell in axes.patches
                if isinstance(cell, Rectangle)
                and cell.get_fill()
                and cell.get_window_extent().contains(*place.get_points().mean(axis=0))
            ]
            below = luminance(cells[-1].get_facecolor() if cells else "white")
            light, dark = sorted((below, luminance(text.get_color())))[::-1]
            assert (light + 0.05) / (dark + 0.05) >= 4.5, text.get_text()  # WCAG 2, AA


def test_the_table_has_lateral_where_the_film_has_it(bilateral):
    film, reply = bilateral
    page = draw_figure(film, reply)
    heads = [(t.get_text(), place.x0) for t, place in texts(page) if t.get_text() in ("lateral", "medial")]

    assert [name for name, _ in sorted(heads, key=lambda head: head[1])] == ["lateral", "medial", "medial", "lateral"]


@pytest.mark.parametrize("corner", [(0, 0), (70, 0), (0, 150), (70, 150)], ids=str)
def test_heat_is_drawn_where_it_is_and_as_strongly_as_asked(bilateral, corner):
    film, reply = bilateral[0], spoilt(bilateral[1], "single")
    heat = np.zeros((96, 192), np.uint8)
    heat[corner[0] : corner[0] + 26, corner[1] : corner[1] + 42] = 255
    sure = {"grade": 3, "probabilities": [0.1, 0, 0.1, 0.8, 0], "withheld": None}
    grades = {**reply["knees"][0]["grades"], "KL": sure}
    reply["knees"][0] = {**reply["knees"][0], "grades": grades, "explanations": {"heat": {"KL": encode_png(heat)}}}

    none, some, more = (as_image(draw_figure(film, reply, opacity=o)).astype(int) for o in (0.0, 0.4, 0.8))
    strengths = [np.abs(page - none).sum(axis=2) for page in (some, more)]

    axes = draw_figure(film, reply).axes[1]
    changed = strengths[1]
    y, x = np.nonzero(changed)
    as_image(axes.figure)
    place = axes.get_window_extent()
    across, up = (x.mean() - place.x0) / place.width, (none.shape[0] - y.mean() - place.y0) / place.height
    assert (across < 0.5, up > 0.5) == (corner[1] == 0, corner[0] == 0)
    part, whole = (np.median(strength[changed > 0]) for strength in strengths)  # the outline is as strong in both
    assert whole == pytest.approx(2 * part, rel=0.2)
    grey = [cv2.cvtColor(page.astype(np.uint8), cv2.COLOR_RGB2GRAY).astype(int) for page in (none, more)]
    assert np.abs(grey[1] - grey[0]).max() > 40  # and a grey print shows it


def test_no_plotting_state_is_shared():
    code = "import sys, kneeoa.reporting.figure; sys.exit('matplotlib.pyplot' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
