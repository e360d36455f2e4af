"""TorchServe handler: detection message in, reply with eight grades per knee out."""

import logging
import os
from pathlib import Path
from typing import Any

import cv2
import torch

from kneeoa.errors import BadRequest, KneeOaError
from kneeoa.grading.grader import Grader
from kneeoa.messages import parse_detection, parse_tasks
from kneeoa.reply import Item, joints_of, replies_of
from kneeoa.timing import Clock
from kneeoa.torchserve.metrics import Reference, Telemetry
from kneeoa.torchserve.request import answer, body_of, header, no_sooner

log = logging.getLogger(__name__)
EXPLAIN_HEADER = "x-kneeoa-explain"


class GraderHandler:
    """All found knees of a batch go through the network together; items fail alone."""

    def initialize(self, context: Any) -> None:
        properties = context.system_properties
        threads = int(context.model_yaml_config.get("threads", max(1, (os.cpu_count() or 1) // 2)))
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.least_seconds = float(context.model_yaml_config.get("least_seconds", 0))
        gpu = properties.get("gpu_id")
        use_gpu = torch.cuda.is_available() and gpu is not None
        device = torch.device("cuda", int(gpu)) if use_gpu else torch.device("cpu")
        folder = Path(properties["model_dir"])
        self.grader = Grader.from_file(folder / "grader.safetensors", device=device, compiled=folder / "compiled")
        reference = Reference.from_file(folder / "reference.json", self.grader.identity["sha256"])
        self.telemetry = Telemetry(context, "grader", self.grader.identity, reference, self.grader.runtime)

    def handle(self, data: list[dict], context: Any) -> list[bytes]:
        clock = Clock()
        with no_sooner(self.least_seconds):
            with clock("decode"):
                items = [self._read(row, header(context, i, EXPLAIN_HEADER)) for i, row in enumerate(data)]
            messages = replies_of(items, self.grader, clock)
            with clock("encode"):
                replies = answer(messages, context)
        self.telemetry.stages(clock)
        found = [found if message["knees"] else [] for message, (_, found) in zip(messages, items, strict=True)]
        self.telemetry.answered(messages, context, [[image for image, *_ in joints] for joints in found])
        return replies

    def _read(self, row: dict, explain: str | None) -> Item:
        """The parsed request, or the error that is its answer, and its joints."""
        try:
            message = parse_detection(body_of(row))
            return message, joints_of(message, parse_tasks(explain, message))
        except KneeOaError as error:
            return error, []
        except Exception as error:
            log.error("grader could not read a request: %s", type(error).__name__)
            return BadRequest("the detection message is malformed", stage="grade"), []
