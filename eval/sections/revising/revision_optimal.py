"""Gains of choosing the split of a budget by difficulty (Snell et al. 2024, section 6.2 and Fig. 8)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.answer_chains import SELECTORS, Splits, strategy_name
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.drawing import figures, tables
from ttcjax.eval.report.section import Drawing, Entry, Section, Summary, Table
from ttcjax.eval.report.verdicts import Claim, higher, saving
from ttcjax.eval.sections import baseline
from ttcjax.eval.sections.revising.revisions import ENABLED
from ttcjax.eval.sections.spending import optimal
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.eval.stats.savings import SAVED, Saved, compute_saved

_NAMES = {"hierarchical": "the verifier", "majority": "majority"}


@dataclass(frozen=True)
class ChosenSplits:
    """Splits chosen by one notion of difficulty, at every budget.

    Attributes:
        accuracy: Of what was chosen.
        minus_parallel: Less parallel answers, paired.
        compute_saved: Against parallel answers.
    """

    accuracy: dict[int, Estimate]
    minus_parallel: dict[int, Estimate]
    compute_saved: dict[int, Saved]


@dataclass(frozen=True)
class UnderSelector:
    """Splits under one selector.

    Attributes:
        parallel: Accuracy of parallel answers, by budget.
        chosen: By notion of difficulty.
    """

    parallel: dict[int, Estimate]
    chosen: dict[str, ChosenSplits]


@dataclass(frozen=True)
class SplitsByDifficulty:
    """Splits chosen by difficulty, under both selectors."""

    hierarchical: UnderSelector
    majority: UnderSelector

    @property
    def rules(self) -> dict[str, UnderSelector]:
        """Results by selector."""
        return {"hierarchical": self.hierarchical, "majority": self.majority}


def compare(settings: SweepConfig, splits: Splits, ease: Mapping[str, Mapping[str, float]]) -> SplitsByDifficulty:
    """Choose a split of each budget for each difficulty bin on one fold and judge it on the other.

    Args:
        settings: `seed` and `bootstrap` are used.
        splits: What every split gives.
        ease: For each notion of difficulty (`oracle`, `predicted`) how easy each question is.
    """
    questions = splits.chains.questions
    bootstrap = Bootstrap(len(questions), settings.bootstrap, settings.bootstrap_seed)
    bins = {name: quantile_bins(np.array([values[q] for q in questions])) for name, values in ease.items()}

    def under(rule: str) -> UnderSelector:
        candidates = splits.by_ratio(rule)
        parallel = {n: cells[strategy_name(1, n)] for n, cells in candidates.items()}
        chosen = {name: optimal.choices(settings, candidates, bins_Q, bootstrap) for name, bins_Q in bins.items()}
        return UnderSelector(
            parallel={n: bootstrap(values) for n, values in parallel.items()},
            chosen={
                name: ChosenSplits(
                    accuracy={n: c.estimate() for n, c in by_budget.items()},
                    minus_parallel={n: c.less(parallel[n]) for n, c in by_budget.items()},
                    compute_saved={n: compute_saved(parallel, n, c.means(), bootstrap) for n, c in by_budget.items()},
                )
                for name, by_budget in chosen.items()
            },
        )

    return SplitsByDifficulty(under("hierarchical"), under("majority"))


def figure(found: SplitsByDifficulty) -> Figure:
    """Draw the chosen splits beside parallel answers, under both selectors."""
    with mpl.rc_context(figures.STYLE):
        drawn = figures.new_figure(10.0, 4.0)
        axes = drawn.subplots(1, 2, sharey=True)
        for where, (rule, cells) in zip(axes, found.rules.items(), strict=True):
            budgets = list(cells.parallel)
            figures.band(where, budgets, cells.parallel.values(), 0, "parallel")
            for i, (name, chosen) in enumerate(cells.chosen.items(), 1):
                figures.band(where, budgets, chosen.accuracy.values(), i, f"split chosen by difficulty, {name}")
            figures.powers_of_two(where, budgets)
            where.set(xlabel="generation budget N", title=f"Selected by {_NAMES[rule]}")
        axes[0].set_ylabel("accuracy (%)")
        figures.legend_below(drawn)
        return drawn


def render(found: SplitsByDifficulty, console: Console) -> None:
    """Print what the chosen splits reach, less parallel answers, and the compute saved."""
    budgets = map(str, found.rules[SELECTORS[0]].parallel)
    table = tables.table("split of the budget chosen by difficulty: accuracy in %", ["N =", *budgets])
    for rule, cells in found.rules.items():
        for name, chosen in cells.chosen.items():
            table.add_row(f"{_NAMES[rule]}, {name}", *map(tables.cell, chosen.accuracy.values()))
            table.add_row("- parallel", *map(tables.difference_cell, chosen.minus_parallel.values()), style="dim")
            table.add_row("x parallel", *map(tables.saved_cell, chosen.compute_saved.values()), style="dim")
    console.print(table)


def csv_rows(found: SplitsByDifficulty) -> list[tuple[Any, ...]]:
    """Return (selector, bins, measure, budget, mean, low, high)."""
    rows: list[tuple[Any, ...]] = []
    for rule, cells in found.rules.items():
        rows += [(rule, "", "parallel", n, *cell.ends) for n, cell in cells.parallel.items()]
        for name, chosen in cells.chosen.items():
            rows += [(rule, name, "accuracy", n, *cell.ends) for n, cell in chosen.accuracy.items()]
            rows += [(rule, name, "minus_parallel", n, *cell.ends) for n, cell in chosen.minus_parallel.items()]
            rows += [
                (rule, name, "compute_saved", n, saved.times, saved.low, saved.high)
                for n, saved in chosen.compute_saved.items()
            ]
    return rows


class RevisionByDifficulty(Section[SplitsByDifficulty]):
    """The split of a budget chosen by difficulty, where a revision model was trained."""

    name = "revision_by_difficulty"
    result = SplitsByDifficulty
    drawings = (
        Drawing[SplitsByDifficulty](
            Entry(
                "revision_by_difficulty",
                "The ratio of sequential to parallel chosen by difficulty",
                "Choosing the ratio by difficulty beats parallel answers with up to 4 times fewer generations, and "
                "goes on rising where they level off, with predicted bins too.",
                ENABLED,
                paper="8",
                iclr="6",
                tables=("revision_by_difficulty",),
            ),
            draw=lambda found, _: figure(found),
            greedy=baseline.once_on_chains(0, 1),
        ),
    )
    tables = (
        Table[SplitsByDifficulty](
            "revision_by_difficulty",
            "selector bins measure budget mean low high",
            lambda found, _: csv_rows(found),
        ),
    )

    def wanted(self, records: Records) -> bool:
        return records.settings.revision.enabled

    def compute(self, records: Records) -> SplitsByDifficulty:
        return compare(records.settings.sweep, records.splits, records.ease)

    def text(self, found: SplitsByDifficulty, summary: Summary, console: Console) -> None:
        render(found, console)

    def claims(self, found: SplitsByDifficulty, summary: Summary) -> Iterator[Claim]:
        for notion, cells in found.hierarchical.chosen.items():
            where = f"revision_by_difficulty.hierarchical.chosen.{notion}"
            what = f"Parallel answers need more compute than ratios chosen by {notion} difficulty"
            paper = f"up to {SAVED} times as much: 64 generations do what 256 do"
            yield from saving(what, cells.compute_saved, "Fig. 8", paper, f"{where}.compute_saved")
            n = max(cells.minus_parallel)
            text = f"Ratios chosen by {notion} difficulty beat parallel answers (the verifier, N = {n})"
            paper = "about 44% (oracle) and 42% (predicted) against 40.5% at 256"
            yield higher(text, "Fig. 8", paper, cells.minus_parallel[n], f"{where}.minus_parallel")


SECTION = RevisionByDifficulty()
