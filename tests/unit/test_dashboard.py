"""Grafana takes the dashboard as we mean it, beside any Prometheus."""

import json
from typing import Any

import pytest

from tests.conftest import ROOT

pytest.importorskip("grafana_foundation_sdk", reason="Grafana's types need Python 3.11")

from grafana_foundation_sdk.cog.encoder import JSONEncoder  # noqa: E402
from grafana_foundation_sdk.cog.plugins import register_default_plugins  # noqa: E402
from grafana_foundation_sdk.models.dashboard import Dashboard  # noqa: E402

SOURCE = json.loads((ROOT / "deploy/monitoring/grafana/kneeoa.json").read_text())


def lost(ours: Any, theirs: Any, where: str = "") -> list[str]:
    """The values of ours that Grafana's types do not hold, each by its place."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [place for key in ours for place in lost(ours[key], theirs.get(key), f"{where}.{key}")]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            place for i, pair in enumerate(zip(ours, theirs, strict=True)) for place in lost(*pair, f"{where}[{i}]")
        ]
    return [] if ours == theirs else [where]


def as_grafana_reads(dashboard: dict[str, Any]) -> dict[str, Any]:
    register_default_plugins()
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))


def test_grafana_knows_every_field_of_the_dashboard():
    assert lost(SOURCE, as_grafana_reads(SOURCE)) == []


def test_a_field_that_grafana_does_not_know_would_be_told():
    panel = SOURCE["panels"][0]
    options = {"reduceOption": panel["options"]["reduceOptions"]}
    target = {**panel["targets"][0], "expression": "up"}
    spoilt = {**SOURCE, "panels": [{**panel, "options": options, "targets": [target]}, *SOURCE["panels"][1:]]}

    assert lost(spoilt, as_grafana_reads(spoilt)) == [
        ".panels[0].options.reduceOption",
        ".panels[0].targets[0].expression",
    ]


def test_every_panel_asks_the_data_source_that_the_reader_chose():
    (variable,) = SOURCE["templating"]["list"]

    assert (variable["type"], variable["query"]) == ("datasource", "prometheus")
    chosen = {"type": variable["query"], "uid": f"${{{variable['name']}}}"}
    assert [panel["datasource"] for panel in SOURCE["panels"]] == [chosen] * len(SOURCE["panels"])
    assert not any("datasource" in target for panel in SOURCE["panels"] for target in panel["targets"])
