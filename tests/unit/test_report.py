"""The HTML report as a browser shows it, from a folder, with no server and no network."""

import base64
import json
import re
import shutil
from importlib import resources
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
from kneeoa.remarks import WORDS
from kneeoa_cli.files.outputs import Outputs
from kneeoa_cli.html_pages import COLUMNS, Page, write_report
from kneeoa_cli.words import languages, words
from tests.tools import needs
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
    write_report(Outputs(frozenset()), folder, replies, pages(picture))
    return folder


def pages(picture: Path) -> dict[str, Page]:
    """Three studies of one patient and of somebody who has no name."""
    joints = {"R": picture, "L": picture}
    patient = {"patient": "SECRET", "joints": joints}
    return {
        "a/lost.dcm": Page(picture, "aaa", date="2022-01-01", **patient),
        "a/side.dcm": Page(picture, "aaa", date="2022-01-01", **patient),
        "b/two.dcm": Page(picture, "bbb", date="2024-01-01", body_part="EXTREMITY", **patient),
        NASTY: Page(picture, "ccc"),
    }


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
    assert column(index, "date").count("2022-01-01") == 3
    knee = replies["b/two.dcm"]["knees"][0]
    shown = zip(*(column(index, name) for name in ("film", "JSW-L", "JSW-M")), strict=True)
    widths = [f"{knee['joint_space'][side]['minimum']['mm']:.1f}" for side in ("lateral", "medial")]
    assert widths in [list(rest) for film, *rest in shown if film == "b/two.dcm"]
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
    Select(index.find_element(By.ID, "status")).select_by_visible_text("not found")
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
            assert (
                page.name.startswith("change-")
                or "KL" in picture.get_attribute("alt")
                or "not graded" in picture.get_attribute("alt")
            )
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

    assert text.startswith(
        "All studies\nChange from 2022-01-01 to 2024-01-01\n2022-01-01: Knee, right and left and side unknown"
    )
    assert "not graded, no knee-like region found" in text
    assert "learned from labels that are weak and synthetic" in text
    assert "Warning: OA and KL contradict each other" in text
    lateral = replies["a/lost.dcm"]["knees"][0]["joint_space"]["lateral"]
    assert f"lateral {lateral['minimum']['mm']:.1f} mm ({lateral['fixed']['mm']:.1f} mm)" in text
    assert text.count("withheld: side unknown") == 6
    knee = replies["a/lost.dcm"]["knees"][0]
    rows = browser.find_elements(By.CSS_SELECTOR, "tbody tr:has(td)")
    told = [cell.text for cell in rows[0].find_elements(By.CSS_SELECTOR, "th, td")]
    assert told == ["Kellgren-Lawrence grade", *(f"{100 * p:.0f} %" for p in knee["grades"]["KL"]["probabilities"])]
    assert rows[0].find_element(By.TAG_NAME, "b").text == told[1 + knee["grades"]["KL"]["grade"]]


def test_names_are_text_and_nothing_points_outside(folder):
    for page in folder.glob("*.html"):
        text = page.read_text()
        assert NASTY not in text
        assert not re.search(r"""(?:src|href)=["'](?!data:|[\w-]+\.html)""", text)
        assert "http" not in re.sub(r'"http_status"|http-equiv', "", text)


@in_a_browser
@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_can_be_read_by_everybody(browser, folder, width, scheme):
    """axe finds nothing, at the width of a phone, in the dark."""
    axe = (resources.files("axe_core_python") / "axe.min.js").read_text()
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics(width))
    feature = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": feature})
    try:
        for page in sorted(folder.glob("*.html")):
            browser.get(page.as_uri())
            root = "document.documentElement"
            assert browser.execute_script(f"return {root}.scrollWidth <= {root}.clientWidth"), page
            browser.execute_script(axe)
            found = browser.execute_async_script("axe.run({preload: false}).then(arguments[0])")
            assert [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]] == [], page
            assert len(found["passes"]) > 15
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def metrics(width: int) -> dict:
    return {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}


@in_a_browser
def test_a_study_of_one_film_prints_on_one_page_and_the_index_with_all_columns(browser, folder):
    browser.get((folder / "bbb.html").as_uri())
    assert printed(browser) == [PORTRAIT]
    browser.get((folder / "aaa.html").as_uri())
    assert printed(browser) == [PORTRAIT] * 2
    browser.get((folder / "index.html").as_uri())
    assert printed(browser) == [PORTRAIT[::-1]]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics(1047))  # 277 mm at 96 dpi
    try:
        assert browser.execute_script("return document.querySelector('table').getBoundingClientRect().right") <= 1047
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


PORTRAIT = (210, 297)  # A4, mm


def printed(browser) -> list[tuple[int, int]]:
    """The sizes of the pages that come out of the printer, in mm."""
    data = browser.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True, "printBackground": True})["data"]
    boxes = re.findall(rb"/MediaBox\s*\[0 0 ([\d.]+) ([\d.]+)\]", base64.b64decode(data))
    return [tuple(round(float(side) / 72 * 25.4) for side in box) for box in boxes]


@in_a_browser
def test_two_visits_show_what_changed(browser, folder, replies):
    (page,) = folder.glob("change-*.html")
    browser.get(page.as_uri())

    cells = [
        [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")]
        for row in browser.find_elements(By.CSS_SELECTOR, "tbody tr")
    ]
    assert [row[0] for row in cells] == ["2022-01-01", "2024-01-01"]  # the left knee was not found once
    knee = replies["b/two.dcm"]["knees"][0]
    assert cells[1][1] == str(knee["grades"]["KL"]["grade"])
    assert cells[1][3] == f"{knee['joint_space']['lateral']['minimum']['mm']:.1f}"
    rates = [line.text for line in browser.find_elements(By.CSS_SELECTOR, "section ul li")]
    assert rates[0] == "lateral: +0.00 mm a year (noise band ± 0.35): within the noise band"  # the same film twice
    assert len(rates) == 4
    assert len(browser.find_elements(By.CSS_SELECTOR, ".joints img")) == 2


@pytest.mark.parametrize("language", languages())
def test_a_language_says_everything(language, replies, tmp_path):
    english, own = words("en"), words(language)
    picture = tmp_path / "picture.webp"
    picture.write_bytes(b"")

    write_report(Outputs(frozenset()), tmp_path, replies, pages(picture), language)

    assert own["language"] == language
    assert own.keys() == english.keys()
    assert own["remark"].keys() == WORDS.keys()
    assert own["task"].keys() == english["task"].keys()
    same = [key for key in english if isinstance(english[key], str) and english[key] == own[key]]
    assert language == "en" or {*same} <= {"status", "lateral", "medial"}
    text = (tmp_path / "bbb.html").read_text()
    assert f'lang="{language}"' in text
    assert own["disclaimer"] in text
    assert own["task"]["FL"] in text
