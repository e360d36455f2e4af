"""TorchServe handler: detection message in, reply with eight grades per knee out."""

import logging
import os
from pathlib import Path

import cv2
import numpy as np
import torch

from kneeoa.clock import Clock
from kneeoa.errors import BadRequest, InternalError, KneeOaError
from kneeoa.grading.grader import GradedKnee, Grader
from kneeoa.messages import Message, decode_png, parse_detection, parse_tasks, shown_as
from kneeoa.reply import build_reply
from kneeoa.serving import answer, body_of, header, no_sooner
from kneeoa.tasks import Laterality
from kneeoa.telemetry import Reference, Telemetry

log = logging.getLogger(__name__)
EXPLAIN_HEADER = "x-kneeoa-explain"
Joint = tuple[np.ndarray, Laterality, frozenset[str]]  # the side it looks like, the tasks to explain


class GraderHandler:
    """All found knees of a batch go through the network together; items fail alone."""

    def initialize(self, context) -> None:  # noqa: ANN001  (TorchServe's Context)
        properties = context.system_properties
        threads = int(context.model_yaml_config.get("threads", max(1, (os.cpu_count() or 1) // 2)))
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.least_seconds = float(context.model_yaml_config.get("least_seconds", 0))
        gpu = properties.get("gpu_id")
        use_gpu = torch.cuda.is_available() and gpu is not None
        device = torch.device("cuda", int(gpu)) if use_gpu else torch.device("cpu")
        folder = Path(properties["model_dir"])
        self.grader = Grader.from_file(folder / "grader.safetensors", device=device)
        reference = Reference.from_file(folder / "reference.json", self.grader.identity["sha256"])
        self.telemetry = Telemetry(context, "grader", self.grader.identity, reference)

    def handle(self, data: list[dict], context) -> list[bytes]:  # noqa: ANN001
        clock = Clock()
        with no_sooner(self.least_seconds):
            with clock("decode"):
                items = [self._read(row, header(context, i, EXPLAIN_HEADER)) for i, row in enumerate(data)]
            with clock("grade"):
                graded = self._grade([joint for _, found in items for joint in found])
            with clock("encode"):
                if graded is None:
                    items = [(InternalError(stage="grade"), []) for _ in items]
                grades = iter(graded or [])
                messages = [build_reply(m, [next(grades) for _ in found], self.grader) for m, found in items]
                replies = answer(messages, context)
        self.telemetry.stages(clock)
        self.telemetry.answered(messages, context, [[image for image, *_ in found] for _, found in items])
        return replies

    def _grade(self, joints: list[Joint]) -> list[GradedKnee] | None:
        """One grade a joint, or None where the network failed."""
        try:
            return self.grader.grade(*map(list, zip(*joints, strict=True))) if joints else []
        except Exception as error:  # the type only: a message may quote the input
            log.error("grader failed: %s", type(error).__name__)
            return None

    def _read(self, row: dict, explain: str | None) -> tuple[Message | KneeOaError, list[Joint]]:
        """The parsed request, or the error that is its answer, and its joints."""
        try:
            message = parse_detection(body_of(row))
            tasks = parse_tasks(explain, message)
            knees = [knee for knee in message["knees"] if knee["status"] == "found"]
            return message, [(decode_png(knee["crop"]), shown_as(knee), tasks) for knee in knees]
        except KneeOaError as error:
            return error, []
        except Exception as error:
            log.error("grader could not read a request: %s", type(error).__name__)
            return BadRequest("the detection message is malformed", stage="grade"), []
