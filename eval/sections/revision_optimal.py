"""What choosing the split of a budget by difficulty gains (Snell et al. 2024, section 6.2 and Fig. 8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.report import figures, tables
from ttcjax.eval.sections import optimal
from ttcjax.eval.sections.revisions import SELECTORS, Splits, strategy_name
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.intervals import Bootstrap

_NAMES = {"hierarchical": "the verifier", "majority": "majority"}


def summarise(settings: SweepConfig, splits: Splits, ease: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Choose a split of each budget for each difficulty bin on one fold and judge it on the other.

    Args:
        settings: `seed` and `bootstrap` are used.
        splits: What every split gives.
        ease: For each notion of difficulty (`oracle`, `predicted`) how easy each question is.

    Returns:
        For each selector `parallel[n]`, and `chosen[notion]` with `accuracy[n]`, `minus_parallel[n]` (paired) and
        `compute_saved[n]` against parallel answers, see `optimal.compute_saved`.
    """
    questions = splits.chains.questions
    bootstrap = Bootstrap(len(questions), settings.bootstrap, settings.bootstrap_seed)
    bins = {name: quantile_bins(np.array([values[q] for q in questions])) for name, values in ease.items()}
    found: dict[str, Any] = {}
    for rule in SELECTORS:
        candidates = splits.by_ratio(rule)
        parallel = {n: cells[strategy_name(1, n)] for n, cells in candidates.items()}
        chosen = {name: optimal.choices(settings, candidates, bins_Q, bootstrap) for name, bins_Q in bins.items()}
        found[rule] = {
            "parallel": {str(n): dataclasses.asdict(bootstrap(values)) for n, values in parallel.items()},
            "chosen": {
                name: {
                    "accuracy": {str(n): dataclasses.asdict(c.estimate()) for n, c in by_budget.items()},
                    "minus_parallel": {str(n): dataclasses.asdict(c.less(parallel[n])) for n, c in by_budget.items()},
                    "compute_saved": {
                        str(n): optimal.compute_saved(parallel, n, c.means(), bootstrap) for n, c in by_budget.items()
                    },
                }
                for name, by_budget in chosen.items()
            },
        }
    return found


def figure(found: dict[str, Any]) -> Figure:
    """Draw the chosen splits beside parallel answers, under both selectors."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(10.0, 4.0)
        axes = drawn.subplots(1, 2, sharey=True)
        for where, (rule, cells) in zip(axes, found.items(), strict=True):
            budgets = [int(n) for n in cells["parallel"]]
            figures.band(where, budgets, cells["parallel"].values(), 0, "parallel")
            for i, (name, chosen) in enumerate(cells["chosen"].items(), 1):
                figures.band(where, budgets, chosen["accuracy"].values(), i, f"split chosen by difficulty, {name}")
            figures.powers_of_two(where, budgets)
            where.set(xlabel="generation budget N", title=f"Selected by {_NAMES[rule]}")
        axes[0].set_ylabel("accuracy (%)")
        figures.legend_below(drawn)
        return drawn


def render(found: dict[str, Any], console: Console) -> None:
    """Print what the chosen splits reach, less parallel answers, and the compute saved."""
    budgets = list(found[SELECTORS[0]]["parallel"])
    table = tables.table("split of the budget chosen by difficulty: accuracy in %", ["N =", *budgets])
    for rule, cells in found.items():
        for name, chosen in cells["chosen"].items():
            table.add_row(f"{_NAMES[rule]}, {name}", *map(tables.cell, chosen["accuracy"].values()))
            table.add_row("- parallel", *map(tables.difference_cell, chosen["minus_parallel"].values()), style="dim")
            table.add_row("x parallel", *map(tables.saved_cell, chosen["compute_saved"].values()), style="dim")
    console.print(table)


def csv_rows(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (selector, bins, measure, budget, mean, low, high)."""
    rows: list[tuple[Any, ...]] = []
    for rule, cells in found.items():
        rows += [(rule, "", "parallel", n, c["mean"], c["low"], c["high"]) for n, c in cells["parallel"].items()]
        for name, chosen in cells["chosen"].items():
            rows += [
                (rule, name, measure, n, c["times" if measure == "compute_saved" else "mean"], c["low"], c["high"])
                for measure, by_budget in chosen.items()
                for n, c in by_budget.items()
            ]
    return rows
