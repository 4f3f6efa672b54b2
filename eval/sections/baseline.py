"""One greedy answer as the baseline of everything: a number beside every accuracy, a line in every figure of them.

What a budget of samples is worth is what it gains over one answer made of the likeliest tokens, which costs one
generation and needs no verifier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.report import figures, tables
from ttcjax.eval.sections import optimal
from ttcjax.eval.sections.revisions import strategy_name
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.search import registry

NAMES = {"policy": "greedy, one answer", "larger": "greedy, larger model"}
"""How tables call the greedy answers of each model."""
_TEXT = "greedy"


def right_answers(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, bool]]:
    """Return whether each model's greedy answer to each question is right, from what `greedy.read` returns."""
    return {
        model: dict(zip(table["question"].to_pylist(), table["correct"].to_pylist(), strict=True))
        for model, table in tables.items()
    }


def missing(right: Mapping[str, Mapping[str, bool]], questions: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return (strategy, budget, question, seed, sample) of every greedy answer that should exist and does not."""
    return [(f"greedy:{model}", 1, q, 0, 0) for model, known in right.items() for q in questions if q not in known]


def summarise(
    settings: SweepConfig,
    right: Mapping[str, Mapping[str, bool]],
    questions: Sequence[str],
    levels: np.ndarray,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    ease: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Judge the greedy answers, and every strategy against the policy's.

    Args:
        settings: `bootstrap`, `folds` and `seed` are used.
        right: Of each model, what `right_answers` returns; an answer that is missing is wrong.
        questions: All ids, `[Q]`.
        levels: Of each question, `[Q]`.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.
        ease: For each notion of difficulty (`oracle`, `predicted`) how easy each question is.

    Returns:
        `accuracy[model]`, `per_level[level][model]`, `minus[strategy][n]` (the strategy less the policy's greedy
        answer, paired), and with questions enough for bins `per_bin[notion][bin]` of the policy, all with intervals.
    """
    of = {model: np.array([known.get(q, False) for q in questions], np.float64) for model, known in right.items()}

    bootstrap = Bootstrap(len(questions), settings.bootstrap, settings.bootstrap_seed)

    def within(inside_Q: np.ndarray, values_Q: np.ndarray) -> dict[str, Any]:
        return dataclasses.asdict(bootstrap(values_Q, inside_Q))

    found: dict[str, Any] = {
        "accuracy": {model: dataclasses.asdict(bootstrap(values)) for model, values in of.items()},
        "per_level": {
            str(level): {model: within(levels == level, values) for model, values in of.items()}
            for level in np.unique(levels)
        },
        "minus": {
            strategy: {
                str(n): dataclasses.asdict(bootstrap.paired(values, of["policy"])) for n, values in cells.items()
            }
            for strategy, cells in accuracy.items()
        },
    }
    if len(questions) >= optimal.BINS * settings.folds:
        found["per_bin"] = _per_bin(of["policy"], questions, ease, within)
    return found


def of_chains(
    settings: SweepConfig,
    right: Mapping[str, bool],
    questions: Sequence[str],
    splits: Mapping[str, Mapping[int, Mapping[str, np.ndarray]]],
    ease: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """Judge the policy's greedy answers on the questions of the chains, and every split of a budget against them.

    Args:
        settings: `bootstrap` and `seed` are used.
        right: Of the policy, what `right_answers` returns.
        questions: Of the chains, `[Q]`.
        splits: Each question's accuracy `[Q]`, by selector, budget and split.
        ease: As for `summarise`.

    Returns:
        `accuracy`, `minus[split][selector]` (paired) and `per_bin[notion][bin]`.
    """
    values_Q = np.array([right.get(q, False) for q in questions], np.float64)
    bootstrap = Bootstrap(len(questions), settings.bootstrap, settings.bootstrap_seed)

    def within(inside_Q: np.ndarray, values_Q: np.ndarray) -> dict[str, float]:
        return dataclasses.asdict(bootstrap(values_Q, inside_Q))

    minus: dict[str, dict[str, Any]] = {}
    for selector, by_budget in splits.items():
        for cells in by_budget.values():
            for split, accuracy_Q in cells.items():
                minus.setdefault(split, {})[selector] = dataclasses.asdict(bootstrap.paired(accuracy_Q, values_Q))
    return {
        "accuracy": dataclasses.asdict(bootstrap(values_Q)),
        "minus": minus,
        "per_bin": _per_bin(values_Q, questions, ease, within),
    }


def _per_bin(
    values_Q: np.ndarray,
    questions: Sequence[str],
    ease: Mapping[str, Mapping[str, float]],
    within: Callable[[np.ndarray, np.ndarray], dict[str, float]],
) -> dict[str, dict[str, Any]]:
    bins = {
        notion: quantile_bins(np.array([known[q] for q in questions]), optimal.BINS) for notion, known in ease.items()
    }
    return {
        notion: {str(number): within(bins_Q == number, values_Q) for number in range(1, optimal.BINS + 1)}
        for notion, bins_Q in bins.items()
    }


def csv_rows(greedy: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield (measure, strategy or model, group, budget, mean, low, high); `group` is a bin or a selector."""

    def row(measure: str, name: str, group: str, n: str, cell: Mapping[str, float]) -> tuple[Any, ...]:
        return (measure, name, group, n, cell["mean"], cell["low"], cell["high"])

    for model, cell in greedy["accuracy"].items():
        yield row("accuracy", model, "", "1", cell)
    for strategy, cells in greedy["minus"].items():
        for n, cell in cells.items():
            yield row("strategy_minus_greedy", strategy, "", n, cell)
    for notion, bins in greedy.get("per_bin", {}).items():
        for number, cell in bins.items():
            yield row(f"per_bin_{notion}", "policy", number, "1", cell)
    if "chains" in greedy:
        yield row("accuracy_of_chains_questions", "policy", "", "1", greedy["chains"]["accuracy"])
        for split, selectors in greedy["chains"]["minus"].items():
            for selector, cell in selectors.items():
                yield row("strategy_minus_greedy", split, selector, "", cell)


def render_chains(found: Mapping[str, Any], console: Console) -> None:
    """Print what one chain and parallel answers of every budget gain over one greedy answer of the policy.

    Args:
        found: What `of_chains` returns, with JSON's own types.
        console: Where to.
    """
    budgets = sorted(set(map(_generations, found["minus"])))
    table = tables.table("revisions less one greedy answer of the policy: points", ["N =", *map(str, budgets)])
    for name, split in (("one chain", lambda n: strategy_name(n, 1)), ("parallel", lambda n: strategy_name(1, n))):
        for selector in next(iter(found["minus"].values())):
            cells = (found["minus"][split(n)][selector] for n in budgets)
            table.add_row(f"{name}, {selector}", *map(tables.difference_cell, cells))
    table.add_row("greedy (%)", tables.cell(found["accuracy"]), style="dim")
    console.print(table)


def _generations(split: str) -> int:
    return registry.parse(split).cost()


def lines(name: str, summary: Mapping[str, Any]) -> list[tuple[int, Mapping[str, float], int | None]]:
    """Return the greedy lines of a figure: the place of its axes, the accuracy, and a colour's number if it has one.

    Lines by difficulty are of the bin that the axes, or the line of that colour, are about.

    Args:
        name: Of the figure's files; one that shows no accuracies has no lines.
        summary: The whole summary, with JSON's own types.
    """
    greedy = summary["greedy"]
    once = {
        **dict.fromkeys(("accuracy_vs_budget", "aggregation", "weak_verifiers"), (0,)),
        **dict.fromkeys(("accuracy_vs_flops", "compute_optimal", "budget"), (0,)),
        "verifiers": (0, 1),
    }
    if name in once:
        return [(place, greedy["accuracy"]["policy"], None) for place in once[name]]
    by_bin = {"by_difficulty": "oracle", "by_difficulty_predicted": "predicted"}
    if name in by_bin:
        return [(i, cell, None) for i, cell in enumerate(greedy["per_bin"][by_bin[name]].values())]
    of_chains = {
        **dict.fromkeys(("revision_steps", "revision_verifiers"), (0,)),
        **dict.fromkeys(("revision_ratios", "revision_ratios_majority"), (0,)),
        **dict.fromkeys(("revision_budgets", "revision_by_difficulty"), (0, 1)),
    }
    if name in of_chains:
        return [(place, greedy["chains"]["accuracy"], None) for place in of_chains[name]]
    if name == "exchange":
        found = []
        for i, source in enumerate(summary["exchange"]["sources"]):
            bins = greedy if source == "search" else greedy["chains"]
            found += [(2 * i, cell, k) for k, cell in enumerate(bins["per_bin"]["oracle"].values())]
        return found
    return []


def draw(name: str, figure: Figure, summary: Mapping[str, Any]) -> Figure:
    """Draw the greedy answer's accuracy into a figure of accuracies, as horizontal lines with 95% bands.

    Args:
        name: Of the figure's files.
        figure: The figure, changed in place.
        summary: The whole summary, with JSON's own types.

    Returns:
        The figure.
    """
    for place, point, colour in lines(name, summary):
        _line(figure.axes[place], point, colour)
    return figure


def _line(axes: Axes, point: Mapping[str, float], colour: int | None) -> None:
    mean, low, high = (100 * point[key] for key in ("mean", "low", "high"))
    bottom, top = axes.get_ylim()
    shade = figures.MUTED if colour is None else figures.COLOURS[colour % len(figures.COLOURS)]
    # Its own name beside it, not in a legend: it has no marker, and stands behind all else.
    axes.axhspan(low, high, color=shade, alpha=0.08 if colour is None else 0.04, linewidth=0, zorder=0.4)
    axes.axhline(mean, color=shade, linewidth=1.2, linestyle=(0, (1, 1.5)), zorder=0.5)
    axes.annotate(
        f"{_TEXT} {mean:.1f}",
        (0.01, mean),
        xycoords=("axes fraction", "data"),
        xytext=(0, 1.5),
        textcoords="offset points",
        color=shade,
        fontsize=7,
        va="bottom",
    )
    axes.set_ylim(min(bottom, low - 1), max(top, high + 1))
