"""What choosing the strategy by difficulty gains at every budget (Snell et al. 2024, Figs. 3 right, 4 and 12)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.report import figures, tables
from ttcjax.eval.stats.allocate import Choice, choose, regret
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.draws import Drawn
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.search import registry

_V = TypeVar("_V")
BINS = 5
CHOSEN = "chosen"
"""Stands among the strategies of a bin for what is chosen there."""


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
    baseline: Mapping[int, np.ndarray], n: int, chosen_R: np.ndarray, bootstrap: Bootstrap
) -> dict[str, float | bool]:
    """Return how many times n generations the baseline needs to be as accurate as what was chosen at n.

    Args:
        baseline: Each question's accuracy `[Q]`, by budget.
        n: Generations of what was chosen.
        chosen_R: Mean accuracy of what was chosen in each resample, `[1 + R]`.
        bootstrap: The resamples.

    Returns:
        `times`, `low`, `high`, and `reached` and `high_reached`: whether the baseline gets there within its
        largest budget, and whether it does at the upper end. Where it does not, that budget stands for what it needs,
        so that the number is a lower bound.
    """
    budgets = list(baseline)
    largest = float(budgets[-1])
    curve_BR = np.stack([bootstrap.means(values) for values in baseline.values()])
    needed_R = budget_for(budgets, curve_BR, chosen_R)
    low, high = bootstrap.quantiles(needed_R)
    return {
        "times": Drawn(min(float(needed_R[0]), largest) / n, np.minimum(needed_R[1:], largest) / n),
        "low": min(low, largest) / n,
        "high": min(high, largest) / n,
        "reached": bool(np.isfinite(needed_R[0])),
        "high_reached": bool(np.isfinite(high)),
    }


def choices(
    settings: SweepConfig,
    candidates: Mapping[int, Mapping[str, np.ndarray]],
    bins_Q: np.ndarray,
    bootstrap: Bootstrap,
) -> dict[int, Choice]:
    """Choose a strategy for each bin at every budget, on one fold for the other.

    Args:
        settings: `folds`, `fold_repeats` and `seed` are used.
        candidates: Each question's accuracy `[Q]`, by budget and strategy; of equals the first is chosen.
        bins_Q: The bin of each question.
        bootstrap: Resamples of the questions, in each of which the choice is made anew.
    """
    return {
        n: choose(settings, np.stack(list(accuracy.values())), bins_Q, bootstrap) for n, accuracy in candidates.items()
    }


def by_budget(accuracy: Mapping[str, Mapping[int, np.ndarray]]) -> dict[int, dict[str, np.ndarray]]:
    """Turn accuracies by strategy and budget into those by budget and strategy."""
    budgets = next(iter(accuracy.values()))
    return {n: {strategy: values[n] for strategy, values in accuracy.items()} for n in budgets}


def summarise(
    settings: SweepConfig,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    ease: Mapping[str, np.ndarray],
    baseline: str,
) -> dict[str, Any]:
    """Choose a strategy for each difficulty bin and budget on one fold and judge it on the other.

    Args:
        settings: `folds`, `fold_repeats`, `bootstrap` and `seed` are used.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.
        ease: For each notion of difficulty (`oracle`, `predicted`) how easy each question is, `[Q]`.
        baseline: The strategy that saved compute is counted against, where it is among them.

    Returns:
        Chosen are strategies that a verifier selects in, as in the paper; where there is none, others. For each notion
        `accuracy[n]`, `regret[n]`, `shares[n][bin][strategy]` (how often each is chosen) and `minus_best[n]` (less one
        strategy for all bins, the best of the other folds, paired), with intervals, and `compute_saved[n]`, see
        `compute_saved`; `agreement`, the share of questions that both notions put into the same bin; and
        `per_bin[notion][bin][strategy][n]`, `chosen` among the strategies.
    """
    offered = verified(accuracy)
    strategies = list(offered)
    questions = len(next(iter(ease.values())))
    bootstrap = Bootstrap(questions, settings.bootstrap, settings.bootstrap_seed)
    bins = {name: quantile_bins(values, BINS) for name, values in ease.items()}
    candidates = by_budget(offered)
    found: dict[str, Any] = {}
    per_bin: dict[str, Any] = {}
    singles = choices(settings, candidates, np.ones(questions, np.int64), bootstrap)
    for name, bins_Q in bins.items():
        cells: dict[str, Any] = {"accuracy": {}, "regret": {}, "minus_best": {}, "shares": {}}
        chosen = choices(settings, candidates, bins_Q, bootstrap)
        for n, choice in chosen.items():
            accuracy_SQ = np.stack(list(candidates[n].values()))
            best_R = bootstrap.means(accuracy_SQ.max(axis=0))
            cells["accuracy"][str(n)] = dataclasses.asdict(choice.estimate())
            cells["regret"][str(n)] = dataclasses.asdict(
                bootstrap(regret(accuracy_SQ, choice.accuracy), means_R=best_R - choice.means())
            )
            cells["minus_best"][str(n)] = dataclasses.asdict(choice.less(singles[n]))
            if baseline in accuracy:
                saved = compute_saved(accuracy[baseline], n, choice.means(), bootstrap)
                cells.setdefault("compute_saved", {})[str(n)] = saved
            cells["shares"][str(n)] = {
                str(number + 1): dict(zip(strategies, row, strict=True)) for number, row in enumerate(choice.shares)
            }
        found[name] = cells
        per_bin[name] = {
            str(number): _curves_within(bootstrap, accuracy, chosen, bins_Q, number) for number in range(1, BINS + 1)
        }
    first, *others = bins.values()
    if others:
        found["agreement"] = float((first == others[0]).mean())
    return {**found, "per_bin": per_bin}


def verified(accuracy: Mapping[str, _V]) -> dict[str, _V]:
    """Return what belongs to strategies that a verifier selects in; where there is none, all."""
    found = {name: values for name, values in accuracy.items() if registry.named(name).selector.asks_verifier}
    return found or dict(accuracy)


def _curves_within(
    bootstrap: Bootstrap,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    chosen: Mapping[int, Choice],
    bins_Q: np.ndarray,
    number: int,
) -> dict[str, dict[str, dict[str, float]]]:
    return {
        **{
            strategy: {str(n): dataclasses.asdict(bootstrap(values, bins_Q == number)) for n, values in cells.items()}
            for strategy, cells in accuracy.items()
        },
        CHOSEN: {str(n): dataclasses.asdict(choice.estimate([number])) for n, choice in chosen.items()},
    }


def figure(summary: dict[str, Any]) -> Figure:
    """Draw what is gained by choosing, and the compute that best-of-N needs for as much (Fig. 4).

    Args:
        summary: The whole summary, with JSON's own types.
    """
    found, accuracy = summary["compute_optimal"], figures.by_budget(summary["accuracy"])
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(7.5, 4.6)
        axes = drawn.add_subplot()
        for i, (strategy, cells) in enumerate(accuracy.items()):
            figures.band(axes, [int(n) for n in cells], cells.values(), i, figures.label(strategy))
        for i, (notion, cells) in enumerate(_notions(found).items()):
            points = cells["accuracy"]
            axes.plot(
                [int(n) for n in points],
                [100 * point["mean"] for point in points.values()],
                color=figures.MUTED,
                linewidth=2.2,
                linestyle=("-", (0, (4, 2)))[i % 2],
                label=f"chosen by difficulty, {notion}",
            )
        figures.powers_of_two(axes, [int(n) for n in next(iter(accuracy.values()))])
        axes.set(xlabel="generation budget N", ylabel="accuracy (%)", title="Strategy chosen by difficulty")
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        return drawn


def figure_of_bins(summary: dict[str, Any], notion: str) -> Figure:
    """Draw each strategy by difficulty (Fig. 3 right with oracle bins, Fig. 12 with predicted ones)."""
    found = summary["compute_optimal"]["per_bin"][notion]
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(13.0, 3.9)
        axes = drawn.subplots(1, BINS, sharey=True)
        for where, (number, strategies) in zip(axes, found.items(), strict=True):
            shown = {name: cells for name, cells in strategies.items() if name != CHOSEN}
            for i, (strategy, cells) in enumerate(shown.items()):
                figures.band(where, [int(n) for n in cells], cells.values(), i, figures.label(strategy))
            figures.powers_of_two(where, [int(n) for n in next(iter(shown.values()))][::-2])
            where.set(title=f"bin {number}" + (" (easiest)" if number == "1" else ""), xlabel="N")
        axes[0].set_ylabel("accuracy (%)")
        handles, labels = axes[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
        drawn.suptitle(f"Accuracy by difficulty, {notion} bins", x=0.01, ha="left", fontsize=11)
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
            table.add_row("x best-of-N", *map(tables.saved_cell, cells["compute_saved"].values()), style="dim")
    console.print(table)


def _notions(found: dict[str, Any]) -> dict[str, Any]:
    """Return what was found for each notion of difficulty, without what stands beside them."""
    return {name: cells for name, cells in found.items() if name not in ("agreement", "per_bin")}


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
    return rows + [
        (notion, "accuracy", number, strategy, n, c["mean"], c["low"], c["high"])
        for notion, bins in summary["compute_optimal"]["per_bin"].items()
        for number, strategies in bins.items()
        for strategy, by_budget in strategies.items()
        for n, c in by_budget.items()
    ]
