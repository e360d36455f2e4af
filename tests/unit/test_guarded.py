"""Films are decoded in a process of their own, which pays for what they cost."""

import dataclasses
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image
from pydicom import uid

from kneeoa.errors import InternalError, KneeOaError, TooExpensive
from kneeoa.imaging import decode
from kneeoa.imaging.confined import Limits
from kneeoa.imaging.guarded import GRACE_S, GuardedDecoder
from tests.conftest import ROOT
from tests.corpus import BOMBS, DICOM, RASTER, file_of, small_film
from tests.unit.dicom_factory import gradient, make_dicom

pytestmark = pytest.mark.slow

WITHIN_S = 5.0
BUSY = 6  # times as long on a machine that does more than these tests
PATIENT = Limits(wall_s=60.0)
HONEST = {
    "native": lambda: small_film(PixelSpacing=[0.2, 0.3], ImageLaterality="L", PatientOrientation=["R", "F"]),
    "JPEG 2000": lambda: small_film(syntax=uid.JPEG2000Lossless, photometric="MONOCHROME1"),
    "RLE": lambda: small_film(syntax=uid.RLELossless, RescaleSlope=2, RescaleIntercept=-7),
    "PNG": lambda: file_of(Image.fromarray(gradient(bits=16)), "PNG"),
}


@pytest.fixture(scope="module")
def guarded():
    decoder = GuardedDecoder(PATIENT)
    yield decoder
    decoder.close()


def processes(decoder: GuardedDecoder) -> list[psutil.Process]:
    """The supervisor and the process that decodes, which is there once a film was."""
    decoder(HONEST["native"]())
    supervisor = psutil.Process(decoder._process.pid)
    return [supervisor, *supervisor.children()]


def spent(decoder: GuardedDecoder) -> float:
    """Seconds of processor time of the processes that have ended, which a busy machine does not stretch."""
    times = psutil.Process(decoder._process.pid).cpu_times()
    return times.children_user + times.children_system


def code_of(reader, data: bytes) -> str:
    with pytest.raises(KneeOaError) as caught:
        reader(data)
    return f"{caught.value.code} {caught.value.stage} {caught.value}"


def gone(pids: list[int]) -> bool:
    left = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    _, alive = psutil.wait_procs(left, timeout=BUSY * WITHIN_S)
    return all(process.status() == psutil.STATUS_ZOMBIE for process in alive)


@pytest.mark.parametrize("name", HONEST)
def test_a_film_comes_out_as_it_does_without(guarded, name):
    data = HONEST[name]()

    there, here = guarded(data), decode(data)

    np.testing.assert_array_equal(there.pixels, here.pixels)
    for field in dataclasses.fields(here):
        if field.name != "pixels":
            assert getattr(there, field.name) == getattr(here, field.name)
            assert type(getattr(there, field.name)) is type(getattr(here, field.name))


def test_what_is_refused_is_refused_alike(guarded):
    for build, _ in (*DICOM.values(), *RASTER.values()):
        assert code_of(guarded, build()) == code_of(decode, build())


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_too_expensive_and_harms_nobody(guarded, name):
    bomb, film = BOMBS[name](), HONEST["native"]()
    before = spent(guarded)

    with pytest.raises(TooExpensive):
        guarded(bomb)

    assert spent(guarded) - before < WITHIN_S
    assert guarded(film).pixels.shape == (80, 96)


def test_a_film_that_needs_more_memory_than_it_may_have_is_too_expensive():
    film = file_of(Image.new("L", (5000, 5000), 9), "PNG")
    decoder = GuardedDecoder(Limits(wall_s=60.0, memory=64 * 2**20))

    with pytest.raises(TooExpensive):
        decoder(film)
    assert decoder(HONEST["PNG"]()).bits == 16
    decoder.close()


def test_time_is_allowed_by_size_and_never_more_than_an_answer_may_take():
    limits = Limits()

    assert limits.wall_s + GRACE_S < WITHIN_S
    assert limits.cpu_s < limits.wall_s
    assert limits.cpu_s + 30 * limits.cpu_s_per_mb > 4  # 32 megapixels of noise in JPEG 2000: 36 MB and 2.6 … 4.5 s


@pytest.mark.parametrize("which", [0, 1], ids=["the supervisor", "the process that decodes"])
def test_a_process_that_somebody_kills_costs_no_film(guarded, which):
    victim = processes(guarded)[which]
    victim.kill()
    psutil.wait_procs([victim], timeout=WITHIN_S)

    assert guarded(HONEST["native"]()).pixels.shape == (80, 96)


def test_a_decoder_that_crashes_is_a_corrupt_image_and_a_process_that_ends_twice_is_our_fault(monkeypatch):
    decoder = GuardedDecoder(PATIENT)
    for died, code in ((-signal.SIGSEGV, "corrupt_image"), (-signal.SIGKILL, "internal_error"), (1, "internal_error")):
        monkeypatch.setattr(decoder, "_ask", lambda *_, died=died: {"died": died, "overstepped": False})

        assert code_of(decoder, HONEST["PNG"]()).startswith(f"{code} decode")
    decoder.close()


def test_a_process_that_does_not_start_is_our_fault_and_the_next_film_starts_another(monkeypatch):
    decoder = GuardedDecoder(PATIENT)
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/bin/false")
        decoder.close()
        decoder._start()
        with pytest.raises(InternalError):
            decoder(HONEST["PNG"]())

    assert decoder(HONEST["PNG"]()).bits == 16
    decoder.close()


def test_threads_get_their_own_films(guarded):
    films = {width: make_dicom(gradient(80, width, 8)) for width in range(70, 90)}

    with ThreadPoolExecutor(4) as pool:
        seen = dict(zip(films, pool.map(lambda width: guarded(films[width]).pixels, films), strict=True))

    assert all(pixels.shape == (80, width) for width, pixels in seen.items())
    assert all((pixels == gradient(80, width, 8)).all() for width, pixels in seen.items())


def test_nothing_is_left_behind_by_a_server_that_is_killed():
    """Neither at rest nor with a bomb in hand."""
    program = """if True:
        import psutil, sys
        from kneeoa.imaging.guarded import GuardedDecoder
        from tests.corpus import BOMBS, small_film
        bomb = BOMBS["JPEG of 1000 scans in DICOM"]()
        rests, works = GuardedDecoder(), GuardedDecoder()
        rests(small_film()), works(small_film())
        print(*(process.pid for process in psutil.Process().children(recursive=True)), flush=True)
        works(bomb)
    """
    server = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in server.stdout.readline().split()]

    os.kill(server.pid, signal.SIGKILL)
    server.communicate()

    assert len(pids) == 4
    assert gone(pids)


def test_the_process_has_neither_the_network_nor_our_secrets(monkeypatch, caplog):
    monkeypatch.setenv("KNEEOA_TOKEN", "SENTINEL")
    decoder = GuardedDecoder(PATIENT)
    supervisor, child = processes(decoder)

    assert "SENTINEL" not in str(supervisor.environ())
    assert child.rlimit(psutil.RLIMIT_FSIZE) == (0, 0)
    if "has the network" in caplog.text:
        pytest.skip("this system allows no namespaces")
    assert os.readlink(f"/proc/{child.pid}/ns/net") != os.readlink("/proc/self/ns/net")
    decoder.close()


def test_it_says_so_where_the_network_cannot_be_taken_away(monkeypatch, caplog):
    monkeypatch.setattr("kneeoa.imaging.guarded.json.loads", lambda _: {"network": True})

    GuardedDecoder().close()

    assert "has the network" in caplog.text


def test_the_process_is_one_that_is_used_again(guarded):
    before = [process.pid for process in processes(guarded)]

    for _ in range(20):
        guarded(HONEST["native"]())

    assert [process.pid for process in processes(guarded)] == before
