"""What a node tells Prometheus, through TorchServe's metrics (handlers/metrics.yaml; docs/operations.md says what each means).

Everything is taken from the messages that cross a border. Labels come from closed lists: no patient, file or client has a name
here, and no client can drive up the number of series.
"""

import json
import logging
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kneeoa.errors import BY_CODE, KneeOaError
from kneeoa.messages import Message
from kneeoa.tasks import TASKS
from kneeoa.timing import Clock
from kneeoa.torchserve.request import header

log = logging.getLogger(__name__)
# Checks say so, are counted as such and kept out of everything that describes films and knees.
PROBE_HEADER = "x-kneeoa-probe"
# "t=" and milliseconds since 1970, when the gateway or the client saw the request begin.
START_HEADER = "x-request-start"
# TorchServe's own histograms have few, fixed buckets; these are a fifth apart, so that a quantile means something.
WITHIN = tuple(float(f"{0.05 * 1.2**step:.2g}") for step in range(39))  # s, 0.05 … 51
CODES = {"none", KneeOaError.code, *BY_CODE}


@dataclass(frozen=True)
class Reference:
    """The population that the weights are at home in (model_src/weights/reference.json).

    Attributes
    ----------
    edges : dict
        Inner edges of the bins of each quantity that is no grade: ``score`` and ``intensity``.
    shares : dict
        Share of knees by quantity and bin; for a task the bin is the grade.
    """

    edges: dict[str, list[float]] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def from_file(cls, path: Path, weights_sha256: str) -> "Reference":
        """The stored one; an empty one where there is none for these weights."""
        stored = json.loads(path.read_text()) if path.exists() else {}
        return cls(stored["edges"], stored["shares"]) if stored.get("grader") == weights_sha256 else cls()

    def bins(self, knee: Message, joint: np.ndarray | None = None) -> Iterator[tuple[str, int]]:
        """(quantity, bin) of one graded knee of a reply and its main joint, uint8 (h, w)."""
        for task in TASKS:
            if knee["grades"][task.name]["grade"] is not None:
                yield task.name, knee["grades"][task.name]["grade"]
        values = {"score": knee.get("score"), "intensity": None if joint is None else joint.mean()}
        for quantity, value in values.items():
            if quantity in self.edges and isinstance(value, float):
                yield quantity, bisect_right(self.edges[quantity], value)


class Telemetry:
    """One worker's numbers. Counts are added up until `flush`, since each line that is sent costs the server some work.

    Parameters
    ----------
    context
        TorchServe's; metrics that its configuration does not name are left out.
    node : ``detector`` or ``grader``
    identity : dict
        Version and sha256 of the weights.
    reference : Reference, optional
    runtime : str
        What runs the networks.
    """

    def __init__(
        self,
        context: Any,
        node: str,
        identity: dict[str, str],
        reference: Reference | None = None,
        runtime: str = "eager",
    ) -> None:
        kinds = getattr(getattr(context, "metrics", None), "cache", {})
        self._metrics = {name: metric for kind in kinds.values() for name, metric in kind.items()}
        self._counts: Counter[tuple[str, ...]] = Counter()
        self.node, self.reference = node, reference or Reference()
        self.set("kneeoa_model_info", 1, node, identity["version"], identity["sha256"][:12], runtime)
        for service in ("workflow", "plain"):  # a counter that starts at its first event has no rate for it
            self.count("kneeoa_requests_total", service, node, "ok", "none", by=0)
            self.count("kneeoa_requests_total", service, node, "error", KneeOaError.code, by=0)
            for limit in (*WITHIN, "+Inf") if _answers_users(node, service) else ():
                self.count("kneeoa_requests_within_total", service, node, str(limit), by=0)
        if node == "grader":
            self.count("kneeoa_disagreements_total", by=0)
        for quantity, shares in self.reference.shares.items():
            for step, share in enumerate(shares):
                self.set("kneeoa_reference_share", share, quantity, str(step))
                self.count("kneeoa_population_total", quantity, str(step), by=0)
        self.flush()

    def set(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge, or add to a histogram."""
        if name in self._metrics:
            self._metrics[name].add_or_update(float(value), list(labels))

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Add to a counter, at the next `flush`."""
        self._counts[(name, *labels)] += by

    def flush(self) -> None:
        """Send what was counted."""
        for (name, *labels), number in self._counts.items():
            self.set(name, number, *labels)
        self._counts.clear()

    def stages(self, clock: Clock) -> None:
        """How long the stages took."""
        for stage, seconds in clock.seconds.items():
            self.set("kneeoa_stage_seconds", seconds, self.node, stage)

    def answered(self, messages: list[Message], context: Any, joints: list[list[np.ndarray]] | None = None) -> None:
        """Everything about one batch's answers, once they are all there; the grader adds the main joints of each."""
        try:
            services = [self._request(message, context, index) for index, message in enumerate(messages)]
            asked = [index for index, service in enumerate(services) if service != "probe"]
            if asked:
                self.set("kneeoa_batch_size", len(messages), self.node)
            for index in asked:
                if self.node == "detector":
                    self._film(messages[index])
                else:
                    self._grades(messages[index], joints[index] if joints else [])
            self.flush()
        except Exception as error:  # a number must not cost an answer
            log.error("telemetry failed: %s", type(error).__name__)

    def _request(self, message: Message, context: Any, index: int) -> str:
        """Counts one request and returns its service: ``workflow``, ``plain`` or ``probe``."""
        in_workflow = "__" in str(context.model_name)  # the nodes are knee_oa__detector and knee_oa__grader
        service = "workflow" if in_workflow else "plain"
        if header(context, index, PROBE_HEADER):
            service = "probe"
        code = message["error"]["code"] if message["error"] else "none"
        known = code if code in CODES else "other"  # the grader also answers messages that were made by hand
        self.count("kneeoa_requests_total", service, self.node, message["status"], known)
        waited = _since(header(context, index, START_HEADER))
        if waited is not None and _answers_users(self.node, service):
            for limit in WITHIN[bisect_left(WITHIN, waited) :]:
                self.count("kneeoa_requests_within_total", service, self.node, str(limit))
            self.count("kneeoa_requests_within_total", service, self.node, "+Inf")
        return service

    def _film(self, message: Message) -> None:
        for knee in message["knees"]:
            self.count("kneeoa_knees_total", knee["status"], knee["side_source"])
            if knee["score"] is not None:
                self.set("kneeoa_detection_score", knee["score"])
        if film := message.get("film"):
            syntax = "".join(c if c.isalnum() else "_" for c in film["transfer_syntax"] or "raster")
            self.count("kneeoa_inputs_total", syntax, str(film["bits"]), film["polarity"])

    def _grades(self, message: Message, joints: list[np.ndarray]) -> None:
        graded = [knee for knee in message["knees"] if knee["status"] == "graded"]
        for knee, joint in zip(graded, joints, strict=True):
            for quantity, step in self.reference.bins(knee, joint):
                self.count("kneeoa_population_total", quantity, str(step))
            for task, grade in knee["grades"].items():
                if grade["grade"] is not None:
                    self.set("kneeoa_top_probability", max(grade["probabilities"]), task)
            if knee["gate_lateral_share"] is not None:
                self.set("kneeoa_gate_lateral_share", knee["gate_lateral_share"])
            self.count("kneeoa_disagreements_total", by=int(not knee["oa_kl_consistent"]))


def _answers_users(node: str, service: str) -> bool:
    """Whether this node's answer is what a user waits for: in the workflow only the grader's is."""
    return service == "plain" or (service == "workflow" and node == "grader")


def _since(started: str | None) -> float | None:
    """Seconds since the time in a request-start header; None where there is none to be believed."""
    try:
        seconds = time.time() - float((started or "").removeprefix("t=")) / 1000
    except ValueError:
        return None
    return seconds if 0 <= seconds < 3600 else None
