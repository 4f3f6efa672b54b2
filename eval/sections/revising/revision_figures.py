"""Figures on revisions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ttcjax.eval.records.answer_chains import SELECTORS, pairs, strategy_name
from ttcjax.eval.report.drawing.figures import COLOURS, MUTED, STYLE, band, legend_below, new_figure, powers_of_two
from ttcjax.eval.sections.revising.revision_numbers import Bin, Revision, Trajectories
from ttcjax.eval.stats.intervals import Estimate

_VERIFIERS = {
    "history": "ORM, answers before in view",
    "no_history": "ORM, the answer alone",
    "prm": "PRM of the base samples",
}
_DASHED: Any = (0, (4, 3))


def steps(found: Revision) -> Figure:
    """Draw pass@1 along the chains, and how often answers turn (Snell et al. 2024, Fig. 6 left)."""
    with mpl.rc_context(STYLE):
        figure = new_figure(10.0, 4.3)
        parts = _halves(figure)
        left, right = (part.subplots() for part in parts)
        rows = found.pass_at_1_by_step
        band(left, [row.step for row in rows], rows, 0, "each answer")
        if found.refine:
            band(left, [row.tries + 1 for row in found.refine], found.refine, 3, "what refining has kept")
        trained = found.trained_answers
        name = f"trained with up to {trained} answers before"
        left.axvline(trained + 1.5, color=MUTED, linewidth=1, linestyle=_DASHED, label=name)
        left.set(xlabel="step of the chain", ylabel="right answers (%)")
        left.set_title(f"pass@1 by revision step, {found.questions} questions")
        turns = {
            "right to wrong": [(row.step, row.right_to_wrong) for row in found.flips_by_step],
            "wrong to right": [(row.step, row.wrong_to_right) for row in found.flips_by_step],
        }
        for i, (name, flips) in enumerate(turns.items()):
            known = [(step, share) for step, share in flips if share.known]
            band(right, [step for step, _ in known], [share for _, share in known], i + 1, name)
        right.axhline(38, color=MUTED, linewidth=1, linestyle=_DASHED, label="38% of right ones in the paper")
        right.set(xlabel="step of the chain", ylabel="of the answers before (%)", ylim=(0, None))
        right.set_title("Answers that turn")
        for part in parts:
            legend_below(part)
        return figure


def budgets(found: Revision) -> Figure:
    """Draw one chain against parallel answers, under both selectors (Fig. 6 right)."""
    with mpl.rc_context(STYLE):
        figure = new_figure(10.0, 4.2)
        axes = figure.subplots(1, 2, sharey=True)
        ns = found.budgets
        for where, rule in zip(axes, SELECTORS, strict=True):
            band(where, ns, [found.accuracy[strategy_name(n, 1)][rule] for n in ns], 1, "sequential")
            band(where, ns, [found.accuracy[strategy_name(1, n)][rule] for n in ns], 0, "parallel")
            powers_of_two(where, ns)
            where.set(xlabel="generation budget N", title=f"Selected by {_by(rule)}")
        axes[0].set_ylabel("accuracy (%)")
        legend_below(figure)
        return figure


def verifiers(found: Revision) -> Figure:
    """Draw one chain under every verifier that judged it, and parallel answers under the one that selects (Fig. 15)."""
    with mpl.rc_context(STYLE):
        figure = new_figure(7.5, 4.6)
        axes = figure.add_subplot()
        for i, (name, cells) in enumerate(found.verifiers.items()):
            band(axes, list(cells), cells.values(), i + 1, f"one chain: {_VERIFIERS.get(name, name)}")
        ns = found.budgets
        parallel = [found.accuracy[strategy_name(1, n)]["hierarchical"] for n in ns]
        band(axes, ns, parallel, 0, f"parallel: {_VERIFIERS.get(found.verifier, found.verifier)}")
        powers_of_two(axes, ns)
        axes.set(xlabel="generation budget N", ylabel="accuracy (%)", title="Verifiers of revisions")
        legend_below(figure)
        return figure


def ratios(rule: str, found: Revision) -> Figure:
    """Draw accuracy against the ratio of sequential to parallel, by budget and by difficulty (Figs. 7 and 10).

    Args:
        rule: One of `answer_chains.SELECTORS`.
        found: The numbers on revisions.
    """
    with mpl.rc_context(STYLE):
        figure = new_figure(10.0, 4.5)
        parts = _halves(figure)
        left, right = (part.subplots() for part in parts)
        for i, n in enumerate(found.budgets):
            _ratio(left, n, {name: found.accuracy[name][rule] for name in _names(n)}, i, f"N = {n}")
        _ratio_by_bin(right, found.per_bin, rule)
        left.set_title(f"By budget, selected by {_by(rule)}")
        right.set_title(f"By difficulty at N = {max(found.budgets)}, selected by {_by(rule)}")
        left.set_ylabel("accuracy (%)")
        for part in parts:
            legend_below(part)
        return figure


def predicted_ratios(found: Revision) -> Figure:
    """Draw the ratios by difficulty as the verifier of base samples predicts it, under both selectors (Fig. 11)."""
    with mpl.rc_context(STYLE):
        figure = new_figure(10.0, 4.5)
        axes = figure.subplots(1, 2, sharey=True)
        for where, rule in zip(axes, SELECTORS, strict=True):
            _ratio_by_bin(where, found.per_bin_predicted, rule)
            where.set_title(f"Predicted difficulty, N = {max(found.budgets)}, by {_by(rule)}")
        axes[0].set_ylabel("accuracy (%)")
        legend_below(figure)
        return figure


def trajectories(found: Trajectories) -> Figure:
    """Draw what the revision model learned from: how near the last answer in view was, and how many there were."""
    with mpl.rc_context(STYLE):
        figure = new_figure(8.5, 3.4)
        left, right = figure.subplots(1, 2)
        edges = list(found.distance)
        names = [f"{low}" if high - low == 1 else f"{low}-{high - 1}" for low, high in itertools.pairwise(edges)] + [
            f"{edges[-1]}+"
        ]
        left.bar(names, list(found.distance.values()), color=COLOURS[1])
        left.set(xlabel="edits from the last answer in view to the target", ylabel="trajectories")
        left.tick_params(axis="x", labelsize=8)
        right.bar(range(len(found.context)), found.context, color=COLOURS[1])
        right.set(xlabel="answers in view", ylabel="trajectories")
        for where in (left, right):
            where.grid(axis="x", visible=False)
        left.set_title(f"{found.trajectories} trajectories of {found.questions} questions")
        return figure


def _halves(figure: Figure) -> list[SubFigure]:
    """Return two parts side by side, each with room for a legend of its own."""
    grid = figure.add_gridspec(1, 2)
    return [figure.add_subfigure(grid[0, i]) for i in range(2)]


def _by(rule: str) -> str:
    return "the verifier" if rule == "hierarchical" else "majority"


def _ratio_by_bin(axes: Axes, per_bin: Mapping[int, Bin], rule: str) -> None:
    for i, (number, cells) in enumerate(per_bin.items()):
        name = f"bin {number}" + (" (easiest)" if number == 1 else "")
        _ratio(axes, cells.n, cells.by(rule).accuracy, i, name)


def _ratio(axes: Axes, n: int, cells: Mapping[str, Estimate], colour: int, name: str) -> None:
    splits = pairs(n)
    points = [cells[strategy_name(s, p)] for s, p in splits]
    at = [np.log2(s / p) for s, p in splits]
    band(axes, at, points, colour, name)
    axes.set_xlabel("sequential : parallel")
    lowest, highest = axes.get_xlim()
    ticks = np.arange(2 * np.ceil(lowest / 2), highest + 0.1, 2, dtype=int)
    axes.set_xticks(ticks, [f"{2**t}:1" if t >= 0 else f"1:{2**-t}" for t in ticks.tolist()])


def _names(n: int) -> list[str]:
    return [strategy_name(s, p) for s, p in pairs(n)]
