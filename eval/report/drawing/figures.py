"""Common parts of figures: colours, names, bands, axes of budgets, legends, files."""

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

from ttcjax.eval.stats.intervals import Estimate
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


def band(axes: Axes, xs: Sequence[float], points: Iterable[Estimate], colour: int, name: str = "") -> None:
    """Draw means in % as a line, with their intervals as a band around it.

    Args:
        axes: Where to draw.
        xs: A place a point.
        points: Shares.
        colour: Number of the line's colour and marker, from 0.
        name: Of the line, in the legend; text of users.
    """
    points = list(points)
    mean, low, high = 100 * np.array([point.ends for point in points]).reshape(-1, 3).T
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


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, to be drawn with `STYLE`."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)  # no display, no global state
    return figure
