"""A film with what was found in it, on one page: where the knees are, what speaks for a finding, all eight grades.

Greys carry the grades and one colour map (cividis, even in lightness and safe for the colour-blind) the heat, so that a print in
grey says the same.
"""

import logging
from textwrap import fill

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from kneeoa.geometry import Box, crop
from kneeoa.imaging import decode
from kneeoa.imaging.prepare import for_display
from kneeoa.messages import Message, decode_png, encode_png, shown_as
from kneeoa.remarks import WORDS
from kneeoa.tasks import COMPARTMENT_TASKS, KL, OA, OA_FROM_KL, Laterality

log = logging.getLogger(__name__)
SIZE = 16.0, 9.0  # inches
DPI = 110
OPACITY = 0.55  # of the heat map at its maximum
FAINT = 0.35  # of that, where the grade is 0 or unsure
LINE, SHORT = 84, 50  # characters beside the narrowest film, and in the place of a joint
SURE = 0.5  # a grade's probability from which it is not
BLUE, YELLOW, ORANGE, INK = "#56b4e9", "#f0e442", "#e69f00", "#111111"  # the first three: Okabe and Ito


def displayed(data: bytes, reply: Message) -> np.ndarray:
    """A film as the service read it: bright bones, uint8 (h, w).

    Raises
    ------
    KneeOaError
        If it cannot be decoded.
    """
    return for_display(decode(data), reply["film"]["polarity"])


def figure_png(preview: Message, reply: Message) -> str | None:
    """The page of a film's ``preview`` (`kneeoa.messages.preview_of`) as a base64 PNG; None where it cannot be drawn.

    A detector's preview always can; a handmade message may hold anything.
    """
    try:
        film, scale = decode_png(preview["film"]), float(preview["scale"])
        places = [
            abs(scale * v) for knee in reply["knees"] for name in ("box", "main_joint") for v in knee.get(name) or ()
        ]
        if max(places, default=0) > 2 * max(film.shape):
            raise ValueError
        page = as_image(draw_figure(film, reply, scale))
    except Exception as error:  # the type only: a message may quote the input
        log.warning("a figure could not be drawn: %s", type(error).__name__)
        return None
    return encode_png(np.ascontiguousarray(page[..., ::-1]))


def draw_figure(film: np.ndarray, reply: Message, scale: float = 1.0, opacity: float = OPACITY) -> Figure:
    """The page, 16 × 9 inches.

    Parameters
    ----------
    film : uint8 ndarray (h, w)
        As `displayed`, or smaller.
    reply : dict
        Its reply. Where a knee has several heat maps, the first one is shown.
    scale : float
        Pixels of ``film`` a pixel of the film that was graded.
    opacity : float
        Of the heat map at its maximum, 0 … 1.
    """
    figure = Figure(figsize=SIZE, facecolor="white")
    knees = reply["knees"]
    columns = figure.add_gridspec(
        1, 1 + len(knees), width_ratios=[1.9 - 0.4 * len(knees), *[1] * len(knees)],
        left=0.015, right=0.985, top=0.93, bottom=0.085, wspace=0.06,
    )  # fmt: skip
    above_its_caption = columns[0].subgridspec(2, 1, height_ratios=(8, 2.2), hspace=0)[0]
    _film(figure.add_subplot(above_its_caption), film, reply, scale)
    for at, knee in enumerate(knees, 1):
        parts = columns[at].subgridspec(4, 1, height_ratios=(2.6, 1.4, 1.8, 0.3), hspace=0.3)
        joint, bars, table, notes = (figure.add_subplot(parts[row]) for row in range(4))
        if knee["grades"] is None:
            _empty(joint, knee)
        else:
            _joint(joint, film, knee, scale, opacity)
            _bars(bars, knee)
            _table(table, knee)
            table.set_title(oarsi_origin(reply), fontsize=9.5, color=INK, loc="left", pad=2)
        for axes in (notes, *(() if knee["grades"] else (bars, table))):
            axes.set_axis_off()
        notes.text(0, 0.5, "\n".join(_warnings(knee)), fontsize=11, color=INK, va="center", fontweight="bold")
    figure.text(0.015, 0.045, reply["disclaimer"], fontsize=12, color=INK, fontweight="bold")
    figure.text(0.015, 0.018, origin(reply), fontsize=9.5, color="#444444")
    figure.text(0.985, 0.018, f"kneeoa   {'   '.join(versions(reply))}", fontsize=9.5, color="#444444", ha="right")
    return figure


def versions(reply: Message) -> list[str]:
    """Of both weights, each with the beginning of its digest."""
    models = reply["model"].items()
    return [f"{name} {model['version']} ({model['sha256'][:12]})" for name, model in models if model]


def as_image(figure: Figure, dpi: int = DPI) -> np.ndarray:
    """The page as pixels, RGB uint8 (h, w, 3)."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def _film(axes: Axes, film: np.ndarray, reply: Message, scale: float) -> None:
    axes.imshow(film, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
    axes.set_axis_off()
    axes.set_anchor("NW")
    facts = reply["film"]
    measured = [f"{_side(knee)}: {said}" for knee in reply["knees"] if (said := widths_in_words(knee))]
    spacing = " × ".join(f"{mm:.3g}" for mm in facts["spacing_mm"] or ())
    lines = [
        f"{facts['width']} × {facts['height']} px, {spacing + ' mm' if spacing else 'size of a pixel unknown'}",
        "blue: knee joint and main joint; yellow: key points; orange: narrowest joint space",
        *(["narrowest joint space (at x = 0.25):"] if measured else []),
        *measured,
        *(f"Warning: {WORDS.get(word, word)}" for word in facts["warnings"]),
    ]
    told = "\n".join(fill(line, LINE) for line in lines)
    axes.text(0, -0.02, told, fontsize=9.5, color=INK, va="top", transform=axes.transAxes, linespacing=1.5)
    for knee in reply["knees"]:
        if knee["box"] is None:
            continue
        for name, width in (("box", 2.0), ("main_joint", 1.0)):
            x1, y1, x2, y2 = (scale * v - 0.5 for v in knee[name])
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=BLUE, linewidth=width))
        x, y = (scale * np.array(list(knee["key_points"].values())) - 0.5).T
        axes.plot(x, y, "o", markersize=5, markerfacecolor="none", markeredgecolor=YELLOW, markeredgewidth=1.4)


def _joint(axes: Axes, film: np.ndarray, knee: Message, scale: float, opacity: float) -> None:
    """The main joint under its heat map, which is as strong as a finding is probable."""
    box = Box(*knee["main_joint"]).scaled(scale)
    joint = crop(film, box)
    dark, bright = np.percentile(joint, (1, 99))
    axes.imshow(joint, cmap="gray", vmin=dark, vmax=bright, interpolation="bicubic")
    title = f"{_side(knee)}    KL {knee['grades'][KL.name]['grade']}    {'OA' if knee['grades'][OA.name]['grade'] else 'no OA'}"
    axes.set_title(title, fontsize=17, fontweight="bold", color=INK, loc="left", pad=8)
    for task, text in list(knee.get("explanations", {}).get("heat", {}).items())[:1]:
        heat = cv2.resize(decode_png(text), joint.shape[::-1], interpolation=cv2.INTER_CUBIC) / 255
        colours = matplotlib.colormaps["cividis"](heat)
        found = knee["grades"][task]
        doubt = "the grade is 0" if not found["grade"] else "unsure" if max(found["probabilities"]) < SURE else ""
        strength = opacity * (1 - found["probabilities"][0]) * (FAINT if doubt else 1)
        colours[..., 3] = strength * np.clip(heat, 0, 1)
        axes.imshow(colours, interpolation="bilinear")
        if opacity and not doubt:
            axes.contour(heat, [0.5], colors=YELLOW, linewidths=1.0)
        told = f"faint: {doubt}" if doubt else "what speaks for it; line: half its maximum"
        axes.set_xlabel(f"Grad-CAM, {task.replace('_', '-')} ({told})", fontsize=9.5)
    for found in (knee.get("joint_space") or {}).values():
        (x, y1), (_, y2) = scale * np.array(found["minimum"]["ends"]) - (round(box.x1), round(box.y1)) - 0.5
        axes.plot([x, x], [y1, y2], color=ORANGE, linewidth=2.5, marker="_", markersize=9, markeredgewidth=2)
        axes.annotate(
            width(found["minimum"]), (x, y2), (0, -9), textcoords="offset points", ha="center", va="top", fontsize=10,
            color=INK, bbox={"facecolor": "white", "edgecolor": ORANGE, "pad": 1.5},
        )  # fmt: skip
    axes.set(xticks=[], yticks=[], anchor="N")


def _bars(axes: Axes, knee: Message) -> None:
    """KL's probabilities; the grade's own bar is dark."""
    found = knee["grades"][KL.name]
    colours = [INK if grade == found["grade"] else "#b8b8b8" for grade in range(KL.grades)]
    axes.barh(range(KL.grades), found["probabilities"], color=colours, height=0.72)
    for grade, p in enumerate(found["probabilities"]):
        axes.text(p + 0.015, grade, f"{p:.0%}", va="center", fontsize=11, color=INK)
        axes.text(-0.02, grade, f"KL {grade}", va="center", ha="right", fontsize=11, color=INK)
    axes.plot([0, 0], [-0.5, KL.grades - 0.5], color=INK, linewidth=1)
    axes.set(xlim=(-0.28, 1.1), ylim=(KL.grades - 0.5, -0.5))
    axes.set_title(f"Probability of KL 2 or more: {kl_2_or_more(knee):.0%}", fontsize=11, color=INK, loc="left")
    axes.set_axis_off()


def kl_2_or_more(knee: Message) -> float:
    """The probability of KL 2 or more of a graded knee."""
    return float(sum(knee["grades"][KL.name]["probabilities"][OA_FROM_KL:]))


def _table(axes: Axes, knee: Message) -> None:
    """The OARSI features where they lie, as the film shows the knee: femur over tibia, lateral left of medial in a right knee."""
    sides = "LM" if shown_as(knee) is not Laterality.LEFT else "ML"
    rows = (("femur", "F{}", "osteophyte"), ("joint space", "JSN_{}", "narrowing"), ("tibia", "T{}", "osteophyte"))
    for row, (place, pattern, finding) in enumerate(rows):
        for column, side in enumerate(sides):
            grade = knee["grades"][pattern.format(side)]["grade"]
            shade = 1 - 0.27 * (grade or 0)
            axes.add_patch(Rectangle((column, row), 1, 1, facecolor=str(shade), edgecolor=INK, linewidth=1))
            colour = INK if shade > 0.5 else "white"
            text = "–" if grade is None else str(grade)
            axes.text(
                column + 0.5, row + 0.5, text, fontsize=17, fontweight="bold", color=colour, ha="center", va="center"
            )
        axes.text(-0.06, row + 0.5, f"{place}\n{finding}", fontsize=9.5, color=INK, ha="right", va="center")
    for column, side in enumerate(sides):
        name = {"L": "lateral", "M": "medial"}[side] if knee["knee"] != Laterality.UNKNOWN.value else "side unknown"
        axes.text(column + 0.5, -0.12, name, fontsize=11, color=INK, ha="center")
    axes.set(xlim=(-0.5, 2.02), ylim=(3.02, -0.5))
    axes.set_axis_off()


def _empty(axes: Axes, knee: Message) -> None:
    axes.set_title(_side(knee), fontsize=17, fontweight="bold", color=INK, loc="left", pad=8)
    axes.text(0.5, 0.62, "not graded", fontsize=15, color=INK, ha="center", va="center", transform=axes.transAxes)
    reason = fill(WORDS.get(knee["reason"], knee["reason"] or ""), SHORT)
    axes.text(0.5, 0.4, reason, fontsize=11, color=INK, ha="center", va="center", transform=axes.transAxes)
    axes.set(xticks=[], yticks=[])


def _side(knee: Message) -> str:
    return {"R": "Right knee", "L": "Left knee"}.get(knee["knee"], "Knee, side unknown")


def _warnings(knee: Message) -> list[str]:
    return [WORDS.get(word, word) for word in knee["warnings"]]


def widths_in_words(knee: Message) -> str:
    """The joint spaces of a knee, at the fixed place in brackets; empty where nothing was measured."""
    spaces = knee.get("joint_space") or {}
    return ", ".join(f"{side} {width(s['minimum'])} ({width(s['fixed'])})" for side, s in spaces.items())


def width(found: Message) -> str:
    """One of a reply's widths, in mm, or in pixels where their size is not known."""
    return f"{found['px']:.0f} px" if found["mm"] is None else f"{found['mm']:.1f} mm"


def oarsi_origin(reply: Message) -> str:
    """What the six OARSI grades learned from, for the head of their table."""
    by_kind = label_kinds(reply)
    six = [task.name for task in COMPARTMENT_TASKS]
    kinds = [kind for kind, tasks in by_kind.items() if set(tasks) & {*six}]
    if len(kinds) == 1:
        return f"OARSI grades, learned from {kinds[0]} labels"
    told = (f"{', '.join(t for t in by_kind[kind] if t in six)} from {kind}" for kind in kinds)
    return f"OARSI grades; labels: {'; '.join(told)}"


def origin(reply: Message) -> str:
    """Which heads learned from which kinds of labels: real, weak, synthetic."""
    six = [task.name for task in COMPARTMENT_TASKS]
    named = {
        k: "the six OARSI features" if tasks == six else ", ".join(tasks) for k, tasks in label_kinds(reply).items()
    }
    return "; ".join(f"{tasks}: {kinds} labels" for kinds, tasks in named.items())


def label_kinds(reply: Message) -> dict[str, list[str]]:
    """The tasks by the kinds of labels that they learned from."""
    heads: dict[str, list[str]] = {}
    for task, text in reply["model"]["grader"]["provenance"].items():
        kinds = dict.fromkeys(part.split(" labels")[0] for part in text.split("; "))
        heads.setdefault(" and ".join(kinds), []).append(task)
    return heads
