"""Accuracy of every strategy at every budget, in all and by level of the data set (Snell et al. 2024, Fig. 3 left)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.records.measured import Measured
from ttcjax.eval.report.drawing import figures, markup, tables
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.sections import base_samples, baseline, paired
from ttcjax.eval.sections.verifying import weak
from ttcjax.eval.stats.estimators import scores_of
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.search import registry
from ttcjax.verify.aggregate import Aggregation


@dataclass(frozen=True)
class Level:
    """Questions of one level of the data set.

    Attributes:
        count: How many.
        pass_at_1: Share of right base samples.
        accuracy: Of each strategy at the largest budget.
    """

    count: int
    pass_at_1: Estimate
    accuracy: dict[str, Estimate]


@dataclass(frozen=True)
class Accuracies:
    """Accuracy of every strategy.

    Attributes:
        strategies: By strategy and budget.
        monte_carlo_error: Of strategies of the bank, what averaging over some subsets, not over all, leaves open.
        per_level: By level of the data set.
    """

    strategies: dict[str, dict[int, Estimate]]
    monte_carlo_error: dict[str, dict[int, float]]
    per_level: dict[str, Level]

    @property
    def budgets(self) -> list[int]:
        """The budgets, rising."""
        return list(next(iter(self.strategies.values())))


def monte_carlo_errors(settings: SweepConfig, how: Aggregation, measured: Measured) -> dict[str, dict[int, float]]:
    """Return for strategies of the bank what averaging over some subsets, not over all, leaves open of an accuracy.

    Args:
        settings: `strategies` and `budgets` are used.
        how: Step aggregation behind the scores.
        measured: What was measured.
    """
    names = {strategy: registry.named(strategy) for strategy in settings.strategies}
    selectors = {strategy: name.selector for strategy, name in names.items() if not name.searches}
    return {
        strategy: {
            n: float(
                measured.at[measured.temperatures[strategy][n]].accuracy_error(
                    by.rule, scores_of(by, how), n, by.ties, by.vote_temperature
                )
            )
            for n in settings.budgets
        }
        for strategy, by in selectors.items()
    }


def _per_level(settings: SweepConfig, measured: Measured) -> dict[str, Level]:
    levels, largest, found = measured.levels, max(settings.budgets), {}
    for level in np.unique(levels):
        inside = levels == level
        bootstrap = Bootstrap(int(inside.sum()), settings.bootstrap, settings.bootstrap_seed)
        found[str(level)] = Level(
            count=int(inside.sum()),
            pass_at_1=bootstrap(measured.samples.pass_at_1()[inside]),
            accuracy={name: bootstrap(cells[largest][inside]) for name, cells in measured.accuracy.items()},
        )
    return found


def with_baselines(summary: Summary) -> dict[str, dict[int, Estimate]]:
    """Return the accuracies of every strategy, and of the baseline `paired.ALONE` where it is none of them."""
    accuracy, verifiers = summary.of(SECTION).strategies, summary.get(weak.SECTION)
    if verifiers is None or paired.ALONE in accuracy:
        return accuracy
    return {**accuracy, paired.ALONE: verifiers.accuracy["likelihood"]}


def figure(summary: Summary) -> Figure:
    """Draw accuracy against generation budget, one line and one 95% band a strategy."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(7.5, 4.6)
        axes = drawn.add_subplot()
        ends = []
        accuracy = with_baselines(summary)
        for i, (strategy, points) in enumerate(accuracy.items()):
            colour = figures.COLOURS[i % len(figures.COLOURS)]
            budgets = list(points)
            mean, low, high = 100 * np.array([point.ends for point in points.values()]).T
            axes.fill_between(budgets, low, high, color=colour, alpha=0.11, linewidth=0)
            axes.plot(
                budgets,
                mean,
                color=colour,
                marker=figures.MARKERS[i % len(figures.MARKERS)],
                markersize=5,
                linewidth=1.8,
            )
            ends.append((mean[-1], figures.label(strategy), colour))
        figures.powers_of_two(axes, sorted({n for points in accuracy.values() for n in points}))
        axes.set_xlabel("generation budget N (answers per question)")
        axes.set_ylabel("accuracy (% of questions)")
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, -0.5), max(top, 1.0))  # where nothing is right, the margins would reach below 0 %
        title = f"{summary.name}: accuracy by strategy, {summary.questions} questions, 95% intervals"
        axes.set_title(figures.words(title))
        _label_ends(axes, ends)
        return drawn


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
            figures.words(text),
            (1.0, float(height)),
            xycoords=("axes fraction", "data"),
            xytext=(4, 0),
            textcoords="offset points",
            color=colour,
            va="center",
            annotation_clip=False,
        )


def render(found: Accuracies, summary: Summary, console: Console) -> None:
    """Print strategies by budget, differences between them, and levels at the largest budget."""
    once = summary.get(baseline.SECTION)
    alone = {} if once is None else once.accuracy
    budgets = list(map(str, found.budgets))
    table = tables.table(f"accuracy in % by budget N, {summary.questions} questions, 95% intervals", ["N =", *budgets])
    for strategy, points in with_baselines(summary).items():
        table.add_row(figures.label(strategy), *map(tables.cell, points.values()))
    passed = summary.of(base_samples.SECTION).pass_at_k
    table.add_row("any right (pass@N)", *map(tables.cell, passed.values()), style="dim")
    for model, point in alone.items():
        table.add_row(baseline.NAMES[model], tables.cell(point))
    console.print(table)

    table = tables.table("paired differences in points, 95% intervals", ["N =", *budgets])
    compared = summary.of(paired.SECTION)
    for a, b in dict.fromkeys((row.a, row.b) for row in compared.comparisons):
        cells = compared.of(a, b).values()
        table.add_row(f"{figures.label(a)}\n- {figures.label(b)}", *map(tables.difference_cell, cells))
    for strategy, less in ({} if once is None else once.minus).items():
        table.add_row(f"{figures.label(strategy)}\n- greedy", *map(tables.difference_cell, less.values()))
    if table.row_count:
        console.print(table)

    levels = found.per_level
    table = tables.table(f"accuracy in % by level at N = {budgets[-1]}", ["level", *levels])
    table.add_row("questions", *(str(level.count) for level in levels.values()), style="dim")
    table.add_row("pass@1", *(tables.cell(level.pass_at_1) for level in levels.values()))
    for strategy in next(iter(levels.values())).accuracy:
        table.add_row(figures.label(strategy), *(tables.cell(level.accuracy[strategy]) for level in levels.values()))
    for model, points in _by_model(once, levels).items():
        table.add_row(baseline.NAMES[model], *map(tables.cell, points))
    console.print(table)


def _by_model(once: baseline.Greedy | None, levels: Mapping[str, Level]) -> dict[str, list[Estimate]]:
    """Return the greedy answers of each model by level."""
    if once is None:
        return {}
    return {model: [once.per_level[level][model] for level in levels] for model in once.accuracy}


def csv_rows(summary: Summary) -> Iterator[tuple[Any, ...]]:
    """Yield (strategy, budget, mean, low, high, questions)."""
    for strategy, points in with_baselines(summary).items():
        for n, point in points.items():
            yield strategy, n, *point.ends, summary.questions
    for model, point in summary.of(baseline.SECTION).accuracy.items():
        yield f"greedy:{model}", 1, *point.ends, summary.questions


def level_rows(found: Accuracies, once: baseline.Greedy) -> Iterator[tuple[Any, ...]]:
    """Yield (level, questions, measure, mean, low, high)."""
    for level, values in found.per_level.items():
        for measure, point in {"pass_at_1": values.pass_at_1, **values.accuracy}.items():
            yield level, values.count, measure, *point.ends
        for model, point in once.per_level[level].items():
            yield level, values.count, f"greedy:{model}", *point.ends


class AccuracyByBudget(Section[Accuracies]):
    """Accuracy of every strategy at every budget."""

    name = "accuracy"
    result = Accuracies
    drawings = (
        Drawing[Accuracies](
            Entry(
                "accuracy_vs_budget",
                "Accuracy by strategy and generation budget",
                "At low budgets beam search is best. As the budget grows its gains shrink and it falls below best-of-N "
                "weighted; lookahead does worst for what it costs. Majority is below all that ask the verifier.",
                "sweep.strategies, sweep.budgets",
                paper="3 left",
                tables=("accuracy", "greedy"),
            ),
            draw=lambda _, summary: figure(summary),
            greedy=baseline.once(0),
        ),
    )
    tables = (
        Table[Accuracies]("accuracy", "strategy budget mean low high questions", lambda _, summary: csv_rows(summary)),
        Table[Accuracies](
            "per_level",
            "level questions measure mean low high",
            lambda found, summary: level_rows(found, summary.of(baseline.SECTION)),
        ),
    )

    def compute(self, records: Records) -> Accuracies:
        measured, settings = records.measured, records.settings
        bootstrap = records.bootstrap(len(records.questions))
        return Accuracies(
            strategies={
                strategy: {n: bootstrap(values) for n, values in by_budget.items()}
                for strategy, by_budget in measured.accuracy.items()
            },
            monte_carlo_error=monte_carlo_errors(settings.sweep, settings.aggregate, measured),
            per_level=_per_level(settings.sweep, measured),
        )

    def text(self, found: Accuracies, summary: Summary, console: Console) -> None:
        render(found, summary, console)

    def html(self, found: Accuracies, summary: Summary) -> str:
        levels = found.per_level
        lines = [["questions", *(str(level.count) for level in levels.values())]]
        lines.append(["pass@1", *(markup.cell(level.pass_at_1) for level in levels.values())])
        lines += [
            [markup.text(figures.label(name)), *(markup.cell(level.accuracy[name]) for level in levels.values())]
            for name in next(iter(levels.values())).accuracy
        ]
        once = _by_model(summary.get(baseline.SECTION), levels)
        lines += [[baseline.NAMES[model], *map(markup.cell, points)] for model, points in once.items()]
        table = markup.table(["level", *map(markup.text, levels)], lines, "Accuracy in % at the largest budget")
        return f"<h3>By level of the data set</h3>{table}"


SECTION = AccuracyByBudget()
