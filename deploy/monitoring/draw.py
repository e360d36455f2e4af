"""Draws the dashboard's panels as Prometheus fills them, for those who have no Grafana: docs/dashboard.png."""

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import matplotlib
import requests
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SOURCE = Path(__file__).with_name("grafana") / "kneeoa.json"
POINTS = 240  # along a panel
GRID = 24  # Grafana's columns
COLOURS = matplotlib.color_sequences["tab10"]
UNITS = {"s": "s", "reqps": "1/s", "percentunit": "%", "bytes": "MB"}
SCALES = {"percentunit": 100.0, "bytes": 1 / 2**20}


def dashboard(prometheus: str, out: Path, minutes: float) -> None:
    """The last minutes of every panel of grafana/kneeoa.json, laid out as there."""
    panels = json.loads(SOURCE.read_text())["panels"]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(16, rows * 0.36), facecolor="#f4f5f5")
    grid = figure.add_gridspec(rows, GRID, left=0.03, right=0.99, top=0.99, bottom=0.02, wspace=3.2, hspace=4.0)
    for panel in panels:
        at = panel["gridPos"]
        axes = figure.add_subplot(grid[at["y"] : at["y"] + at["h"], at["x"] : at["x"] + at["w"]])
        axes.set_title(panel["title"], fontsize=10, loc="left", fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        series = [line for target in panel["targets"] for line in _ask(prometheus, target, minutes)]
        (_number if panel["type"] == "stat" else _lines)(axes, panel, series)
    figure.savefig(out, dpi=90)


def _ask(prometheus: str, target: dict[str, str], minutes: float) -> list[tuple[str, list[float], list[float]]]:
    """(legend, minutes from now, values) of each series of one target."""
    end = time.time()
    window = {"query": target["expr"], "start": end - 60 * minutes, "end": end, "step": 60 * minutes / POINTS}
    answer = requests.get(f"{prometheus}/api/v1/query_range", window, timeout=30).json()
    lines = []
    for found in answer["data"]["result"]:
        labels = found["metric"]
        legend = re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), target.get("legendFormat", ""))  # noqa: B023
        moments, values = zip(*found["values"], strict=True)
        lines.append((legend, [(t - end) / 60 for t in moments], [float(value) for value in values]))
    return lines


def _number(axes: Axes, panel: dict[str, Any], series: list[tuple[str, list[float], list[float]]]) -> None:
    defaults, value = panel["fieldConfig"]["defaults"], series[0][2][-1]
    steps = defaults.get("thresholds", {"steps": [{"color": "black", "value": None}]})["steps"]
    colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    text = {"percentunit": f"{value:.1%}", "s": f"{value / 86400:.0f} days"}.get(defaults["unit"], f"{value:.0f}")
    if panel.get("options", {}).get("textMode") == "name":
        text = "\n".join(sorted({legend for legend, _, _ in series}))
    size = 11 if "\n" in text else 24
    axes.text(0.5, 0.45, text, fontsize=size, color=colour, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def _lines(axes: Axes, panel: dict[str, Any], series: list[tuple[str, list[float], list[float]]]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    scale = SCALES.get(defaults["unit"], 1.0)
    for number, (legend, moments, values) in enumerate(series):
        style = {"color": COLOURS[number % len(COLOURS)], "linestyle": ("-", "--", ":")[number // len(COLOURS) % 3]}
        axes.plot(moments, [scale * value for value in values], label=legend, linewidth=1.4, **style)
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None:
            axes.axhline(scale * step["value"], color=step["color"], linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(UNITS.get(defaults["unit"], ""), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6.5, frameon=False, ncols=2 if len(series) > 5 else 1, loc="upper left")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("docs/dashboard.png"))
    arguments = parser.parse_args()
    dashboard(arguments.prometheus, arguments.out, arguments.minutes)
