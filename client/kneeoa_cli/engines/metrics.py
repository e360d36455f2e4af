"""The server's metrics through Ray's exporter: the same names, counted from the same messages by `Telemetry`."""

from typing import Any

from ray.util import metrics

NAMES: dict[str, tuple[type[metrics.Metric], tuple[str, ...]]] = {  # as handlers/metrics.yaml has them
    "kneeoa_requests_total": (metrics.Counter, ("service", "node", "outcome", "code")),
    "kneeoa_knees_total": (metrics.Counter, ("status", "side_source")),
    "kneeoa_inputs_total": (metrics.Counter, ("syntax", "bits", "polarity")),
    "kneeoa_population_total": (metrics.Counter, ("quantity", "bin")),
    "kneeoa_disagreements_total": (metrics.Counter, ()),
    "kneeoa_model_info": (metrics.Gauge, ("node", "version", "weights", "runtime")),
    "kneeoa_reference_share": (metrics.Gauge, ("quantity", "bin")),
    "kneeoa_stage_seconds": (metrics.Histogram, ("node", "stage")),
    "kneeoa_batch_size": (metrics.Histogram, ("node",)),
    "kneeoa_detection_score": (metrics.Histogram, ()),
    "kneeoa_top_probability": (metrics.Histogram, ("task",)),
    "kneeoa_gate_lateral_share": (metrics.Histogram, ()),
}
BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]  # TorchServe's


class Exporter:
    """Stands where `Telemetry` expects TorchServe's context: films of a batch, without headers."""

    model_name = "batch"  # no workflow's: they count as ``service="plain"``, as those of `kneeoa batch` on a server

    def __init__(self) -> None:
        self.metrics = self
        self.cache = {"all": {name: _Exported(name, *kind) for name, kind in NAMES.items()}}

    def get_all_request_header(self, index: int) -> dict[str, str]:
        return {}


class _Exported:
    def __init__(self, name: str, kind: type[metrics.Metric], labels: tuple[str, ...]) -> None:
        bounds = {"boundaries": BUCKETS} if kind is metrics.Histogram else {}
        self._metric: Any = kind(name, description=name, tag_keys=labels, **bounds)
        self._labels = labels

    def add_or_update(self, value: float, labels: list[str]) -> None:
        tags = dict(zip(self._labels, labels, strict=True))
        if isinstance(self._metric, metrics.Gauge):
            self._metric.set(value, tags)
        elif isinstance(self._metric, metrics.Histogram):
            self._metric.observe(value, tags)
        elif value:  # Ray's counters refuse to begin at 0
            self._metric.inc(value, tags)
