"""Figures, drawn from the numbers of `summary.json` alone."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from etils import epath
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import NullLocator

from ttcjax.runtime.files import write_bytes
from ttcjax.search import registry
from ttcjax.text.shown import shown

# Okabe and Ito's palette: distinguishable with any colour vision, and ordered dark to light for print.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
FONT = "DejaVu Sans"
"""It comes with Matplotlib, so that figures are the same everywhere."""
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "grid.color": "#e3e3e3",
    "grid.linewidth": 0.7,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "ttcjax",  # equal figures become equal files
    "font.family": FONT,
}
MUTED = "#666666"


def label(strategy: str) -> str:
    """Return how figures and tables call a strategy, e.g. `beam, width 4` for `beam:width=4`."""
    kind, options = registry.split(strategy)
    if kind == "best_of_n":
        rule = options.pop("select", "weighted")
        kind = "best-of-N" if rule == "best" else f"best-of-N {rule}"
    else:
        kind = kind.replace("_", " ")
    values = [f"{key.replace('_', ' ')} {'√N' if value == 'sqrt' else value}" for key, value in options.items()]
    return ", ".join([kind, *values])


def words(text: str) -> str:
    """Return text of users for a figure: one line, what the font lacks as an escape, and no mathematics between `$`."""
    glyphs = get_font(findfont(FONT))
    text = shown(text, lines=False, holds=lambda char: glyphs.get_char_index(ord(char)) != 0)
    # Matplotlib leaves lines out of legends whose names begin with an underscore.
    return (f" {text}" if text.startswith("_") else text).replace("$", r"\$")


def by_budget(accuracy: dict[str, Any]) -> dict[str, Any]:
    """Return the accuracies that are given by budget; those of revisions are given by selector."""
    return {name: cells for name, cells in accuracy.items() if all(key.isdigit() for key in cells)}


ALONE = "best_of_n:select=weighted,by=likelihood"
"""Votes weighted by the policy's own likelihood: the baseline that has no verifier but the policy."""


def with_baselines(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the accuracies of every strategy by budget, and of the baseline `ALONE` where it is none of them."""
    accuracy = by_budget(summary["accuracy"])
    alone = summary.get("weak_verifiers", {}).get("accuracy", {}).get("likelihood")
    return accuracy if alone is None or ALONE in accuracy else {**accuracy, ALONE: alone}


def band(axes: Axes, xs: Sequence[float], points: Iterable[dict[str, float]], colour: int, name: str = "") -> None:
    """Draw means in % as a line, with their intervals as a band around it.

    Args:
        axes: Where to draw.
        xs: A place a point.
        points: `mean`, `low` and `high` as shares.
        colour: Number of the line's colour and marker, from 0.
        name: Of the line, in the legend; text of users.
    """
    points = list(points)
    mean, low, high = (np.array([100 * point[key] for point in points]) for key in ("mean", "low", "high"))
    shade, marker = COLOURS[colour % len(COLOURS)], MARKERS[colour % len(MARKERS)]
    axes.fill_between(xs, low, high, color=shade, alpha=0.11, linewidth=0)
    axes.plot(
        xs, mean, color=shade, marker=marker, markersize=4 if len(points) < 20 else 2, linewidth=1.6, label=words(name)
    )


def powers_of_two(axes: Axes, ns: Sequence[int]) -> None:
    """Make the horizontal axis one of budgets: logarithmic, a tick each."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ns, [str(n) for n in ns])
    axes.xaxis.set_minor_locator(NullLocator())


def legend_below(figure: Figure | SubFigure) -> None:
    """Put one legend of all named lines below the axes, where it covers none of them.

    Args:
        figure: A figure, or a part of one, with its axes drawn; a name that several axes have stands once.
    """
    named = {}
    for axes in figure.axes:
        handles, names = axes.get_legend_handles_labels()
        named.update({name: handle for handle, name in zip(handles, names, strict=True) if name not in named})
    if named:
        # In inches at this size: a line's sample, and 0.075 a letter of the longest name.
        column = 0.6 + 0.075 * max(map(len, named))
        width = figure.bbox.width / figure.dpi
        columns = min(len(named), max(1, int(width / column)))
        figure.legend(
            named.values(), named.keys(), loc="outside lower center", ncols=columns, frameon=False, fontsize=9
        )


def accuracy_vs_budget(summary: dict[str, Any]) -> Figure:
    """Draw accuracy against generation budget, one line and one 95% band a strategy."""
    with mpl.rc_context(STYLE):
        figure = new_figure(7.5, 4.6)
        axes = figure.add_subplot()
        ends = []
        accuracy = with_baselines(summary)
        for i, (strategy, points) in enumerate(accuracy.items()):
            colour = COLOURS[i % len(COLOURS)]
            budgets = [int(n) for n in points]
            mean, low, high = (np.array([100 * p[key] for p in points.values()]) for key in ("mean", "low", "high"))
            axes.fill_between(budgets, low, high, color=colour, alpha=0.11, linewidth=0)
            axes.plot(budgets, mean, color=colour, marker=MARKERS[i % len(MARKERS)], markersize=5, linewidth=1.8)
            ends.append((mean[-1], label(strategy), colour))
        powers_of_two(axes, sorted({int(n) for points in accuracy.values() for n in points}))
        axes.set_xlabel("generation budget N (answers per question)")
        axes.set_ylabel("accuracy (% of questions)")
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, -0.5), max(top, 1.0))  # where nothing is right, the margins would reach below 0 %
        title = f"{summary['name']}: accuracy by strategy, {summary['questions']} questions, 95% intervals"
        axes.set_title(words(title))
        _label_ends(axes, ends)
        return figure


def aggregation(summary: dict[str, Any]) -> Figure:
    """Draw best-of-N weighted by every way to make one score of a solution's steps (Snell et al. 2024, Fig. 13).

    Majority and, where there is one, the outcome-reward model of base samples stand beside them.
    """
    lines = {f"PRM, {how}": cells for how, cells in summary["aggregation"].items()}
    if "orm" in summary:
        lines["ORM"] = summary["orm"]["accuracy"]["orm"]["weighted"]
    if "majority" in summary["accuracy"]:
        lines["majority"] = summary["accuracy"]["majority"]
    with mpl.rc_context(STYLE):
        figure = new_figure(7.5, 4.6)
        axes = figure.add_subplot()
        for i, (name, cells) in enumerate(lines.items()):
            band(axes, [int(n) for n in cells], cells.values(), i, name)
        powers_of_two(axes, [int(n) for n in next(iter(lines.values()))])
        axes.set(xlabel="generation budget N", ylabel="accuracy (%)", title="Best-of-N weighted by score of a solution")
        legend_below(figure)
        return figure


def quality(summary: dict[str, Any]) -> Figure:
    """Draw what the strategies start from: how hard the questions are, and how far the verifier can be trusted."""
    with mpl.rc_context(STYLE):
        figure = new_figure(7.5, 3.7)
        left, right = figure.subplots(1, 2)
        counts = summary["pass_at_1_histogram"]
        left.bar((np.arange(len(counts)) + 0.5) / len(counts), counts, width=0.92 / len(counts), color=COLOURS[1])
        left.axvline(summary["pass_at_1"], color=COLOURS[2], linewidth=1.5)
        left.annotate(
            f"mean {summary['pass_at_1']:.2f}",
            (summary["pass_at_1"], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(4, -2),
            textcoords="offset points",
            color=COLOURS[2],
            va="top",
        )
        left.set_xlim(0, 1)
        left.set_xlabel("pass@1 of a question (share of right samples)")
        left.set_ylabel("questions")
        left.set_title("Difficulty of the questions")
        left.grid(axis="x", visible=False)
        _reliability(right, summary["prm"])
        legend_below(figure)
        return figure


def save(figure: Figure, folder: epath.PathLike, name: str) -> bytes:
    """Write a figure as `name.png` and `name.svg`, and return the latter; equal figures give equal files."""
    sink = io.BytesIO()
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        sink = io.BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(sink, format=kind, dpi=160, metadata=metadata)
        # Where things stand is worked out once: half of the drawing, and both files show the same.
        figure.set_layout_engine("none")
        write_bytes(epath.Path(folder) / f"{name}.{kind}", sink.getvalue())
    return sink.getvalue()


def _reliability(axes: Axes, prm: dict[str, Any]) -> None:
    bins = [b for b in prm["reliability"] if b["count"]]
    axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="calibrated")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    last = prm["ece_steps"] == "last"
    axes.set_xlabel("score of last steps" if last else "step score of the verifier")
    axes.set_ylabel("share that ends with a right answer")
    if not bins:
        axes.set_title("No step scores")
        return
    total = sum(b["count"] for b in bins)
    scores, targets = [b["score"] for b in bins], [b["target"] for b in bins]
    axes.plot(scores, targets, color=COLOURS[1], linewidth=1.2)
    sizes = [10 + 300 * b["count"] / total for b in bins]
    axes.scatter(scores, targets, s=sizes, color=COLOURS[1], zorder=3, label="verifier (area: share of steps)")
    axes.set_title(f"Reliability of the verifier, ECE {prm['ece']:.3f}")


def _label_ends(axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write each line's name beside its end, far enough apart to be read."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top)
    gap = 0.055 * (top - bottom)
    heights = np.array([height for height, _, _ in ends])
    order = np.argsort(heights, kind="stable")
    placed = heights[order]
    # Names in order of height, each at least a gap above the one below, as a whole shifted back to its lines.
    steps = gap * np.arange(len(placed))
    placed = np.maximum.accumulate(placed - steps) + steps
    placed -= np.mean(placed - heights[order])
    for index, height in zip(order, placed, strict=True):
        _, text, colour = ends[index]
        axes.annotate(
            words(text),
            (1.0, float(height)),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, to be drawn with `STYLE`."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)  # no display, no global state
    return figure
