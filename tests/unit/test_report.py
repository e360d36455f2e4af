"""The HTML report as a browser shows it, from a folder, with no server and no network."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from kneeoa.disclaimer import DISCLAIMER
from kneeoa.errors import CorruptImage
from kneeoa.messages import REPLY_SCHEMA, envelope
from kneeoa_cli.files.inputs import Source, distinct_stems
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.html_report import COLUMNS, study_of, write_report
from tests.tools import needs
from tests.unit.dicom_factory import gradient, make_dicom
from tests.unit.test_figure import spoilt

NASTY = "<script>document.title='SECRET'</script>&.dcm"
CHROMIUM = [shutil.which("chromium"), shutil.which("chromedriver")]


def in_a_browser(test):
    """Chromium takes seconds to start."""
    return pytest.mark.slow(needs("chromium", "chromedriver")(test))


@pytest.fixture(scope="module")
def replies(sample, service) -> dict[str, dict]:
    usual = service.grade(sample, explain="KL").message
    broken = envelope(REPLY_SCHEMA, CorruptImage(), model={"grader": usual["model"]["grader"]})
    kinds = {"b/two.dcm": "bilateral", "a/lost.dcm": "one not found", "a/side.dcm": "unknown side"}
    return {
        **{name: spoilt(usual, kind) for name, kind in kinds.items()},
        NASTY: spoilt(usual, "single"),
        "broken.dcm": broken,
    }


@pytest.fixture(scope="module")
def folder(replies, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    picture = folder / "picture.webp"
    Image.fromarray(np.zeros((99, 176, 3), np.uint8)).save(picture)
    studies = {"aaa": ["a/lost.dcm", "a/side.dcm"], "bbb": ["b/two.dcm"], "ccc": [NASTY]}
    write_report(
        Outputs(frozenset()),
        folder,
        replies,
        {number: dict.fromkeys(films, picture) for number, films in studies.items()},
    )
    return folder


@pytest.fixture(scope="module")
def browser():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(CHROMIUM[1]))
    yield driver
    driver.quit()


@pytest.fixture
def index(browser, folder):
    browser.get((folder / "index.html").as_uri())
    return browser


def column(browser, name: str) -> list[str]:
    """What the shown rows have there."""
    at = COLUMNS.index(name)
    rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr")
    return [row.find_elements(By.TAG_NAME, "td")[at].text for row in rows if row.is_displayed()]


def click(browser, name: str) -> None:
    browser.find_elements(By.CSS_SELECTOR, "th button")[COLUMNS.index(name)].click()


@in_a_browser
def test_every_knee_has_its_row_and_every_study_its_page(index, folder, replies):
    assert len(column(index, "film")) == 7
    assert column(index, "status").count("error") == 1
    for name, reply in replies.items():
        told = [kl for film, kl in zip(column(index, "film"), column(index, "KL"), strict=True) if film == name]
        grades = [str(k["grades"]["KL"]["grade"]) if k["grades"] else "" for k in reply["knees"]] or [""]
        assert told == grades
    pages = {link.get_attribute("href").rsplit("/", 1)[1] for link in index.find_elements(By.CSS_SELECTOR, "td a")}
    assert pages == {"aaa.html", "bbb.html", "ccc.html"}
    assert DISCLAIMER in index.page_source


@in_a_browser
def test_it_sorts_by_any_column_both_ways_with_the_empty_last(index):
    for name in ("KL", "P(OA) %"):
        for way in (1, -1):
            click(index, name)
            values = column(index, name)
            full = [float(value) for value in values if value]
            assert full == sorted(full)[::way]
            assert values[len(full) :] == [""] * (len(values) - len(full))
            assert index.find_elements(By.TAG_NAME, "th")[COLUMNS.index(name)].get_attribute("aria-sort")
    click(index, "film")
    assert column(index, "film") == sorted(column(index, "film"), key=str.lower)


@in_a_browser
def test_it_filters_and_counts(index):
    all_kl = column(index, "KL")
    Select(index.find_element(By.ID, "kl")).select_by_visible_text("2")
    assert column(index, "KL") == [kl for kl in all_kl if kl and int(kl) >= 2]
    assert index.find_element(By.ID, "shown").text == str(len(column(index, "KL")))
    Select(index.find_element(By.ID, "kl")).select_by_visible_text("any")
    Select(index.find_element(By.ID, "status")).select_by_visible_text("not_found")
    assert column(index, "film") == ["a/lost.dcm"]
    Select(index.find_element(By.ID, "status")).select_by_visible_text("any")
    index.find_element(By.ID, "warned").click()
    assert all(column(index, "remarks"))
    assert len(column(index, "remarks")) == 3
    index.find_element(By.ID, "warned").click()
    index.find_element(By.ID, "text").send_keys("A/L")
    assert set(column(index, "film")) == {"a/lost.dcm"}
    index.find_element(By.ID, "text").submit()
    assert set(column(index, "film")) == {"a/lost.dcm"}


@in_a_browser
def test_pages_are_quiet_whole_and_ask_for_nothing(browser, folder):
    browser.get_log("performance")
    for page in sorted(folder.glob("*.html")):
        browser.get(page.as_uri())
        assert browser.title.endswith("· kneeoa")
        for picture in browser.find_elements(By.TAG_NAME, "img"):
            assert browser.execute_script("return arguments[0].naturalWidth", picture) == 176
            assert "KL" in picture.get_attribute("alt") or "not graded" in picture.get_attribute("alt")
        wide = browser.execute_script(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        assert not wide, page
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert asked
    assert not [url for url in asked if not url.startswith(("file:", "data:"))]


@in_a_browser
def test_a_page_shows_what_the_reply_says(browser, folder, replies):
    browser.get((folder / "aaa.html").as_uri())
    text = browser.find_element(By.TAG_NAME, "body").text

    assert "not graded, no knee-like region found" in text
    assert text.count("withheld: side unknown") == 6
    knee = replies["a/lost.dcm"]["knees"][0]
    rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr")
    told = [cell.text for cell in rows[0].find_elements(By.TAG_NAME, "td")]
    assert told == ["Kellgren-Lawrence grade", *(f"{100 * p:.0f} %" for p in knee["grades"]["KL"]["probabilities"])]
    assert rows[0].find_element(By.TAG_NAME, "b").text == told[1 + knee["grades"]["KL"]["grade"]]


def test_names_are_text_and_nothing_points_outside(folder):
    for page in folder.glob("*.html"):
        text = page.read_text()
        assert NASTY not in text
        assert not re.search(r"""(?:src|href)=["'](?!data:|[\w-]+\.html)""", text)
        assert "http" not in re.sub(r'"http_status"|http-equiv', "", text)


def test_a_study_is_named_by_a_digest_of_its_uid():
    one, same, other = (make_dicom(gradient(), StudyInstanceUID=uid) for uid in ("1.2.3", "1.2.3", "1.2.4"))

    assert study_of(one, "a") == study_of(same, "b") != study_of(other, "a")
    assert study_of(b"no DICOM", "a") == study_of(b"", "a") != study_of(b"", "b")
    assert "1.2.3" not in study_of(one, "a")


def test_films_of_one_name_get_names_of_their_own():
    films = [
        Source(Path(name)) for name in ("a b/IM1", "a_b/IM1", "../x/IM1", "x/IM1", "x/IM2", "IM1\udcff", "y/IM1\udcff")
    ]
    names = distinct_stems(films)

    assert len(set(names.values())) == len(films)
    assert names[Source(Path("x/IM2"))] == "IM2"
