"""The whole pipeline in this process: a film in, eight grades per knee out. The handlers take the same steps."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from kneeoa import SAMPLE
from kneeoa.detection.detector import Detector
from kneeoa.detection.message import detection_of, or_error
from kneeoa.errors import BadRequest, error_of
from kneeoa.graded_film import GradedFilm
from kneeoa.grading.grader import Grader
from kneeoa.imaging import decode
from kneeoa.imaging.inputs import Source, Spacing, as_spacing, read
from kneeoa.imaging.radiograph import Radiograph
from kneeoa.messages import Message, parse_side, parse_tasks
from kneeoa.reply import item_of, replies_of
from kneeoa.tasks import Laterality
from kneeoa.weights import read_weights

WEIGHTS = Path(__file__).parent / "data"


@dataclass(frozen=True)
class _Asked:
    """What is asked of every film."""

    spacing_mm: Spacing | None
    side: Laterality | None
    tasks: frozenset[str]
    any_view: bool


class KneeOA:
    """Grades knee osteoarthritis on radiographs, in this process, without a server. Research software, not a medical device.

    Parameters
    ----------
    weights : path
        A folder with ``detector.safetensors`` and ``grader.safetensors``; those of the package by default.
    device : str
        On which the grader runs, in PyTorch's notation: ``cpu``, ``cuda``, ``cuda:1`` …
    runtime : str
        What runs the grader's networks on a CPU: ``eager`` (PyTorch), ``inductor`` (needs a C++ compiler) or ``openvino``
        (``pip install 'kneeoa[openvino]'``). The last two are compiled the first time and kept in the user's cache.
    detector, grader
        Used in place of those given by ``weights`` and ``device``.

    Raises
    ------
    WeightsError
        If the weights are missing or do not fit this version.
    KneeOaError
        If ``runtime`` cannot be had here, or would change grades.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] = WEIGHTS,
        *,
        device: str = "cpu",
        runtime: str = "eager",
        detector: Detector | None = None,
        grader: Grader | None = None,
    ) -> None:
        folder = Path(weights)
        self.detector = detector or Detector.from_file(folder / "detector.safetensors")
        self.grader = grader or self._grader(folder / "grader.safetensors", device, runtime)

    def _grader(self, path: Path, device: str, runtime: str) -> Grader:
        if runtime == "eager":
            return Grader.from_file(path, device=device)
        from kneeoa.grading.compiled import compiled_here

        weights = read_weights(path, "grader")
        knees = self.detector.detect(decode(SAMPLE.read_bytes()))[1]
        compiled = compiled_here(weights, runtime, [knee.crop for knee in knees if knee.crop is not None])
        return Grader(weights, device=device, compiled=compiled)

    def grade(
        self,
        film: Source,
        *,
        spacing_mm: Spacing | None = None,
        side: str | None = None,
        explain: str | Iterable[str] = (),
        any_view: bool = False,
    ) -> GradedFilm:
        """The reply to one film.

        Parameters
        ----------
        film
            A path, the bytes of a DICOM, PNG, JPEG or TIFF file, a pydicom Dataset, or a grey image as an array (h, w).
        spacing_mm : float or (row, column)
            Millimetres between pixels, where the film itself does not say; a knee of an impossible size is rejected.
        side : ``R`` or ``L``
            Of a film of one knee that does not give the side itself.
        explain : str or iterable of str
            The tasks to make Grad-CAM heat maps of: ``"KL"``, ``"KL,FM"`` or ``["KL", "FM"]``.
        any_view : bool
            Also grade films whose header names a non-frontal view.

        Raises
        ------
        KneeOaError
            If the film cannot be graded or an argument is invalid; its ``code`` says why (docs/api.md).
        """
        asked = _asked(spacing_mm, side, explain, any_view)
        (reply,) = self._replies([film], [self._detection(film, asked)], asked)
        if reply.error:
            raise error_of(reply.message["error"])
        return reply

    def grade_many(
        self,
        films: Iterable[Source],
        *,
        batch: int = 4,
        spacing_mm: Spacing | None = None,
        side: str | None = None,
        explain: str | Iterable[str] = (),
        any_view: bool = False,
    ) -> Iterator[GradedFilm]:
        """Replies in the order of the films, as they are asked for; the knees of ``batch`` films are graded together.

        The other parameters are those of `grade`, for every film. A film that cannot be graded has a reply whose ``error``
        says why, and costs no other film its own.

        Raises
        ------
        KneeOaError
            If what is asked makes no sense.
        """
        if batch < 1:
            raise BadRequest("a batch must have at least one film")
        return self._many(iter(films), batch, _asked(spacing_mm, side, explain, any_view))

    def _many(self, films: Iterator[Source], batch: int, asked: _Asked) -> Iterator[GradedFilm]:
        while some := list(islice(films, batch)):
            detections = [or_error(partial(self._detection, film, asked), self.detector) for film in some]
            yield from self._replies(some, detections, asked)

    def _replies(self, films: Sequence[Source], detections: Sequence[Message], asked: _Asked) -> Iterator[GradedFilm]:
        items = [item_of(detection, asked.tasks) for detection in detections]
        return map(GradedFilm.of, replies_of(items, self.grader), films)

    def _detection(self, film: Source, asked: _Asked) -> Message:
        radiograph = read(film, asked.spacing_mm, self._decode)
        return detection_of(self.detector, radiograph, asked.side, any_view=asked.any_view)

    @cached_property
    def _decode(self) -> Callable[[bytes], Radiograph]:
        """In a process with limits, which a film may crash, where the system lets us."""
        if sys.platform != "linux":
            return decode
        from kneeoa.imaging.guarded import GuardedDecoder

        return GuardedDecoder()


def _asked(spacing_mm: Spacing | None, side: str | None, explain: str | Iterable[str], any_view: bool) -> _Asked:
    tasks = explain if isinstance(explain, str) else ",".join(explain)
    return _Asked(as_spacing(spacing_mm), parse_side(side), parse_tasks(tasks, {}), any_view)
