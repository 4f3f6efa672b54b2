"""One greedy answer as the baseline of everything: a number beside every accuracy, a line in every figure of them.

What a budget of samples is worth is what it gains over one answer made of the likeliest tokens, which costs one
generation and needs no verifier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.answer_chains import SELECTORS, strategy_name
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Line, Section, Summary, Table
from ttcjax.eval.stats.difficulty import BINS, enough, quantile_bins
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.search import registry

NAMES = {"policy": "greedy, one answer", "larger": "greedy, larger model"}
"""Names of each model's greedy answers in tables."""
_TEXT = "greedy"


Bins = dict[str, dict[int, Estimate]]
"""By notion of difficulty and bin."""


@dataclass(frozen=True)
class OfChains:
    """The policy's greedy answers on the questions of the chains.

    Attributes:
        accuracy: Of them.
        minus: Every split less the greedy answer, by split and selector, paired.
        per_bin: Accuracy in each bin.
    """

    accuracy: Estimate
    minus: dict[str, dict[str, Estimate]]
    per_bin: Bins


@dataclass(frozen=True)
class Greedy:
    """The greedy answers.

    Attributes:
        accuracy: By model.
        minus: Every strategy less the policy's greedy answer, by strategy and budget, paired.
        per_level: By level of the data set and model.
        per_bin: Of the policy in each bin, with questions enough for bins.
        chains: On the questions of the chains.
    """

    accuracy: dict[str, Estimate]
    minus: dict[str, dict[int, Estimate]]
    per_level: dict[str, dict[str, Estimate]]
    per_bin: Bins = field(default_factory=dict)
    chains: OfChains | None = None


def compare(
    settings: SweepConfig,
    right: Mapping[str, Mapping[str, bool]],
    questions: Sequence[str],
    levels: np.ndarray,
    accuracy: Mapping[str, Mapping[int, np.ndarray]],
    ease: Mapping[str, Mapping[str, float]],
) -> Greedy:
    """Judge the greedy answers, and every strategy against the policy's.

    Args:
        settings: `bootstrap`, `folds` and `seed` are used.
        right: Of each model, which questions it is right about; an answer that is missing is wrong.
        questions: All ids, `[Q]`.
        levels: Of each question, `[Q]`.
        accuracy: Each question's accuracy `[Q]`, by strategy and budget.
        ease: For each notion of difficulty (`oracle`, `predicted`) how easy each question is.
    """
    of = {model: np.array([known.get(q, False) for q in questions], np.float64) for model, known in right.items()}

    bootstrap = Bootstrap(len(questions), settings.bootstrap, settings.bootstrap_seed)

    return Greedy(
        accuracy={model: bootstrap(values) for model, values in of.items()},
        minus={
            strategy: {n: bootstrap.paired(values, of["policy"]) for n, values in cells.items()}
            for strategy, cells in accuracy.items()
        },
        per_level={
            str(level): {model: bootstrap(values, levels == level) for model, values in of.items()}
            for level in np.unique(levels)
        },
        per_bin=_per_bin(bootstrap, of["policy"], questions, ease) if enough(len(questions), settings.folds) else {},
    )


def of_chains(
    settings: SweepConfig,
    right: Mapping[str, bool],
    questions: Sequence[str],
    splits: Mapping[str, Mapping[int, Mapping[str, np.ndarray]]],
    ease: Mapping[str, Mapping[str, float]],
) -> OfChains:
    """Judge the policy's greedy answers on the questions of the chains, and every split of a budget against them.

    Args:
        settings: `bootstrap` and `seed` are used.
        right: Which questions the policy is right about.
        questions: Of the chains, `[Q]`.
        splits: Each question's accuracy `[Q]`, by selector, budget and split.
        ease: As for `compare`.
    """
    values_Q = np.array([right.get(q, False) for q in questions], np.float64)
    bootstrap = Bootstrap(len(questions), settings.bootstrap, settings.bootstrap_seed)

    minus: dict[str, dict[str, Estimate]] = {}
    for selector, by_budget in splits.items():
        for cells in by_budget.values():
            for split, accuracy_Q in cells.items():
                minus.setdefault(split, {})[selector] = bootstrap.paired(accuracy_Q, values_Q)
    return OfChains(bootstrap(values_Q), minus, _per_bin(bootstrap, values_Q, questions, ease))


def _per_bin(
    bootstrap: Bootstrap, values_Q: np.ndarray, questions: Sequence[str], ease: Mapping[str, Mapping[str, float]]
) -> Bins:
    bins = {notion: quantile_bins(np.array([known[q] for q in questions])) for notion, known in ease.items()}
    return {
        notion: {number: bootstrap(values_Q, bins_Q == number) for number in range(1, BINS + 1)}
        for notion, bins_Q in bins.items()
    }


def csv_rows(found: Greedy) -> Iterator[tuple[Any, ...]]:
    """Yield (measure, strategy or model, group, budget, mean, low, high); `group` is a bin or a selector."""
    for model, cell in found.accuracy.items():
        yield "accuracy", model, "", 1, *cell.ends
    for strategy, cells in found.minus.items():
        for n, cell in cells.items():
            yield "strategy_minus_greedy", strategy, "", n, *cell.ends
    for notion, bins in found.per_bin.items():
        for number, cell in bins.items():
            yield f"per_bin_{notion}", "policy", number, 1, *cell.ends
    if found.chains is not None:
        yield "accuracy_of_chains_questions", "policy", "", 1, *found.chains.accuracy.ends
        for split, selectors in found.chains.minus.items():
            for selector, cell in selectors.items():
                yield "strategy_minus_greedy", split, selector, "", *cell.ends


def render_chains(found: OfChains, console: Console) -> None:
    """Print what one chain and parallel answers of every budget gain over one greedy answer of the policy."""
    budgets = sorted(set(map(_generations, found.minus)))
    table = tables.table("revisions less one greedy answer of the policy: points", ["N =", *map(str, budgets)])
    for name, split in (("one chain", lambda n: strategy_name(n, 1)), ("parallel", lambda n: strategy_name(1, n))):
        for selector in next(iter(found.minus.values())):
            cells = (found.minus[split(n)][selector] for n in budgets)
            table.add_row(f"{name}, {selector}", *map(tables.difference_cell, cells))
    table.add_row("greedy (%)", tables.cell(found.accuracy), style="dim")
    console.print(table)


def _generations(split: str) -> int:
    return registry.parse(split).cost()


class OneGreedyAnswer(Section[Greedy]):
    """One greedy answer of each model."""

    name = "greedy"
    result = Greedy
    tables = (Table[Greedy]("greedy", "measure name group budget mean low high", lambda found, _: csv_rows(found)),)

    def compute(self, records: Records) -> Greedy:
        measured, sweep = records.measured, records.settings.sweep
        found = compare(sweep, records.right, records.questions, measured.levels, measured.accuracy, records.ease)
        if not records.settings.revision.enabled:
            return found
        splits = records.splits
        by_selector = {rule: splits.by_ratio(rule) for rule in SELECTORS}
        chains = of_chains(sweep, records.right["policy"], splits.chains.questions, by_selector, records.ease)
        return replace(found, chains=chains)

    def text(self, found: Greedy, summary: Summary, console: Console) -> None:
        if found.chains is not None:
            render_chains(found.chains, console)


SECTION = OneGreedyAnswer()


def once(*axes: int) -> Callable[[Summary], list[Line]]:
    """Return the accuracy of the policy's greedy answer as a line of these axes."""
    return lambda summary: [(place, summary.of(SECTION).accuracy["policy"], None) for place in axes]


def once_on_chains(*axes: int) -> Callable[[Summary], list[Line]]:
    """Return the same on the questions of the chains."""

    def lines(summary: Summary) -> list[Line]:
        chains = summary.of(SECTION).chains
        return [] if chains is None else [(place, chains.accuracy, None) for place in axes]

    return lines


def once_by_bin(notion: str) -> Callable[[Summary], list[Line]]:
    """Return the same in each bin, as a line of that bin's axes."""
    return lambda summary: [(i, cell, None) for i, cell in enumerate(summary.of(SECTION).per_bin[notion].values())]


def draw(drawn: Figure, lines: Iterable[Line]) -> Figure:
    """Draw the greedy answer's accuracy into a figure of accuracies, as horizontal lines with 95% bands.

    Args:
        drawn: The figure, changed in place.
        lines: What `once` and the like return.

    Returns:
        The figure.
    """
    for place, point, colour in lines:
        _line(drawn.axes[place], point, colour)
    return drawn


def _line(axes: Axes, point: Estimate, colour: int | None) -> None:
    mean, low, high = (100 * number for number in point.ends)
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
