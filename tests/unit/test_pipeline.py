"""The library: whatever a film comes as, it gets the same grades; whatever is wrong with it has a code."""

import json
from io import BytesIO
from itertools import count

import matplotlib.image
import numpy as np
import pytest
from pydicom import Dataset, dcmread

from kneeoa import SAMPLE, GradedFilm, KneeOA, KneeOaError, __version__
from kneeoa.errors import BadRequest
from kneeoa.imaging.inputs import read
from kneeoa.reporting.tables import COLUMNS
from kneeoa_cli.main import main
from tests.corpus import BOMBS
from tests.unit.dicom_factory import gradient


@pytest.fixture(scope="module")
def graded(service) -> GradedFilm:
    return service.grade(SAMPLE, explain="KL")


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    film = dcmread(SAMPLE)
    film.decompress()
    return film.pixel_array


def test_a_film_may_come_as_file_bytes_dataset_or_array(service, graded, pixels):
    kinds = [str(SAMPLE), SAMPLE.read_bytes(), dcmread(SAMPLE), pixels]

    replies = list(service.grade_many(kinds, batch=3, spacing_mm=(0.4, 0.4), explain=["KL"]))

    assert all(reply.message["knees"] == graded.message["knees"] for reply in replies)
    assert all(reply.message == graded.message for reply in replies[:3])
    assert (replies[3].film.source, replies[3].film.spacing_mm, replies[3].film.bits) == ("array", (0.4, 0.4), 16)


def test_a_reply_is_typed(graded):
    right, left = graded.knees

    assert (graded.status, right.knee, left.knee) == ("ok", "R", "L")
    assert right.grades["KL"].grade == graded.message["knees"][0]["grades"]["KL"]["grade"]
    assert list(right.explanations.heat) == ["KL"]
    assert repr(graded) == f"<GradedFilm ok: R KL {right.grades['KL'].grade}, L KL {left.grades['KL'].grade}>"


def test_a_reply_is_a_table_with_the_columns_of_the_command_line(graded):
    frame = graded.to_frame()

    assert list(frame.columns) == COLUMNS
    assert list(frame["knee"]) == ["R", "L"]
    assert list(frame["KL"]) == [knee.grades["KL"].grade for knee in graded.knees]
    assert set(frame["file"]) == {str(SAMPLE)}


def test_a_notebook_shows_the_page(graded):
    page = graded._repr_html_()

    head, _, tail = page.partition("base64,")
    assert head == '<img src="data:image/png;'
    import base64

    assert matplotlib.image.imread(BytesIO(base64.b64decode(tail.partition('"')[0]))).shape[:2] == (990, 1760)


def test_no_film_costs_another_its_grades(service, graded, tmp_path):
    films = [b"", tmp_path / "none.dcm", SAMPLE, BOMBS["JPEG of 1000 scans in DICOM"](), 7, Dataset(), tmp_path]

    replies = list(service.grade_many(films, batch=4, explain="KL"))

    codes = [reply.error and reply.error.code for reply in replies]
    broken = ["unreadable_file", None, "too_expensive", "bad_request", "corrupt_image", "unreadable_file"]
    assert codes == ["empty_body", *broken]
    assert replies[2].message == graded.message
    assert list(replies[1].to_frame()["error_code"]) == ["unreadable_file"]
    assert "empty_body" in replies[0]._repr_html_()
    with pytest.raises(KneeOaError, match="no body"):
        replies[0].draw()


def test_a_joint_that_is_too_large_for_a_message_costs_its_own_film_only(service, monkeypatch):
    monkeypatch.setattr("kneeoa.messages.MAX_CROP", 200)

    replies = list(service.grade_many([SAMPLE, b"no film"]))

    assert [reply.error.code for reply in replies] == ["corrupt_image", "unsupported_media_type"]


def test_a_network_that_fails_on_a_batch_grades_its_films_alone(service, graded):
    class Small:
        """As a card that has no room for more than one film."""

        def __getattr__(self, name):
            return getattr(service.grader, name)

        def grade(self, joints, *rest):
            if len(joints) > 2:
                raise MemoryError
            return service.grader.grade(joints, *rest)

    small = KneeOA(detector=service.detector, grader=Small())

    replies = list(small.grade_many([SAMPLE, b"no film", SAMPLE], explain="KL"))

    assert [reply.status for reply in replies] == ["ok", "error", "ok"]
    assert replies[2].message == graded.message


def test_films_are_read_as_their_replies_are_asked_for(service):
    taken = count()
    films = (b"no film" for _ in iter(lambda: next(taken), 100))

    next(service.grade_many(films, batch=3))

    assert next(taken) == 3


@pytest.mark.parametrize(
    ("film", "code"),
    [
        (b"no film", "unsupported_media_type"),
        ("/nowhere/film.dcm", "unreadable_file"),
        (None, "bad_request"),
        (np.zeros((100, 100, 3), np.uint8), "bad_request"),
        (np.full((100, 100), np.nan), "bad_request"),
        (np.zeros((100, 100), complex), "bad_request"),
        (np.zeros((100, 100)), "not_a_radiograph"),
        (np.zeros((0, 100)), "corrupt_image"),
        (np.zeros((1, 20_000), np.uint8), "too_large"),
    ],
)
def test_a_film_that_cannot_be_graded_raises_its_code(service, film, code):
    with pytest.raises(KneeOaError) as caught:
        service.grade(film)

    assert caught.value.code == code


@pytest.mark.parametrize(
    "asked",
    [{"side": "left"}, {"explain": "knee"}, {"explain": ["KL", "XX"]}, {"spacing_mm": 0}, {"spacing_mm": (1, 2, 3)}],
)
def test_what_makes_no_sense_is_refused(service, pixels, asked):
    with pytest.raises(BadRequest):
        service.grade(pixels[:, : pixels.shape[1] // 2], **asked)


@pytest.mark.parametrize("asked", [{"explain": "XX"}, {"side": "left"}, {"spacing_mm": 100}, {"batch": 0}])
def test_options_of_many_are_refused_before_the_first_film(service, asked):
    with pytest.raises(BadRequest):
        service.grade_many([], **asked)


def test_the_side_of_a_single_knee_can_be_told(service, pixels):
    half = pixels[:, : pixels.shape[1] // 2]

    (told,), (untold,) = service.grade(half, side="R").knees, service.grade(half).knees

    assert (told.knee, told.side_source, told.grades["FM"].withheld) == ("R", "request", None)
    assert untold.grades["FM"].withheld == "unknown_side"


def test_neither_array_nor_dataset_is_changed(pixels):
    array, film = gradient(bits=8).astype(np.float32), dcmread(SAMPLE)
    before, meta = array.copy(), str(film.file_meta)

    read(array).pixels[:] = 0
    read(film)

    assert (array == before).all()
    assert str(film.file_meta) == meta


def test_the_command_line_grades_without_a_server(service, graded, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("kneeoa_cli.local.KneeOA", lambda: service)
    monkeypatch.setenv("KNEEOA_SERVER", "http://127.0.0.1:9")
    (tmp_path / "broken.png").write_bytes(b"no film")
    to = ["--json", str(tmp_path / "replies"), "--figures", str(tmp_path / "figures")]

    assert main(["grade", "--local", str(SAMPLE), str(tmp_path), *to]) == 1

    assert json.loads((tmp_path / "replies/bilateral.json").read_text()) == graded.message
    assert json.loads((tmp_path / "replies/broken.json").read_text())["error"]["code"] == "unsupported_media_type"
    assert (tmp_path / "figures/bilateral.png").stat().st_size > 10_000
    assert "KL" in capsys.readouterr().out


def test_the_command_line_tells_its_version(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])

    assert ended.value.code == 0
    assert capsys.readouterr().out == f"kneeoa {__version__}\n"
