"""Best-of-N weighted by every way to make one score of a solution's steps (Snell et al. 2024, Fig. 13)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from ttcjax.eval.records.bundle import Records
from ttcjax.eval.records.measured import by_aggregation
from ttcjax.eval.report.drawing.figures import STYLE, band, legend_below, new_figure, powers_of_two
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.sections import accuracy, baseline
from ttcjax.eval.sections.verifying import outcome
from ttcjax.eval.stats.intervals import Estimate


@dataclass(frozen=True)
class Aggregated:
    """Best-of-N weighted by a solution's score.

    Attributes:
        accuracy: By step aggregation and budget.
    """

    accuracy: dict[str, dict[int, Estimate]]


def figure(found: Aggregated, summary: Summary) -> Figure:
    """Draw accuracy against the budget, a line a step aggregation.

    Majority and, where there are any, the other verifiers of base samples stand beside them.
    """
    lines = {f"PRM, {how}": cells for how, cells in found.accuracy.items()}
    others, strategies = summary.get(outcome.SECTION), summary.of(accuracy.SECTION).strategies
    if others is not None:
        named = others.accuracy.items()
        lines |= {outcome.told(name): rules["weighted"] for name, rules in named if name != outcome.PRM}
    if "majority" in strategies:
        lines["majority"] = strategies["majority"]
    with mpl.rc_context(STYLE):
        drawn = new_figure(7.5, 4.6)
        axes = drawn.add_subplot()
        for i, (name, cells) in enumerate(lines.items()):
            band(axes, list(cells), cells.values(), i, name)
        powers_of_two(axes, list(next(iter(lines.values()))))
        axes.set(xlabel="generation budget N", ylabel="accuracy (%)", title="Best-of-N weighted by score of a solution")
        legend_below(drawn)
        return drawn


def csv_rows(found: Aggregated) -> Iterator[tuple[Any, ...]]:
    """Yield (selector, budget, mean, low, high)."""
    for how, points in found.accuracy.items():
        for n, point in points.items():
            yield how, n, *point.ends


class Aggregation(Section[Aggregated]):
    """Step aggregations."""

    name = "aggregation"
    result = Aggregated
    drawings = (
        Drawing[Aggregated](
            Entry(
                "aggregation",
                "From step scores to the score of a solution",
                "The last step's score is the best score of a solution, the lowest step's comes next, and the product "
                "of all is worst, below the majority vote.",
                "sweep.strategies, sweep.budgets",
                paper="13",
                iclr="14",
                tables=("aggregation",),
            ),
            draw=figure,
            greedy=baseline.once(0),
        ),
    )
    tables = (Table[Aggregated]("aggregation", "selector budget mean low high", lambda found, _: csv_rows(found)),)

    def compute(self, records: Records) -> Aggregated:
        samples = records.measured.samples
        bootstrap = records.bootstrap(len(samples.questions))
        cells = by_aggregation(samples, records.settings.sweep.budgets)
        return Aggregated(
            {how: {n: bootstrap(values) for n, values in by_budget.items()} for how, by_budget in cells.items()}
        )


SECTION = Aggregation()
