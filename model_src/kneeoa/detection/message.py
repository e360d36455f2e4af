"""The detector's answer to a film: the message that the grader takes, or the error that is the answer."""

import logging
from collections.abc import Callable

from kneeoa.detection.detector import Detector
from kneeoa.errors import InternalError, KneeOaError
from kneeoa.imaging.prepare import for_display
from kneeoa.imaging.radiograph import Radiograph
from kneeoa.messages import DETECTION_SCHEMA, Message, envelope, preview_of
from kneeoa.tasks import Laterality
from kneeoa.timing import Clock

log = logging.getLogger(__name__)


def detection_of(
    detector: Detector,
    radiograph: Radiograph,
    side: Laterality | None = None,
    *,
    any_view: bool = False,
    preview: bool = False,
    clock: Clock | None = None,
) -> Message:
    """The detection message of a film, with what a figure is drawn from where a ``preview`` is asked for.

    The other parameters, and what it raises, are those of `Detector.detect`.
    """
    clock = clock or Clock()
    film, knees = detector.detect(radiograph, side, clock, any_view)
    with clock("encode"):
        message = envelope(
            DETECTION_SCHEMA, film=film, knees=[knee.to_json() for knee in knees], model={"detector": detector.identity}
        )
        if preview:
            message["preview"] = preview_of(for_display(radiograph, film["polarity"]))
    return message


def or_error(work: Callable[[], Message], detector: Detector) -> Message:
    """The detection message that ``work`` makes, or one that says why there is none."""
    try:
        return work()
    except KneeOaError as error:
        problem = error
    except Exception as error:  # the type only: a message may quote the file
        log.error("detector failed: %s", type(error).__name__)
        problem = InternalError(stage="detect")
    return envelope(DETECTION_SCHEMA, problem, model={"detector": detector.identity})
