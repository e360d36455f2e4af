"""A real Orthanc for tests: a PACS of its own, on free ports, gone with the test."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from deploy.server import free_port
from tests.e2e.waiting import until
from tests.tools import DICOMWEB


@dataclass(frozen=True)
class Orthanc:
    """Its REST interface, its DICOM port, and the port where it expects ``kneeoa pacs``."""

    url: str
    port: int
    ours: int

    def upload(self, film: bytes) -> str:
        """The identifier it gives the film."""
        return self.ask("instances", film)["ID"]

    def send(self, identifier: str) -> dict:
        """C-STORE of a film to us; waits for our answer."""
        return self.ask("modalities/kneeoa/store", identifier.encode())

    def ask(self, path: str, body: bytes | None = None) -> Any:
        answer = requests.post(f"{self.url}/{path}", data=body) if body else requests.get(f"{self.url}/{path}")
        answer.raise_for_status()
        return answer.json()

    def held(self) -> dict[str, list[dict]]:
        """The instances of each study, by SOP class name."""
        kinds = {"1.2.840.10008.5.1.4.1.1.88.34": "sr", "1.2.840.10008.5.1.4.1.1.7": "sc"}
        found: dict[str, list[dict]] = {"sr": [], "sc": [], "film": []}
        for identifier in self.ask("instances"):
            tags = self.ask(f"instances/{identifier}/simplified-tags")
            found[kinds.get(tags["SOPClassUID"], "film")].append({**tags, "ID": identifier})
        return found


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """Started, answering, and stopped at the end; ``settings`` go into its configuration."""
    http, dicom, ours = (free_port() + i for i in range(3))
    config = {
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "HttpPort": http,
        "DicomPort": dicom,
        "DicomAet": "ORTHANC",
        "DicomAlwaysAllowStore": True,
        "AuthenticationEnabled": False,
        "DicomModalities": {"kneeoa": ["KNEEOA", "127.0.0.1", ours]},
        "Plugins": [DICOMWEB],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    } | settings
    (folder / "orthanc.json").write_text(json.dumps(config))
    with open(folder / "orthanc.log", "wb") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
    pacs = Orthanc(f"http://127.0.0.1:{http}", dicom, ours)
    try:
        until(lambda: answers(pacs), 30)
        yield pacs
    finally:
        process.terminate()
        process.wait(20)


def answers(pacs: Orthanc) -> bool:
    try:
        return bool(pacs.ask("system"))
    except requests.ConnectionError:
        return False
