"""Everything a night may bring, against the real worker: a code, in bounded time and memory, and nobody dies."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from kneeoa_client.client import WORKFLOW
from tests.bench.soak import processes
from tests.corpus import ODD, REFUSED, SECRET
from tests.unit.dicom_factory import gradient, make_dicom

SECONDS, MEGABYTES = 5, 512


@pytest.fixture
def worker(run):
    """The detector's worker; asserts that it lives on and stays within its memory."""
    process = processes(run)["detector"]
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # forget the peak so far
    resting = process.memory_info().rss
    yield process
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
    assert processes(run)["detector"] == process
    assert int(status["VmHWM"].split()[0]) * 1024 - resting < MEGABYTES * 2**20


@pytest.mark.parametrize("case", REFUSED)
def test_each_hostile_film_gets_its_code(server, worker, case):
    build, error = REFUSED[case]
    film, began = build(), time.monotonic()

    reply = server.post(film)

    assert time.monotonic() - began < SECONDS
    assert (reply["status"], reply["knees"]) == ("error", [])
    assert reply["error"]["code"] == error.code
    assert reply["error"]["http_status"] == error.http_status in (400, 413, 415, 422)
    assert SECRET not in json.dumps(reply)


@pytest.mark.parametrize("case", ODD)
def test_odd_tags_change_nothing_and_are_never_repeated(server, worker, case):
    reply = server.post(make_dicom(gradient(200, 300), **ODD[case]))

    assert (reply["status"], reply["error"], reply["film"]["spacing_mm"]) == ("not_found", None, None)
    assert SECRET not in json.dumps(reply)


def test_200_megabytes_are_refused(server, worker):
    headers = {"Authorization": f"Bearer {server.key}"}

    answer = requests.post(f"{server.url}/{WORKFLOW}", data=bytes(200 << 20), headers=headers, timeout=60)

    assert answer.status_code == 413


def test_all_at_once_harm_nobody(server, run, sample):
    quiet, before = server.post(sample), processes(run)
    films = [build() for build, _ in REFUSED.values()]
    for i in range(0, len(films), 6):
        films[i] = sample

    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(server.post, films))

    assert all(reply["knees"] == quiet["knees"] for reply in replies[::6])
    assert processes(run) == before
