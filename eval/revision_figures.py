"""Figures on revisions, drawn from the numbers of `summary.json` alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ttcjax.eval import revisions
from ttcjax.eval.figures import COLOURS, MUTED, STYLE, band, new_figure, powers_of_two

_VERIFIERS = {
    "history": "ORM, answers before in view",
    "no_history": "ORM, the answer alone",
    "prm": "PRM of the base samples",
}


def steps(revision: dict[str, Any], accuracy: dict[str, Any]) -> Figure:
    """Draw pass@1 along the chains, and how often answers turn (Snell et al. 2024, Fig. 6 left)."""
    with mpl.rc_context(STYLE):
        figure = new_figure(10.0, 3.9)
        left, right = figure.subplots(1, 2)
        rows = revision["pass_at_1_by_step"]
        band(left, [row["step"] for row in rows], rows, 0, "each answer")
        if revision["refine"]:
            tries = revision["refine"]
            band(left, [row["tries"] + 1 for row in tries], tries, 3, "what refining has kept")
            left.legend(frameon=False, fontsize=9)
        trained = revision["trained_answers"]
        left.axvline(trained + 1.5, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        left.annotate(
            f"trained with up to\n{trained} answers before",
            (trained + 1.7, 0.03),
            xycoords=("data", "axes fraction"),
            color=MUTED,
            fontsize=8,
        )
        left.set(xlabel="step of the chain", ylabel="right answers (%)")
        left.set_title(f"pass@1 by revision step, {revision['questions']} questions")
        flips = revision["flips_by_step"]
        for i, (turn, name) in enumerate((("right_to_wrong", "right to wrong"), ("wrong_to_right", "wrong to right"))):
            known = [row for row in flips if row[turn]["mean"] is not None]
            band(right, [row["step"] for row in known], [row[turn] for row in known], i + 1, name)
        right.axhline(38, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        right.annotate(
            "38% of right ones in the paper",
            (1.0, 38),
            xycoords=("axes fraction", "data"),
            xytext=(-2, 2),
            textcoords="offset points",
            color=MUTED,
            ha="right",
            fontsize=8,
        )
        right.set(xlabel="step of the chain", ylabel="of the answers before (%)", ylim=(0, None))
        right.set_title("Answers that turn")
        right.legend(frameon=False, fontsize=9)
        return figure


def budgets(revision: dict[str, Any], accuracy: dict[str, Any]) -> Figure:
    """Draw one chain against parallel answers, under both selectors and every verifier (Figs. 6 right and 15)."""
    with mpl.rc_context(STYLE):
        figure = new_figure(12.0, 3.9)
        axes = figure.subplots(1, 3, sharey=True)
        ns = _budgets(revision)
        for where, rule in zip(axes, revisions.SELECTORS, strict=False):
            band(where, ns, [accuracy[revisions.strategy_name(n, 1)][rule] for n in ns], 1, "sequential")
            band(where, ns, [accuracy[revisions.strategy_name(1, n)][rule] for n in ns], 0, "parallel")
            where.set_title(f"Selected by {'the verifier' if rule == 'hierarchical' else 'majority'}")
        for i, (name, cells) in enumerate(revision["verifiers"].items()):
            band(axes[2], [int(n) for n in cells], list(cells.values()), i + 1, _VERIFIERS[name])
        axes[2].set_title("Sequential, by verifier")
        for where in axes:
            powers_of_two(where, ns)
            where.set_xlabel("generation budget N")
            where.legend(frameon=False, fontsize=8, loc="lower right")
        axes[0].set_ylabel("accuracy (%)")
        return figure


def ratios(revision: dict[str, Any], accuracy: dict[str, Any]) -> Figure:
    """Draw accuracy against the ratio of sequential to parallel, by budget and by difficulty (Figs. 7 and 10)."""
    with mpl.rc_context(STYLE):
        figure = new_figure(10.0, 7.4)
        grid = figure.subplots(2, 2, sharey="col")
        for row, rule in zip(grid, revisions.SELECTORS, strict=True):
            for i, n in enumerate(_budgets(revision)):
                _ratio(row[0], n, {name: accuracy[name][rule] for name in _names(n)}, i, f"N = {n}")
            for i, (number, cells) in enumerate(revision["per_bin"].items()):
                n = cells["n"]
                _ratio(row[1], n, cells[rule]["accuracy"], i, f"bin {number}")
            by = "the verifier" if rule == "hierarchical" else "majority"
            row[0].set_title(f"By budget, selected by {by}")
            row[1].set_title(f"By difficulty (1 easiest) at N = {max(_budgets(revision))}, selected by {by}")
            row[0].set_ylabel("accuracy (%)")
            for where in row:
                where.legend(frameon=False, fontsize=8, ncols=2)
                where.set_xlabel("sequential : parallel")
        return figure


def trajectories(revision: dict[str, Any], accuracy: dict[str, Any]) -> Figure:
    """Draw what the revision model learned from: how near the last answer in view was, and how many there were."""
    with mpl.rc_context(STYLE):
        figure = new_figure(8.5, 3.4)
        left, right = figure.subplots(1, 2)
        made = revision["trajectories"]
        edges = [int(edge) for edge in made["distance"]]
        names = [f"{low}" if high - low == 1 else f"{low}-{high - 1}" for low, high in itertools.pairwise(edges)] + [
            f"{edges[-1]}+"
        ]
        left.bar(names, list(made["distance"].values()), color=COLOURS[1])
        left.set(xlabel="edits from the last answer in view to the target", ylabel="trajectories")
        left.tick_params(axis="x", labelsize=8)
        right.bar(range(len(made["context"])), made["context"], color=COLOURS[1])
        right.set(xlabel="answers in view", ylabel="trajectories")
        for where in (left, right):
            where.grid(axis="x", visible=False)
        left.set_title(f"{made['trajectories']} trajectories of {made['questions']} questions")
        return figure


def _ratio(axes: Axes, n: int, cells: Mapping[str, dict[str, float]], colour: int, name: str) -> None:
    pairs = revisions.pairs(n)
    points = [cells[revisions.strategy_name(s, p)] for s, p in pairs]
    at = [np.log2(s / p) for s, p in pairs]
    band(axes, at, points, colour, name)
    lowest, highest = axes.get_xlim()
    ticks = np.arange(2 * np.ceil(lowest / 2), highest + 0.1, 2, dtype=int)
    axes.set_xticks(ticks, [f"{2**t}:1" if t >= 0 else f"1:{2**-t}" for t in ticks.tolist()])


def _budgets(revision: dict[str, Any]) -> list[int]:
    return list(dict.fromkeys(row["n"] for row in revision["best_split"]))


def _names(n: int) -> list[str]:
    return [revisions.strategy_name(s, p) for s, p in revisions.pairs(n)]


ALL: dict[str, Callable[[dict[str, Any], dict[str, Any]], Figure]] = {
    "revision_steps": steps,
    "revision_budgets": budgets,
    "revision_ratios": ratios,
    "revision_trajectories": trajectories,
}
"""Figures by the name of their files."""
