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
CELL = 0.68, 0.4  # inches, of Grafana's grid of 24 columns
MARGINS = 0.5, 0.15, 0.35, 0.45  # inches around a panel: left, right, top, bottom
COLOURS, STYLES = matplotlib.color_sequences["tab10"], ("-", "--", ":")
UNITS = {"s": "s", "reqps": "1/s", "percentunit": "%", "bytes": "MB"}
SCALES = {"percentunit": 100.0, "bytes": 1 / 2**20}
Series = tuple[str, list[float], list[float]]  # legend, minutes from now, values


def dashboard(prometheus: str, out: Path, minutes: float) -> None:
    """The last minutes of every panel of grafana/kneeoa.json, laid out as there."""
    panels = json.loads(SOURCE.read_text())["panels"]
    width, height = 24 * CELL[0], CELL[1] * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(width, height), facecolor="#f4f5f5")
    for panel in panels:
        x, y, w, h = (panel["gridPos"][key] * CELL[key in "yh"] for key in "xywh")
        left, right, top, bottom = MARGINS
        place = x + left, height - y - h + bottom, w - left - right, h - top - bottom
        axes = figure.add_axes((place[0] / width, place[1] / height, place[2] / width, place[3] / height))
        axes.set_title(panel["title"], fontsize=10, loc="left", fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
        series = [line for target in panel["targets"] for line in _ask(prometheus, target, minutes)]
        if panel["type"] == "stat":
            _number(axes, panel, series)
        else:
            _lines(axes, panel, series, minutes)
    figure.savefig(out, dpi=90)


def _ask(prometheus: str, target: dict[str, Any], minutes: float) -> list[Series]:
    """Each series of one target that has values."""
    end = time.time()
    window = {"query": target["expr"], "start": end - 60 * minutes, "end": end, "step": 60 * minutes / POINTS}
    answer = requests.get(f"{prometheus}/api/v1/query_range", window, timeout=30).json()
    lines = []
    for found in answer["data"]["result"]:
        labels = found["metric"]
        legend = re.sub(r"\{\{(\w+)\}\}", lambda m: labels.get(m[1], ""), target.get("legendFormat", ""))  # noqa: B023
        points = [((moment - end) / 60, float(value)) for moment, value in found["values"] if value != "NaN"]
        if points:
            lines.append((legend, [moment for moment, _ in points], [value for _, value in points]))
    return lines


def _number(axes: Axes, panel: dict[str, Any], series: list[Series]) -> None:
    defaults, value = panel["fieldConfig"]["defaults"], series[0][2][-1]
    steps = defaults.get("thresholds", {"steps": [{"color": "black", "value": None}]})["steps"]
    colour = [step["color"] for step in steps if step["value"] is None or value >= step["value"]][-1]
    text = {"percentunit": f"{value:.1%}", "s": f"{value / 86400:.0f} days"}.get(defaults["unit"], f"{value:.0f}")
    if panel.get("options", {}).get("textMode") == "name":
        text = "\n".join(sorted({legend for legend, _, _ in series}))
    size = 10 if "\n" in text else 24
    axes.text(0.5, 0.45, text, fontsize=size, color=colour, ha="center", va="center", transform=axes.transAxes)
    axes.set_axis_off()


def _lines(axes: Axes, panel: dict[str, Any], series: list[Series], minutes: float) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    scale = SCALES.get(defaults["unit"], 1.0)
    names = [legend.partition(", ")[::2] for legend, _, _ in series]  # what it is, which of its lines
    kinds = [list(dict.fromkeys(name[part] for name in names)) for part in (0, 1)]
    for (name, which), (legend, moments, values) in zip(names, series, strict=True):
        style: dict[str, Any] = {
            "color": COLOURS[kinds[0].index(name) % len(COLOURS)],
            "linestyle": STYLES[kinds[1].index(which) % 3],
        }
        axes.plot(moments, [scale * value for value in values], label=legend, linewidth=1.4, **style)
    for step in defaults.get("thresholds", {}).get("steps", []):
        if step["value"] is not None:
            axes.axhline(scale * step["value"], color=step["color"], linewidth=0.8, linestyle=":")
    columns = 2 if len(series) > 2 and max(len(legend) for legend, _, _ in series) < 30 else 1
    axes.set_ylim(0, (axes.get_ylim()[1] or 1) * (1 + 0.1 * -(-len(series) // columns)))  # the legend's room
    axes.set_xlim(-minutes, 0)
    axes.set_xlabel("minutes", fontsize=8)
    axes.set_ylabel(UNITS.get(defaults["unit"], ""), fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6.5, frameon=False, ncols=columns, loc="upper left")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=Path("docs/dashboard.png"))
    arguments = parser.parse_args()
    dashboard(arguments.prometheus, arguments.out, arguments.minutes)
