"""The corridor from end to end, in this process: a film in, eight grades a knee out. The handlers take the same steps."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

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

WEIGHTS = Path(__file__).parent / "data"


@dataclass(frozen=True)
class _Asked:
    """What is asked of every film."""

    spacing_mm: Spacing | None
    side: Laterality | None
    tasks: frozenset[str]
    any_view: bool


class KneeOA:
    """Grades knee osteoarthritis on radiographs, in this process; no server. Research software, not a medical device.

    Parameters
    ----------
    weights : path
        A folder with ``detector.safetensors`` and ``grader.safetensors``; those of the package by default.
    device : str
        The grader's, as PyTorch calls it: ``cpu``, ``cuda``, ``cuda:1`` …
    detector, grader
        Instead of those that ``weights`` and ``device`` name.

    Raises
    ------
    WeightsError
        If the weights are not there or do not fit this version.
    """

    def __init__(
        self,
        weights: str | os.PathLike[str] = WEIGHTS,
        *,
        device: str = "cpu",
        detector: Detector | None = None,
        grader: Grader | None = None,
    ) -> None:
        folder = Path(weights)
        self.detector = detector or Detector.from_file(folder / "detector.safetensors")
        self.grader = grader or Grader.from_file(folder / "grader.safetensors", device=device)

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
            Of a film of one knee that does not say so itself.
        explain : str or iterable of str
            The tasks that get a Grad-CAM heat map: ``"KL"``, ``"KL,FM"`` or ``["KL", "FM"]``.
        any_view : bool
            Grade films whose header names a view that is not frontal, too.

        Raises
        ------
        KneeOaError
            If the film cannot be graded, or what is asked makes no sense; its ``code`` says why (docs/api.md).
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
            raise BadRequest("a batch has at least one film")
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
