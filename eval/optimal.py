"""What choosing the strategy by difficulty gains at every budget (Snell et al. 2024, Figs. 3 right, 4 and 12)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval import figures, tables
from ttcjax.eval.allocate import REPEATS, compute_optimal, regret
from ttcjax.eval.difficulty import quantile_bins
from ttcjax.eval.estimators import Bootstrap

BINS = 5
FOLDS = 2


def budget_for(budgets: Sequence[int], curve_BR: np.ndarray, target_R: np.ndarray) -> np.ndarray:
    """Return the least budget at which a curve reaches a target, `[R]`: linear in the logarithm between budgets.

    Args:
        budgets: Positive and rising.
        curve_BR: Accuracy at each budget, in each of R resamples.
        target_R: What to reach.

    Returns:
        The budgets; the least one where it is enough, infinity where none is.
    """
    found = np.full(target_R.shape, np.inf)
    logs = np.log(budgets)
    for i in reversed(range(len(budgets))):
        reached = curve_BR[i] >= target_R
        if not i:
            return np.where(reached, float(budgets[0]), found)
        below = curve_BR[i - 1] < target_R
        rise = np.where(reached & below, curve_BR[i] - curve_BR[i - 1], 1.0)
        part = (target_R - curve_BR[i - 1]) / rise
        crossing = np.exp(logs[i - 1] + part * (logs[i] - logs[i - 1]))
        found = np.where(reached & below, crossing, found)
    return found


def compute_saved(
    baseline: Mapping[int, np.ndarray], n: int, chosen_Q: np.ndarray, bootstrap: Bootstrap
) -> dict[str, float | bool]:
    """Return how many times n generations the baseline needs to be as accurate as what was chosen at n.

    Args:
        baseline: Each question's accuracy `[Q]`, by budget.
        n: Generations of what was chosen.
        chosen_Q: Each question's accuracy.
        bootstrap: Resamples questions, the same for both.

    Returns:
        `times`, `low`, `high`, and `reached`: whether the baseline gets there within its largest budget. Where it does
        not, that budget stands for what it needs, so that the ratio is a lower bound; so it is in resamples.
    """
    budgets = list(baseline)
    largest = float(budgets[-1])
    curve = np.array([[values.mean()] for values in baseline.values()])
    times = budget_for(budgets, curve, np.array([chosen_Q.mean()]))[0]
    resampled = np.stack([bootstrap.means(values) for values in baseline.values()])
    low, high = bootstrap.quantiles(budget_for(budgets, resampled, bootstrap.means(chosen_Q)))
    return {
        "times": min(times, largest) / n,
        "low": min(low, largest) / n,
        "high": min(high, largest) / n,
        "reached": bool(np.isfinite(times)),
    }


def summarise(
    settings: SweepConfig,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    ease: Mapping[str, np.ndarray],
    baseline: str,
) -> dict[str, Any]:
    """Choose a strategy for each difficulty bin and budget on one fold and judge it on the other.

    Args:
        settings: `seed` and `bootstrap` are used.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.
        ease: For each notion of difficulty (`oracle`, `predicted`) how easy each question is, `[Q]`.
        baseline: The strategy that saved compute is counted against, where it is among them.

    Returns:
        For each notion `accuracy[n]`, `regret[n]`, `shares[n][bin][strategy]` (how often each is chosen) and
        `minus_best[n]` (less the strategy that is best over all questions, paired), with intervals, and
        `compute_saved[n]`, see `compute_saved`; `agreement`, the share of questions that both notions put into the
        same bin; and `per_bin[bin][strategy][n]` for the bins of the first notion.
    """
    strategies = list(accuracy)
    budgets = list(next(iter(accuracy.values())))
    questions = len(next(iter(ease.values())))
    bootstrap = Bootstrap(questions, settings.bootstrap, settings.seed)
    bins = {name: quantile_bins(values, BINS) for name, values in ease.items()}
    found: dict[str, Any] = {}
    for name, bins_Q in bins.items():
        cells: dict[str, Any] = {"accuracy": {}, "regret": {}, "minus_best": {}, "shares": {}}
        for n in budgets:
            accuracy_SQ = np.stack([accuracy[strategy][n] for strategy in strategies])
            choice = compute_optimal(accuracy_SQ, bins_Q, folds=FOLDS, repeats=REPEATS, seed=settings.seed)
            single = accuracy_SQ[np.argmax(accuracy_SQ.mean(axis=1))]
            cells["accuracy"][str(n)] = dataclasses.asdict(bootstrap(choice.accuracy))
            cells["regret"][str(n)] = dataclasses.asdict(bootstrap(regret(accuracy_SQ, choice.accuracy)))
            cells["minus_best"][str(n)] = dataclasses.asdict(bootstrap.paired(choice.accuracy, single))
            if baseline in accuracy:
                saved = compute_saved(accuracy[baseline], n, choice.accuracy, bootstrap)
                cells.setdefault("compute_saved", {})[str(n)] = saved
            cells["shares"][str(n)] = {
                str(number + 1): dict(zip(strategies, row, strict=True)) for number, row in enumerate(choice.shares)
            }
        found[name] = cells
    first, *others = bins.values()
    if others:
        found["agreement"] = float((first == others[0]).mean())
    found["per_bin"] = {}
    for number in range(1, BINS + 1):
        inside = first == number
        within = Bootstrap(int(inside.sum()), settings.bootstrap, settings.seed)
        found["per_bin"][str(number)] = {
            strategy: {str(n): dataclasses.asdict(within(values[inside])) for n, values in by_budget.items()}
            for strategy, by_budget in accuracy.items()
        }
    return found


def figure(summary: dict[str, Any]) -> Figure:
    """Draw what is gained by choosing, and how each strategy does by difficulty.

    Args:
        summary: The whole summary, with JSON's own types.
    """
    found, accuracy = summary["compute_optimal"], figures.by_budget(summary["accuracy"])
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(13.0, 4.2)
        left, *others = drawn.subplots(1, 1 + BINS, gridspec_kw={"width_ratios": [2.4, *[1] * BINS]})
        for i, (strategy, cells) in enumerate(accuracy.items()):
            figures.band(left, [int(n) for n in cells], cells.values(), i, figures.label(strategy))
            for where, strategies in zip(others, found["per_bin"].values(), strict=True):
                figures.band(where, [int(n) for n in strategies[strategy]], strategies[strategy].values(), i)
        for i, (notion, cells) in enumerate(_notions(found).items()):
            points = cells["accuracy"]
            left.plot(
                [int(n) for n in points],
                [100 * point["mean"] for point in points.values()],
                color=figures.MUTED,
                linewidth=2.2,
                linestyle=("-", (0, (4, 2)))[i % 2],
                label=f"chosen by difficulty, {notion}",
            )
        budgets = [int(n) for n in next(iter(accuracy.values()))]
        figures.powers_of_two(left, budgets)
        left.set(xlabel="generation budget N", ylabel="accuracy (%)", title="Strategy by difficulty")
        left.legend(frameon=False, fontsize=8, loc="lower right")
        for number, where in enumerate(others, 1):
            figures.powers_of_two(where, budgets[::-2])
            where.set(title=f"bin {number}" + (" (easiest)" if number == 1 else ""), xlabel="N")
        return drawn


def render(summary: dict[str, Any], console: Console) -> None:
    """Print the accuracy of the chosen strategies by budget, less the best single one, and the compute saved."""
    notions = _notions(summary["compute_optimal"])
    budgets = list(next(iter(notions.values()))["accuracy"])
    table = tables.table("strategy chosen by difficulty: accuracy in %", ["N =", *budgets])
    for notion, cells in notions.items():
        table.add_row(notion, *map(tables.cell, cells["accuracy"].values()))
        table.add_row("- best single", *map(tables.difference_cell, cells["minus_best"].values()), style="dim")
        if "compute_saved" in cells:
            table.add_row("x best-of-N", *(_saved_cell(cell) for cell in cells["compute_saved"].values()), style="dim")
    console.print(table)


def _notions(found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found for each notion of difficulty, without what stands beside them."""
    return {name: cells for name, cells in found.items() if name not in ("agreement", "per_bin")}


def _saved_cell(cell: dict[str, Any]) -> str:
    sign = "" if cell["reached"] else "> "
    return f"{sign}{cell['times']:.1f}\n{cell['low']:.1f}-{cell['high']:.1f}"


def csv_rows(summary: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return (bins, measure, bin, strategy, budget, mean, low, high)."""
    rows: list[tuple[Any, ...]] = []
    notions = _notions(summary["compute_optimal"])
    for notion, cells in notions.items():
        for measure in ("accuracy", "regret", "minus_best"):
            rows += [(notion, measure, "", "", n, c["mean"], c["low"], c["high"]) for n, c in cells[measure].items()]
        for n, cell in cells.get("compute_saved", {}).items():
            rows.append((notion, "compute_saved", "", "", n, cell["times"], cell["low"], cell["high"]))
        for n, by_bin in cells["shares"].items():
            rows += [
                (notion, "share", number, strategy, n, share, "", "")
                for number, shares in by_bin.items()
                for strategy, share in shares.items()
            ]
    first = next(iter(notions))
    return rows + [
        (first, "accuracy", number, strategy, n, c["mean"], c["low"], c["high"])
        for number, strategies in summary["compute_optimal"]["per_bin"].items()
        for strategy, by_budget in strategies.items()
        for n, c in by_budget.items()
    ]
