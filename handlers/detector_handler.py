"""TorchServe handler: file bytes in, detection message out. Bad input is an answer, never a failed node."""

import os
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch

from kneeoa.detection.detector import Detector
from kneeoa.detection.message import detection_of, or_error
from kneeoa.errors import BadRequest
from kneeoa.imaging.guarded import GuardedDecoder
from kneeoa.messages import Message, parse_side
from kneeoa.timing import Clock
from kneeoa.torchserve.metrics import Telemetry
from kneeoa.torchserve.request import answer, body_of, header, no_sooner

SIDE_HEADER = "x-knee-side"
FIGURE_HEADER = "x-kneeoa-figure"
ANY_VIEW_HEADER = "x-kneeoa-any-view"


class DetectorHandler:
    """One item is one film; items fail alone and the batch keeps its length."""

    def initialize(self, context: Any) -> None:
        folder = Path(context.system_properties["model_dir"])
        threads = int(context.model_yaml_config.get("threads", max(1, (os.cpu_count() or 1) // 2)))
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.least_seconds = float(context.model_yaml_config.get("least_seconds", 0))
        self.decode = GuardedDecoder()
        self.detector = Detector.from_file(folder / "detector.safetensors")
        self.telemetry = Telemetry(context, "detector", self.detector.identity)

    def handle(self, data: list[dict], context: Any) -> list[bytes]:
        with no_sooner(self.least_seconds):
            messages = [or_error(partial(self._one, row, context, i), self.detector) for i, row in enumerate(data)]
            replies = answer(messages, context)
        self.telemetry.answered(messages, context)
        return replies

    def _one(self, row: dict, context: Any, index: int) -> Message:
        clock = Clock()
        side = parse_side(header(context, index, SIDE_HEADER))
        figure = header(context, index, FIGURE_HEADER)
        if figure not in (None, "png"):
            raise BadRequest("the header X-Kneeoa-Figure must be png")
        any_view = header(context, index, ANY_VIEW_HEADER)
        if any_view not in (None, "yes"):
            raise BadRequest("the header X-Kneeoa-Any-View must be yes")
        with clock("decode"):
            radiograph = self.decode(body_of(row))
        message = detection_of(
            self.detector, radiograph, side, any_view=bool(any_view), preview=bool(figure), clock=clock
        )
        self.telemetry.stages(clock)
        return message
