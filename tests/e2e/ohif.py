"""OHIF in a headless Chromium, on the DICOMweb of an Orthanc: the words and lines it draws on a film, and pictures of them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any

import requests
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.remote.webelement import WebElement

from tests.e2e.orthanc import Orthanc
from tests.e2e.waiting import until

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--no-first-run", "--window-size=1400,900")  # fmt: skip
CONFIG = """
const root = location.origin + '/dicom-web';
window.config = {
  extensions: [], modes: [], showStudyList: false, showCPUFallbackMessage: false, showWarningMessageForCrossOrigin: false,
  investigationalUseDialog: { option: 'never' }, maxNumberOfWebWorkers: 1,
  defaultDataSourceName: 'orthanc',
  dataSources: [{
    namespace: '@ohif/extension-default.dataSourcesModule.dicomweb', sourceName: 'orthanc',
    configuration: { name: 'orthanc', qidoRoot: root, wadoRoot: root, wadoUriRoot: root, qidoSupportsIncludeField: false,
                     imageRendering: 'wadors', thumbnailRendering: 'wadors', enableStudyLazyLoad: true },
  }],
};
"""


class _Door(SimpleHTTPRequestHandler):
    """OHIF's files, its configuration, and Orthanc behind the same origin."""

    def __init__(self, *args: Any, orthanc: str, **kwargs: Any) -> None:
        self.orthanc = orthanc
        super().__init__(*args, **kwargs)

    def do_GET(self) -> None:
        if self.path.startswith("/dicom-web/"):
            answer = requests.get(f"{self.orthanc}{self.path}", headers={"Accept": self.headers["Accept"]})
            self._answer(answer.status_code, answer.headers.get("Content-Type", ""), answer.content)
        elif self.path.startswith("/app-config.js"):
            self._answer(200, "text/javascript", CONFIG.encode())
        else:
            if not Path(self.translate_path(self.path)).is_file():
                self.path = "/index.html"  # a page of the application
            super().do_GET()

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def viewing(dist: Path, orthanc: Orthanc, profile: Path) -> Iterator["Viewer"]:
    """OHIF's build in ``dist``, ready to open a study."""
    door = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Door, directory=str(dist), orthanc=orthanc.url))
    threading.Thread(target=door.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield Viewer(browser, f"http://127.0.0.1:{door.server_port}")
    finally:
        browser.quit()
        door.shutdown()
        door.server_close()


class Viewer:
    """One window of OHIF."""

    def __init__(self, browser: WebDriver, url: str) -> None:
        self.browser, self.url = browser, url

    def open(self, study: str, series: str) -> None:
        """A report, by its study and series; waits until something is drawn on the film that it names."""
        self.browser.get(f"{self.url}/viewer?StudyInstanceUIDs={study}&initialSeriesInstanceUID={series}")
        until(self.boxes, 90)
        for button in self.browser.find_elements(By.XPATH, "//*[text()='Skip all']"):
            self.click(button)  # the guided tour, which darkens all else

    def boxes(self) -> list[list[str]]:
        """The lines of each box of words that is drawn on the film."""
        script = """return [...document.querySelectorAll('.svg-layer text')].map(
            text => [...text.querySelectorAll('tspan')].map(line => line.textContent.trim()).filter(line => line))"""
        return [box for box in self.browser.execute_script(script) if box]

    def words(self) -> str:
        """Of the whole page."""
        return self.browser.find_element(By.TAG_NAME, "body").text

    def press(self, name: str) -> None:
        """A button, by OHIF's name for it."""
        self.click(self.browser.find_element(By.CSS_SELECTOR, f"[data-cy={name}]"))

    def click(self, element: WebElement) -> None:
        self.browser.execute_script("arguments[0].click()", element)  # whatever lies above it

    def picture(self) -> Image.Image:
        return Image.open(BytesIO(self.browser.get_screenshot_as_png())).convert("RGB")
