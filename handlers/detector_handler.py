"""TorchServe handler: file bytes in, detection message out. Bad input is an answer, never a failed node."""

import logging
import os
from pathlib import Path

import cv2
import torch

from kneeoa.clock import Clock
from kneeoa.detection.detector import Detector
from kneeoa.errors import BadRequest, InternalError, KneeOaError
from kneeoa.imaging.guarded import GuardedDecoder
from kneeoa.imaging.prepare import for_display
from kneeoa.messages import DETECTION_SCHEMA, Message, envelope, preview_of
from kneeoa.serving import answer, body_of, header, no_sooner
from kneeoa.tasks import Laterality
from kneeoa.telemetry import Telemetry

log = logging.getLogger(__name__)
SIDE_HEADER = "x-knee-side"
FIGURE_HEADER = "x-kneeoa-figure"
ANY_VIEW_HEADER = "x-kneeoa-any-view"


class DetectorHandler:
    """One item is one film; items fail alone and the batch keeps its length."""

    def initialize(self, context) -> None:  # noqa: ANN001  (TorchServe's Context)
        folder = Path(context.system_properties["model_dir"])
        threads = int(context.model_yaml_config.get("threads", max(1, (os.cpu_count() or 1) // 2)))
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.least_seconds = float(context.model_yaml_config.get("least_seconds", 0))
        self.decode = GuardedDecoder()
        self.detector = Detector.from_file(folder / "detector.safetensors")
        self.telemetry = Telemetry(context, "detector", self.detector.identity)

    def handle(self, data: list[dict], context) -> list[bytes]:  # noqa: ANN001
        with no_sooner(self.least_seconds):
            messages = [self._one(row, context, i) for i, row in enumerate(data)]
            replies = answer(messages, context)
        self.telemetry.answered(messages, context)
        return replies

    def _one(self, row: dict, context, index: int) -> Message:  # noqa: ANN001
        model, clock = {"detector": self.detector.identity}, Clock()
        try:
            side = header(context, index, SIDE_HEADER)
            if side not in (None, "R", "L"):
                raise BadRequest("the header X-Knee-Side must be R or L")
            figure = header(context, index, FIGURE_HEADER)
            if figure not in (None, "png"):
                raise BadRequest("the header X-Kneeoa-Figure must be png")
            any_view = header(context, index, ANY_VIEW_HEADER)
            if any_view not in (None, "yes"):
                raise BadRequest("the header X-Kneeoa-Any-View must be yes")
            with clock("decode"):
                radiograph = self.decode(body_of(row))
            film, knees = self.detector.detect(radiograph, Laterality(side) if side else None, clock, bool(any_view))
            with clock("encode"):
                message = envelope(DETECTION_SCHEMA, film=film, knees=[knee.to_json() for knee in knees], model=model)
                if figure:
                    message["preview"] = preview_of(for_display(radiograph, film["polarity"]))
            self.telemetry.stages(clock)
            return message
        except KneeOaError as error:
            return envelope(DETECTION_SCHEMA, error, model=model)
        except Exception as error:  # the type only: a message may quote the file
            log.error("detector failed: %s", type(error).__name__)
            return envelope(DETECTION_SCHEMA, InternalError(stage="detect"), model=model)
