import os
import subprocess
import sys
from io import BytesIO

import numpy as np
import pydicom
import pytest
import torch
from torch import nn

from kneeoa.detection import cascade
from kneeoa.detection.networks import STRIDE, WINDOW, Level1, as_input, pooled_first
from kneeoa.imaging import decode
from kneeoa.imaging.prepare import prepare_single, split_bilateral
from kneeoa.messages import decode_png
from kneeoa.tasks import Laterality
from tests.conftest import ROOT, WEIGHTS
from training.synthesis.dicom_writer import to_dicom
from training.synthesis.phantom import draw_film


def test_scanning_a_film_equals_classifying_its_windows(rng):
    """Level 1 over an image, at any cell, is level 1 on that cell's window: no size is ever rounded."""
    torch.manual_seed(0)
    network = Level1().double().eval()
    image = rng.integers(0, 255, (97, 130), np.uint8)

    logits, boxes = network(as_input(image[None]).double())

    for i, j in [(0, 0), (2, 5), (6, 10), (logits.shape[1] - 1, logits.shape[2] - 1)]:
        window = image[STRIDE * i : STRIDE * i + WINDOW, STRIDE * j : STRIDE * j + WINDOW]
        score, offset = network(as_input(window[None]).double())
        torch.testing.assert_close(score[0, 0, 0], logits[0, i, j])
        torch.testing.assert_close(offset[0, :, 0, 0], boxes[0, :, i, j])


@pytest.mark.parametrize("slope", [0.25, -0.25])
def test_pooling_comes_first_where_that_changes_no_bit(slope):
    trunk = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.PReLU(4, slope), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 2, 1)
    )
    image = torch.randn(2, 1, 20, 21)

    order = pooled_first(trunk)

    assert torch.equal(order(image), trunk(image))
    assert [type(layer) for layer in order][1:3] == (
        [nn.MaxPool2d, nn.PReLU] if slope > 0 else [nn.PReLU, nn.MaxPool2d]
    )


@pytest.mark.parametrize(("monochrome1", "bits"), [(False, 12), (True, 12), (True, 16), (False, 8)])
def test_phantom_knees_are_found_in_either_polarity_and_any_depth(detector, monochrome1, bits):
    film = draw_film(np.random.default_rng(5), spacing_mm=0.4, style="test")

    facts, knees = detector.detect(decode(to_dicom(film, monochrome1=monochrome1, bits=bits)))

    assert facts["polarity"] == ("monochrome1" if monochrome1 else "monochrome2")
    assert [knee.side for knee in knees] == [Laterality.RIGHT, Laterality.LEFT]
    for knee, truth in zip(knees, film.knees, strict=True):
        assert knee.status == "found"
        assert knee.box.iou(truth.box) > 0.6
        error = np.linalg.norm(knee.key_points.as_array() - truth.key_points.as_array(), axis=1).mean()
        assert error < 0.06 * truth.key_points.width


@pytest.mark.parametrize("halves", [2, 1], ids=["bilateral", "single"])
def test_a_film_that_shows_its_knees_mirrored_gets_the_same_grades(service, halves):
    """A Patient Orientation of R first: columns run to the patient's right, and lateral is where medial usually is."""
    film = pydicom.dcmread(ROOT / "samples/moderate_oa.dcm")
    film.decompress()
    pixels = film.pixel_array[:, : film.Columns // (3 - halves)]
    film.Columns = pixels.shape[1]
    if halves == 1:
        film.ImageLaterality = "R"

    def grades(pixels, orientation):
        film.PixelData, film.PatientOrientation = np.ascontiguousarray(pixels).tobytes(), [orientation, "F"]
        file = BytesIO()
        film.save_as(file)
        reply = service.grade(file.getvalue(), explain="JSN_M").message
        assert {knee["mirrored"] for knee in reply["knees"]} == {orientation == "R"}
        heat = {knee["knee"]: decode_png(knee["explanations"]["heat"]["JSN_M"]) for knee in reply["knees"]}
        return {
            knee["knee"]: {t: g["probabilities"] for t, g in knee["grades"].items()} for knee in reply["knees"]
        }, heat

    (usual, heat), (mirrored, other) = grades(pixels, "L"), grades(pixels[:, ::-1], "R")

    for side, tasks in usual.items():
        for task, probabilities in tasks.items():
            assert mirrored[side][task] == pytest.approx(probabilities, abs=0.35), (side, task)
    assert usual["R"]["JSN_M"][0] < 0.5 < usual["R"]["JSN_L"][0]
    # The boxes differ by pixels; a map that was not mirrored would give 0.
    assert np.corrcoef(heat["R"][:, ::-1].ravel(), other["R"].ravel())[0, 1] > 0.8


def test_a_film_of_one_knee_is_single_and_its_unknown_side_is_not_guessed(detector):
    film = draw_film(np.random.default_rng(5), spacing_mm=0.4)
    (_, half), pixels = split_bilateral(film.pixels.shape[1]), film.pixels
    one = decode(to_dicom(type(film)(pixels[:, slice(*half)], film.spacing_mm, ())))

    facts, (knee,) = detector.detect(one)
    _, (told,) = detector.detect(one, Laterality.LEFT)

    assert facts["layout"] == "single"
    assert (knee.status, knee.side, knee.side_source) == ("found", Laterality.UNKNOWN, "unknown")
    assert (told.side, told.side_source) == (Laterality.LEFT, "request")


def test_a_wrong_polarity_tag_is_found_out_by_the_knees(detector):
    film = draw_film(np.random.default_rng(5), spacing_mm=0.4)
    lying = type(film)(1 - film.pixels, film.spacing_mm, film.knees)

    facts, knees = detector.detect(decode(to_dicom(lying)))

    assert (facts["polarity"], facts["warnings"]) == ("inverted_to_find_knees", ["polarity_overridden"])
    assert [knee.status for knee in knees] == ["found", "found"]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_knees_on_their_side_or_upside_down_are_not_found(detector, turns):
    film = draw_film(np.random.default_rng(6), spacing_mm=0.4)
    turned = type(film)(np.ascontiguousarray(np.rot90(film.pixels, turns)), film.spacing_mm, ())

    _, knees = detector.detect(decode(to_dicom(turned)))

    assert all(knee.status != "found" and knee.reason for knee in knees)


def test_real_films_of_other_body_parts_are_not_graded(detector, real_dicoms):
    found = {path.name: [k.status for k in detector.detect(decode(path.read_bytes()))[1]] for path in real_dicoms}

    assert len(found) == 4
    assert not any("found" in statuses for statuses in found.values()), found


@pytest.mark.parametrize(
    "sides", [(Laterality.RIGHT, Laterality.LEFT), (Laterality.LEFT,)], ids=["bilateral", "single"]
)
def test_the_copy_that_is_searched_gives_what_the_full_film_gives(detector, monkeypatch, sides):
    """Boxes and key points within half a percent of W."""
    film = decode(to_dicom(draw_film(np.random.default_rng(8), spacing_mm=0.15, style="test", sides=sides)))
    assert min(film.pixels.shape) > 1000

    quick = detector.detect(film)[1]
    monkeypatch.setattr(cascade, "FINENESS", np.inf)
    full = detector.detect(film)[1]

    assert [knee.status for knee in quick] == [knee.status for knee in full] == ["found"] * len(sides)
    for knee, other in zip(quick, full, strict=True):
        limit = 0.005 * other.key_points.width
        assert knee.key_points.as_array() == pytest.approx(other.key_points.as_array(), abs=limit)
        assert knee.box.as_tuple() == pytest.approx(other.box.as_tuple(), abs=limit)


def test_a_film_that_shows_two_knees_is_not_searched_as_a_whole(detector, monkeypatch):
    film = decode(to_dicom(draw_film(np.random.default_rng(5), spacing_mm=0.4, style="test")))
    expected = [knee.status for knee in detector.detect(film)[1]]
    monkeypatch.setattr(detector.cascade, "detect_pair", None)

    assert [knee.status for knee in detector.detect(film)[1]] == expected == ["found", "found"]


def test_noise_is_not_a_knee(detector, rng):
    image = prepare_single(rng.normal(0, 1, (400, 300)).astype(np.float32))

    (found,) = detector.cascade.detect([image])

    assert found is None or found.score < detector.cascade.config.score2


def test_finding_knees_leaves_the_other_cores_alone():
    """Threads that numpy's BLAS wakes spin for a tenth of a second after a film, on the core of another worker."""
    code = """
import sys, threading
from pathlib import Path
import cv2, psutil, torch
from kneeoa import SAMPLE
from kneeoa.detection.detector import Detector
from kneeoa.imaging import decode
torch.set_num_threads(1), cv2.setNumThreads(1)
detector, film = Detector.from_file(Path(sys.argv[1])), decode(SAMPLE.read_bytes())
def used():
    threads = {t.id: t.user_time + t.system_time for t in psutil.Process().threads()}
    own = threads.pop(threading.get_native_id())
    return own, sum(threads.values())
detector.detect(film)
before = used()
for _ in range(5):
    detector.detect(film)
print(*(after - was for after, was in zip(used(), before)))
"""
    limits = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    free = {name: value for name, value in os.environ.items() if name not in limits}
    command = [sys.executable, "-c", code, str(WEIGHTS / "detector.safetensors")]

    own, others = map(
        float, subprocess.run(command, check=True, capture_output=True, text=True, env=free).stdout.split()
    )

    assert others < 0.1 * own
